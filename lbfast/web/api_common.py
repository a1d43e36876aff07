"""What every call of the REST API shares: who may, how lbfast is asked, and how a refusal is told (problem+json)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import Depends, Header, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lbfast.web.auth import Identity, check, identity_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable

Report = dict[str, Any]

PROBLEM: Final = "application/problem+json"
LONG_S: Final = 180.0  # a commit waits for listeners, neighbours and probes
# Of a refusal of lbfast; what is not named is 409: the request is right, the appliance's state is not.
STATUS: Final = MappingProxyType(
    {
        "no_such_service": 404,
        "no_such_real": 404,
        "no_such_version": 404,
        "unknown_verb": 404,
        "bad_argument": 422,
        "bad_request": 422,
        "bad_config": 422,
        "forbidden": 403,
        "busy": 503,
        "internal": 500,
    }
)
TITLES: Final = MappingProxyType(
    {
        400: "Bad request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not found",
        405: "Method not allowed",
        409: "Conflict",
        412: "Precondition failed",
        413: "Too large",
        422: "Not valid",
        500: "Internal error",
        503: "Not available",
    }
)


class Problem(BaseModel):
    """A refusal, as RFC 9457 has it."""

    type: str = Field(description="about:blank")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was found, where, what would be right.")
    code: str = Field(default="", description="lbfast's own word for the refusal.")
    problems: list[dict[str, Any]] = Field(default=[], description="One for each key that is not valid.")


class Refusal(Exception):
    """Ends a call with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__("refused")
        self.response = response


def problem(status: int, detail: str, code: str = "", problems: list[Report] | None = None) -> Response:
    title = TITLES.get(status, "Refused")
    found = Problem(type="about:blank", title=title, status=status, detail=detail, code=code, problems=problems or [])
    return JSONResponse(found.model_dump(), status, media_type=PROBLEM)


def need(role: str, *, quiet: bool = False) -> Callable[[Request], Awaitable[Identity]]:
    """A dependency: the identity of whoever asks, or the refusal."""

    async def gate(request: Request) -> Identity:
        refusal = await check(request, role, quiet=quiet)
        if refusal is not None:
            raise Refusal(refusal)
        return identity_of(request)

    return gate


Reader = Annotated[Identity, Depends(need("report"))]
Operator = Annotated[Identity, Depends(need("operate"))]
Configurer = Annotated[Identity, Depends(need("configure"))]


def _label(text: str) -> str:
    """A slash of a label is written ``%252F``: servers and proxies take ``%2F`` apart before we see it."""
    return unquote(text) if "%2f" in text.lower() else text


_SLASH: Final = "A slash in a label is written %252F."
ServiceLabel = Annotated[str, Path(alias="service", description=f"Label of the virtual service. {_SLASH}")]
RealLabel = Annotated[str, Path(alias="real", description=f"Label of the real server. {_SLASH}")]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="ETag that the candidate must still have: nothing is done if it has another."),
]


async def ask(
    request: Request, verb: str, identity: Identity, /, *, is_matched: bool = False, timeout: float = 30.0, **args: Any
) -> Report:
    """The answer of a verb; a refusal ends the call.  ``is_matched``: a conflict is a failed If-Match."""
    for key in ("service", "real"):
        if isinstance(args.get(key), str):
            args[key] = _label(args[key])
    try:
        answer: Report = await state_of(request).client.call(verb, identity.by, timeout, **args)
    except ControlUnavailable as error:
        raise Refusal(problem(503, str(error), "unavailable")) from None
    except ControlError as error:
        status = 412 if is_matched and error.code == "conflict" else STATUS.get(error.code, 409)
        raise Refusal(problem(status, error.message, error.code)) from None
    return answer


def tag_of(if_match: str | None) -> str | None:
    """The candidate's tag in an If-Match header; ``*`` matches anything."""
    if if_match is None or if_match.strip() == "*":
        return None
    return if_match.strip().removeprefix("W/").strip('"')


def etag(response: Response, tag: str) -> None:
    response.headers["etag"] = f'"{tag}"'
