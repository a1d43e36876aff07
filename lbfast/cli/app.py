"""The command line: the table of verbs as a cyclopts application, and every failure as one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lbfast.cli.errors import FAILED, OK, USAGE, BadConfig, CommandError

_EPILOGUE = (
    "Exit codes: 0 done, 1 refused or failed, 2 wrong command line or configuration.\n\n"
    "LBFAST_RUNTIME_DIR (/run/lbfast) and LBFAST_STATE_DIR (/var/lib/lbfast) name the places of the lbfast to talk to."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.  Nothing but a bug ends in a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:
        return _guarded(words)  # the supervisor tells the OSErrors it expects itself; the rest are bugs for its log
    try:
        return _guarded(words)
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


def _guarded(words: list[str]) -> int:
    try:
        if words[:1] == ["__complete"]:
            from lbfast.cli.completion import answer

            return answer(words[1:])
        code = _run(words)
        sys.stdout.flush()
        return code
    except BadConfig as error:
        return _say(str(error), error.code)
    except CommandError as error:
        return _fail(str(error), error.code)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell tells it


def _run(words: list[str]) -> int:
    from cyclopts import CycloptsError

    from lbfast.cli.commands import make_app

    app = make_app(_EPILOGUE)
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        from lbfast.cli.commands import explain_usage

        return _fail(explain_usage(error), USAGE)
    return result if isinstance(result, int) else OK


def _fail(message: str, code: int) -> int:
    return _say(f"lbfast: {message}", code)


def _say(text: str, code: int) -> int:
    from lbfast.cli.clean import encodable

    print(encodable(text, sys.stderr.encoding), file=sys.stderr)
    return code
