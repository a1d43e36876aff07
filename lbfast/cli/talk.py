"""Questions to the running lbfast over its control socket, and its refusals as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbfast.cli.clean import clean, quote
from lbfast.cli.errors import BadConfig, Refused, Unavailable
from lbfast.cli.labels import reals_of, services_of, unknown
from lbfast.control.client import Client, ControlError, ControlUnavailable


def ask(verb: str, timeout: float = 30.0, /, **args: Any) -> Any:
    """The result of a verb; Refused with one line when there is none.  Arguments that are None are left out."""
    try:
        return Client(timeout=timeout).call(verb, **args)
    except ControlUnavailable as error:
        raise Unavailable(clean(error)) from None
    except ControlError as error:
        if error.code == "bad_config":
            raise BadConfig(_lines(error.message)) from None
        raise Refused(_refusal(error, args)) from None


def _lines(message: str) -> str:
    """A message of several lines, each made safe."""
    return "\n".join(map(clean, message.split("\n")))


def follow(verb: str, **args: Any) -> Iterator[Any]:
    """The results of a verb that goes on, until the caller or lbfast ends it."""
    try:
        yield from Client().stream(verb, follow=True, **args)
    except ControlUnavailable as error:
        raise Refused(clean(error)) from None
    except ControlError as error:
        raise Refused(_refusal(error, args)) from None
    except ConnectionError:
        return  # control went away: the same as the end of the stream


def _refusal(error: ControlError, args: dict[str, Any]) -> str:
    """What lbfast said; for an unknown label what there is instead, asked for anew."""
    if error.code not in {"no_such_service", "no_such_real"}:
        return _lines(error.message)
    try:
        overview = Client().call("overview")
    except (ControlError, ControlUnavailable):
        return clean(error.message)
    service = str(args.get("service", ""))
    if error.code == "no_such_service":
        return unknown("virtual service", service, services_of(overview))
    return unknown("real server", str(args.get("real", "")), reals_of(overview, service), f" in {quote(service)}")
