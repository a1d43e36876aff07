"""A language in which every text is marked, so that what is not marked on a page was never translated."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from lbfast.web.languages import render_pot

CODE = "en-XA"
# Elements whose text is the program's own words; elsewhere stand the appliance's labels, addresses and figures.
OWN = {"h1", "h2", "label", "button", "legend", "summary", "caption", "dt", "th", "a", "p", "li", "option"}
DATA = {"bdi", "code", "kbd", "pre", "small", "time"}
SPOKEN = ("title", "aria-label", "placeholder", "data-ask", "data-ask-again")
VOID = {"input", "img", "br", "meta", "link", "hr", "path"}


def pseudo_po() -> str:
    """The catalogue with each message in brackets; plurals say which form they are."""
    lines: list[str] = []
    for line in render_pot().splitlines():
        found = re.fullmatch(r'msgid(_plural)? "(.+)"', line)
        if found is None:
            continue
        if found[1]:
            lines[-2:] = [
                f'msgid_plural "{found[2]}"',
                f'msgstr[0] "⟦{_singular(lines)}⟧"',
                f'msgstr[1] "⟦{found[2]}⟧"',
                "",
            ]
        else:
            lines += [line, f'msgstr "⟦{found[2]}⟧"', ""]
    return "\n".join(lines)


def _singular(lines: list[str]) -> str:
    return lines[-3][len('msgid "') : -1]


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.own: list[str] = []
        self._open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag not in VOID:
            self._open.append((tag, known.get("class") or ""))
        self.own += [known[name] or "" for name in SPOKEN if name in known]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._open or any(tag in DATA or "mono" in kind for tag, kind in self._open):
            return
        if self._open[-1][0] in OWN or self._open[-1][0] == "span":
            self.own.append(data)


def untranslated(page: str, known: re.Pattern[str]) -> set[str]:
    """The words of the program that are not marked; ``known``: those of the appliance."""
    parser = _Words()
    parser.feed(page)
    parser.close()
    found = set()
    for text in parser.own:
        rest = text
        while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", "", rest)) != rest:
            rest = shorter
        rest = known.sub("", rest)
        if re.search("[A-Za-z]{3}", rest):
            found.add(" ".join(text.split())[:90])
    return found
