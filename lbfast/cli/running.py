"""The verbs around a running lbfast: run, check, demo, schema."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lbfast.cli import out
from lbfast.cli.clean import clean, encodable, plural
from lbfast.cli.errors import OK, USAGE, BadConfig, BadUsage
from lbfast.cli.options import Json

if TYPE_CHECKING:
    from lbfast.config.errors import Problem


def run(
    *, config: Annotated[Path, Parameter(name="--config", alias="-c", help="The configuration, a TOML file.")]
) -> int:
    """Run the load balancer in the foreground; prints a line that begins with READY; SIGTERM stops it."""
    from lbfast.supervisor.supervisor import run as supervise

    return supervise(config)


def check(
    file: Annotated[Path, Parameter(name="FILE", help="The configuration, a TOML file.")], /, *, json: Json = False
) -> int:
    """Check a configuration file and report every problem; nothing is started or changed."""
    from lbfast.config import store
    from lbfast.config.errors import ConfigError

    try:
        loaded = store.load(file)
    except ConfigError as error:
        if json:
            out.print_json({"file": str(file), "ok": False, "problems": _told(error.problems), "warnings": []})
            return USAGE
        raise BadConfig(str(error)) from None
    services = loaded.config.virtual_services
    reals = sum(len(service.real_servers) for service in services)
    if json:
        counts = {"virtual_services": len(services), "real_servers": reals}
        told = {"problems": [], "warnings": _told(loaded.warnings)}
        out.print_json({"file": str(file), "ok": True} | counts | told)
        return OK
    for doubt in loaded.warnings:
        print(encodable(f"warning: {doubt}", sys.stderr.encoding), file=sys.stderr)
    out.line(f"{clean(file)}: ok: {plural(len(services), 'virtual service')}, {plural(reals, 'real server')}")
    return OK


def _told(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [{"line": it.line, "key": it.key, "found": it.found, "expected": it.expected} for it in problems]


def demo(
    *,
    port: Annotated[int, Parameter(name="--port", help="Port of the demo's virtual service; 0 = any.")] = 8443,
    web_port: Annotated[
        int, Parameter(name="--web-port", help="Port of its web interface; another one if it is taken.")
    ] = 9443,
) -> int:
    """Start three HTTPS servers behind lbfast, say what to try, and show live events until Ctrl-C."""
    for each in (port, web_port):
        if not 0 <= each <= 65535:
            raise BadUsage(f"a port is 1 to 65535 (0 = any free one), got {each}")
    from lbfast.cli.demo import run_demo

    return run_demo(port, web_port)


def schema() -> int:
    """The JSON schema of the configuration, for editors and checkers."""
    from lbfast.config.schema import json_schema

    out.print_json(json_schema())
    sys.stdout.flush()
    return OK
