"""Languages of the pages: English is in templates, code and script, any other is a gettext catalogue beside them.

``python -m lbfast.web.languages > cy.po`` collects every string (``collect.py``).  A translation is that file with its
``msgstr`` filled, named after its language: in ``locale`` beside this module, or in ``web/languages`` of the state
directory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from gettext import NullTranslations, c2py
from pathlib import Path
from typing import Final

ENGLISH: Final = "en"
FOLDER: Final = "languages"
MOST_BYTES: Final = 2 << 20
_CODE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
_NAMED: Final = re.compile(r"%\((\w+)\)[sd]")
_LINE: Final = re.compile(r'(msgid|msgid_plural|msgstr|msgstr\[\d\])?\s*("(?:[^"\\]|\\.)*")\s*')
_PLURALS: Final = re.compile(r"^Plural-Forms: *nplurals *= *(\d) *; *plural *= *([^;]+);?", re.MULTILINE)
_RIGHT_TO_LEFT: Final = frozenset({"ar", "fa", "he", "ur", "yi"})


Texts = dict[str, tuple[str, ...]]


class Catalogue(NullTranslations):
    """What a message is called in one language; what is not translated stays English.

    ``texts``: the translation of each message, or one for each of the language's plural forms.
    """

    def __init__(self, texts: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self._texts = texts
        _, self._form_of = plural_forms(texts.get("", ("",))[0])

    @property
    def name(self) -> str:
        """Of the language, in itself."""
        found = re.search(r"^X-Language-Name: *(.+)$", self._texts.get("", ("",))[0], re.MULTILINE)
        return found[1].strip() if found else ""

    def gettext(self, message: str) -> str:
        return self._texts.get(message, (message,))[0] if message else message

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        forms = self._texts.get(msgid1)
        if forms is None:
            return msgid1 if n == 1 else msgid2
        return forms[min(self._form_of(n), len(forms) - 1)]


def plural_forms(head: str) -> tuple[int, Callable[[int], int]]:
    """How many forms a language has and which one a number takes, of a catalogue's head; as English if it is silent."""
    found = _PLURALS.search(head)
    if found is None:
        return 2, lambda number: int(number != 1)
    return int(found[1]), c2py(found[2])


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


def read_po(text: str) -> Texts:
    """The translated messages; ValueError names the line that is not gettext's, or would break a page."""
    texts: Texts = {}
    parts: dict[str, str] = {}
    key, is_fuzzy = "", False

    def keep() -> None:
        msgid, forms = parts.get("msgid", ""), tuple(parts[it] for it in sorted(parts) if it.startswith("msgstr"))
        if fault := _fault(msgid, parts.get("msgid_plural", ""), forms, texts.get("", ("",))[0]):
            raise ValueError(f"{msgid[:60]!r}: {fault}")
        if forms and all(forms) and not is_fuzzy:
            texts[msgid] = forms

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            if any(it.startswith("msgstr") for it in parts):
                keep()
                parts, is_fuzzy = {}, False
            is_fuzzy = is_fuzzy or line.startswith("#, fuzzy")
            continue
        found = _LINE.fullmatch(line)
        if found is None or not (found[1] or key):
            raise ValueError(f"line {number} is neither msgid, msgstr nor a text in quotes")
        if found[1] == "msgid" and any(it.startswith("msgstr") for it in parts):
            keep()
            parts, is_fuzzy = {}, False
        key = found[1] or key
        parts[key] = parts.get(key, "") + ast.literal_eval(found[2])
    keep()
    return texts


def _fault(msgid: str, plural: str, forms: tuple[str, ...], head: str) -> str:
    """A translation is put into pages as it is: no markup of its own, and the values of the English text."""
    if not msgid:
        plural_forms("".join(forms))  # ValueError when it is no expression
        return ""
    if plural and any(forms) and len(forms) != plural_forms(head)[0]:
        return f"it has {len(forms)} plural forms, Plural-Forms in the head says {plural_forms(head)[0]}"
    return next(filter(None, (_fault_of(msgid + plural, form) for form in forms)), "")


def _fault_of(english: str, form: str) -> str:
    if set("<>") & (set(form) - set(english)):
        return "a translation has no markup"
    if not set(_NAMED.findall(form)) <= set(_NAMED.findall(english)):
        return "it names a value that the English text does not have"
    if not _has_bare_percent(english) and _has_bare_percent(form):
        return "a % that is none of a value is written %%"
    return ""


def _has_bare_percent(text: str) -> bool:
    return "%" in _NAMED.sub("", text).replace("%%", "")


def render_pot() -> str:
    """Every string of the pages."""
    from lbfast.web.collect import messages

    lines = ["# Strings of lbfast's web interface. Made by: python -m lbfast.web.languages", 'msgid ""', 'msgstr ""']
    lines += ['"Content-Type: text/plain; charset=UTF-8\\n"', '"X-Language-Name: the name of the language, in it\\n"']
    lines += ['"Plural-Forms: nplurals=2; plural=(n != 1);\\n"']
    for one, *many in messages():
        lines += ["", f"msgid {_quoted(one)}"]
        lines += [f"msgid_plural {_quoted(many[0])}", 'msgstr[0] ""', 'msgstr[1] ""'] if many else ['msgstr ""']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


if __name__ == "__main__":
    print(render_pot(), end="")
