"""Every string of the web interface that a translator can translate: from templates, code and script."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

Message = tuple[str, ...]  # or singular and plural

HERE: Final = Path(__file__).parent
MAKERS: Final = {"said": 1, "counted": 2}  # of said.py, and how many texts each takes
_IN_SCRIPT: Final = re.compile(r'\bsay\(("(?:[^"\\]|\\.)*")')
_CHARTS: Final = (
    *(
        "Connections",
        "New connections",
        "Traffic",
        "Processor",
        "Memory",
        "Time to connect",
        "Failed connects",
        "Health",
    ),
    *("open", "new", "from clients", "to clients", "CPU", "in use", "mean", "failed"),
)
_CERTIFICATE: Final = ("Subject", "Issuer", "Names", "Not before", "Not after", "Fingerprint", "Problem")
_PHASES: Final = ("connect", "tls", "request", "status", "body", "script")  # of a probe
_EVENTS: Final = ("open", "close", "refuse", "failed", "health", "admin", "process", "connections", "audit", "system")


def messages() -> list[Message]:
    """Sorted, each once."""
    found: dict[str, Message] = {}
    for message in (*_in_templates(), *_in_python(), *((text,) for text in (*script_texts(), *_in_tables()))):
        if len(message) > len(found.get(message[0], ())):
            found[message[0]] = message
    return [found[key] for key in sorted(found)]


@lru_cache(maxsize=1)
def script_texts() -> tuple[str, ...]:
    """What the pages' script says; it gets them with the page."""
    from lbfast.web.static_files import read_files
    from lbfast.web.words import state_words

    script = read_files()["lbfast.js"][0].decode()
    return tuple(sorted({*(ast.literal_eval(text) for text in _IN_SCRIPT.findall(script)), *state_words()}))


def _in_templates() -> Iterator[Message]:
    from lbfast.web.render import environment, sources

    for source in sources().values():
        for _, _, message in environment().extract_translations(source):  # type: ignore[attr-defined]
            texts = message if isinstance(message, tuple) else (message,)  # with its values beside it
            if kept := tuple(text for text in texts if isinstance(text, str)):
                yield kept


def _in_python() -> Iterator[Message]:
    for path in sorted(HERE.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in MAKERS:
                texts = [it.value for it in call.args[: MAKERS[call.func.id]] if isinstance(it, ast.Constant)]
                if len(texts) != MAKERS[call.func.id]:
                    raise ValueError(
                        f"{path.name}:{call.lineno}: {call.func.id} takes literal texts, or nobody finds them"
                    )
                yield tuple(str(text) for text in texts)


def _in_tables() -> Iterator[str]:
    """What templates translate, but does not stand in them."""
    from lbfast.web.fields import TABLES, form_of, table_form
    from lbfast.web.menu import MENU
    from lbfast.web.pages_graphs import RANGES
    from lbfast.web.pages_search import SPANS
    from lbfast.web.pages_view import VIEWS
    from lbfast.web.roles import MEANING
    from lbfast.web.words import state_words

    for entry in MENU:
        yield from (entry.title, *(part.title for part in entry.parts))
    yield from (title for _, title in VIEWS)
    yield from (title for _, title, _ in (*RANGES, *SPANS))
    yield from (*_CHARTS, *_CERTIFICATE, *_PHASES, *_EVENTS, *MEANING.values())
    yield from ("Version", "Pid", "Started", "Config", "Workers")  # of the support page
    yield from state_words()
    yield from ("Virtual Service", "Real Server", "primary", "secondary", "Primary", "Secondary")
    yield from ("Active", "Passive", "Alone", "Claiming", "Leaving", "Unknown", "up", "down", "unknown")
    for form in (form_of("service"), form_of("real"), *map(table_form, TABLES)):
        yield from (group for group, _ in form.groups)
        for it in form.all:
            yield from (it.title, *(title for _, title in it.choices), *([it.help] if it.help else []))
