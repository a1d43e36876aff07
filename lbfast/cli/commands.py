"""Builds the cyclopts application from the table of verbs, importing a verb's module only when it is called."""

from __future__ import annotations

from typing import Any

from cyclopts import App, CycloptsError, UnusedCliTokensError

from lbfast import __version__
from lbfast.cli.clean import clean, quote
from lbfast.cli.verbs import GROUPS, VERBS


def make_app(epilogue: str) -> App:
    """The whole command tree; no verb's module is imported yet."""
    app = App(
        name="lbfast",
        help="A load balancer for heavy TCP traffic that keeps every client on its server.",
        help_epilogue=epilogue,
        help_format="plaintext",
        version=f"lbfast {__version__}",
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for verb in VERBS:
        parent = groups[verb.path[0]] if len(verb.path) > 1 else app
        parent.command(verb.target, name=verb.path[-1], help=verb.help)
    return app


def explain_usage(error: CycloptsError) -> str:
    """What was wrong with the words, in one line, and where help is."""
    chain: Any = error.command_chain or ()
    command = " ".join(["lbfast", *chain])
    message = clean(" ".join(str(error).split()))
    message = message.partition(" Available commands: ")[0]  # some of them, in no useful order; --help has all
    if isinstance(error, UnusedCliTokensError):
        message = (
            f"too many words: {' '.join(map(quote, error.unused_tokens or ()))} (a label with spaces needs quotes)"
        )
    end = "" if message.endswith("?") else "."
    return f"{message.rstrip('.')}{end} See `{command} --help`."
