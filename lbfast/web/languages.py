"""Languages of the pages: English is in the templates, any other is a gettext catalogue beside them.

``python -m lbfast.web.languages > cy.po`` collects every string.  A translation is that file with its ``msgstr``
filled, named after its language: in ``locale`` beside this module, or in ``web/languages`` of the state directory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from gettext import NullTranslations
from pathlib import Path
from typing import Final

ENGLISH: Final = "en"
FOLDER: Final = "languages"
MOST_BYTES: Final = 2 << 20
_CODE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
_NAMED: Final = re.compile(r"%\((\w+)\)[sd]")
_LINE: Final = re.compile(r'(msgid|msgstr)?\s*("(?:[^"\\]|\\.)*")\s*')
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
_RIGHT_TO_LEFT: Final = frozenset({"ar", "fa", "he", "ur", "yi"})


class Catalogue(NullTranslations):
    """What a message is called in one language; what is not translated stays English."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__()
        self._texts = texts

    @property
    def name(self) -> str:
        """Of the language, in itself."""
        found = re.search(r"^X-Language-Name: *(.+)$", self._texts.get("", ""), re.MULTILINE)
        return found[1].strip() if found else ""

    def gettext(self, message: str) -> str:
        return self._texts.get(message, message) if message else message

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


@dataclass(frozen=True)
class Languages:
    """Those that there are, by code; ``problems`` are files that could not be used, for people."""

    catalogues: Mapping[str, Catalogue] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """Codes and names, English first."""
        others = sorted((code, catalogue.name or code) for code, catalogue in self.catalogues.items())
        return ((ENGLISH, "English"), *others)

    def pick(self, chosen: str, accepted: str) -> str:
        """What the user has chosen, else the first of what the browser would take."""
        if chosen == ENGLISH or chosen in self.catalogues:
            return chosen
        for wish in re.findall(r"[A-Za-z-]+", re.sub(r";[^,]*", "", accepted[:500])):
            for code in (wish, wish.partition("-")[0]):
                if code == ENGLISH or code in self.catalogues:
                    return str(code)
        return ENGLISH

    def joined(self, others: Languages) -> Languages:
        """With those of another place, which go before ours."""
        return Languages({**self.catalogues, **others.catalogues}, (*self.problems, *others.problems))


@lru_cache(maxsize=1)
def shipped() -> Languages:
    """Those of the package, read once: the process may not be able to read its own files later."""
    return read_languages(Path(__file__).parent / "locale")


def direction_of(code: str) -> str:
    return "rtl" if code.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"


def read_languages(*folders: Path) -> Languages:
    """All catalogues in the folders; a file that is not good is left out and told."""
    found: dict[str, Catalogue] = {}
    problems: list[str] = []
    for path in sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.po")):
        try:
            if not _CODE.fullmatch(path.stem) or path.stem == ENGLISH:
                raise ValueError("the file is not named after a language, such as cy.po")
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
            found[path.stem] = Catalogue(read_po(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            problems.append(f"{path.name}: {error}")
    return Languages(found, tuple(problems))


def read_po(text: str) -> dict[str, str]:
    """The translated messages; ValueError names the line that is not gettext's, or would break a page."""
    texts: dict[str, str] = {}
    parts: dict[str, str] = {}
    key, is_fuzzy = "", False

    def keep() -> None:
        msgid, msgstr = parts.get("msgid", ""), parts.get("msgstr", "")
        if fault := _fault(msgid, msgstr):
            raise ValueError(f"{msgid[:60]!r}: {fault}")
        if msgstr and not is_fuzzy:
            texts[msgid] = msgstr

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            if "msgstr" in parts:
                keep()
                parts, is_fuzzy = {}, False
            is_fuzzy = is_fuzzy or line.startswith("#, fuzzy")
            continue
        found = _LINE.fullmatch(line)
        if found is None or not (found[1] or key):
            raise ValueError(f"line {number} is neither msgid, msgstr nor a text in quotes")
        if found[1] == "msgid" and "msgstr" in parts:
            keep()
            parts, is_fuzzy = {}, False
        key = found[1] or key
        parts[key] = parts.get(key, "") + ast.literal_eval(found[2])
    keep()
    return texts


def _fault(msgid: str, msgstr: str) -> str:
    """A translation is put into pages as it is: no markup of its own, and the values of the English text."""
    if not msgid:
        return ""
    if set("<>") & (set(msgstr) - set(msgid)):
        return "a translation has no markup"
    if not set(_NAMED.findall(msgstr)) <= set(_NAMED.findall(msgid)):
        return "it names a value that the English text does not have"
    if _NAMED.search(msgid) and "%" in _NAMED.sub("", msgstr).replace("%%", ""):
        return "a % that is none of a value is written %%"
    return ""


def render_pot() -> str:
    """Every string of the pages."""
    lines = ["# Strings of lbfast's web interface. Made by: python -m lbfast.web.languages", 'msgid ""', 'msgstr ""']
    lines += ['"Content-Type: text/plain; charset=UTF-8\\n"', '"X-Language-Name: the name of the language, in it\\n"']
    for message in sorted(set(_in_templates()) | set(_in_code())):
        lines += ["", f"msgid {_quoted(message)}", 'msgstr ""']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _in_templates() -> Iterator[str]:
    from lbfast.web.render import environment, sources

    for source in sources().values():
        for _, _, message in environment().extract_translations(source):  # type: ignore[attr-defined]
            text = message[0] if isinstance(message, tuple) else message  # with its values beside it
            if isinstance(text, str):
                yield text


def _in_code() -> Iterator[str]:
    """What templates translate, but does not stand in them."""
    from lbfast.web.fields import TABLES, form_of, table_form
    from lbfast.web.menu import MENU
    from lbfast.web.pages_graphs import RANGES
    from lbfast.web.pages_search import SPANS
    from lbfast.web.pages_view import VIEWS
    from lbfast.web.words import state_words

    for entry in MENU:
        yield from (entry.title, *(part.title for part in entry.parts))
    yield from (title for _, title in VIEWS)
    yield from (title for _, title, _ in (*RANGES, *SPANS))
    yield from _CHARTS
    yield from ("Version", "Pid", "Started", "Config", "Workers")  # of the support page
    yield from state_words()
    yield from ("Virtual Service", "Real Server", "primary", "secondary", "Primary", "Secondary")
    yield from ("Active", "Passive", "Alone", "Claiming", "Leaving", "Unknown", "up", "down", "unknown")
    for form in (form_of("service"), form_of("real"), *map(table_form, TABLES)):
        yield from (group for group, _ in form.groups)
        for it in form.all:
            yield from (it.title, *(title for _, title in it.choices), *([it.help] if it.help else []))


if __name__ == "__main__":
    print(render_pot(), end="")
