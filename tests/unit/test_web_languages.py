"""Every string of the templates is in the catalogue, which can be read back; and a bad translation breaks no page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lbfast.web.languages import Catalogue, Languages, direction_of, read_languages, read_po, render_pot
from lbfast.web.render import environment, sources

SPOKEN = ("title", "aria-label", "placeholder", "alt", "data-ask", "data-ask-again")
# What is the same in every language: names, and examples of what is typed.
SAME = {"lbfast", "LBFAST", "English", "HTTPS", "SHA-256", "ms", "redispatch, reset", "xxxxx-xxxxx-xxxxx-xxxxx"}
SAME |= {"api/v1/openapi.json"}
VOID = {"input", "img", "br", "meta", "link", "hr", "path"}


class Literals(HTMLParser):
    """Words that stand in a template as they are.  An expression is a private-use character by then."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name in SPOKEN:
                self._note(value or "")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("code", "kbd"):
            self._note(data)

    def _note(self, text: str) -> None:
        words = re.sub(r"[^\w,/. -]+", " ", re.sub(r"[\ue000·]", " ", text)).strip(" ./")
        if re.search("[A-Za-z]{2}", words) and words not in SAME:
            self.found.append(words)


def literals(source: str) -> list[str]:
    """Statements leave nothing, expressions something that is no word."""
    parts, is_tag = [], ""
    for _, kind, value in environment().lex(source):
        if kind == "data":
            parts.append(value)
        elif kind == "variable_end":
            parts.append("\ue000")
        is_tag = kind
    assert is_tag
    parser = Literals()
    parser.feed("".join(parts))
    parser.close()
    return parser.found


def test_no_template_has_a_word_that_cannot_be_translated() -> None:
    assert literals('<p title="Here">{{ x }} There</p>') == ["Here", "There"], "the test itself"
    assert {name: found for name, source in sources().items() if (found := literals(source))} == {}


def test_the_catalogue_has_every_kind_of_string_and_can_be_read_back() -> None:
    pot = render_pot()
    for text in ("Commit changes", "Virtual Services", "Some down", "Help on %(title)s", "Replication lag", "1 hour"):
        assert text in pot, text
    filled = re.sub(r'msgid "(.+)"\nmsgstr ""', r'msgid "\1"\nmsgstr "\1"', pot)
    assert len(read_po(filled)) == pot.count("msgid"), "each is good as its own translation"


def test_a_catalogue_is_read_as_gettext_writes_it() -> None:
    text = """
msgid ""
msgstr ""
"X-Language-Name: Cymraeg\\n"

#: somewhere
msgid "Commit"
msgstr "Ymrwymo"
msgid "Long "
"one"
msgstr "Un "
"hir \\"iawn\\""

#, fuzzy
msgid "Drain"
msgstr "not sure"

msgid "Halt"
msgstr ""
"""
    catalogue = Catalogue(read_po(text))
    assert catalogue.name == "Cymraeg"
    assert [catalogue.gettext(it) for it in ("Commit", "Long one", "Drain", "Halt", "")] == [
        *("Ymrwymo", 'Un hir "iawn"', "Drain", "Halt", "")
    ]


@pytest.mark.parametrize(
    ("translation", "said"),
    [
        ("<b>%(count)s</b>", "no markup"),
        ("%(number)s", "does not have"),
        ("100 % of %(count)s", "written %%"),
        ('x"\nmsgstr', "neither"),
    ],
)
def test_a_bad_translation_is_refused_before_it_is_in_a_page(tmp_path: Path, translation: str, said: str) -> None:
    (tmp_path / "cy.po").write_text(f'msgid "and %(count)s more"\nmsgstr "{translation}"\n')
    (tmp_path / "English.po").write_text("")
    found = read_languages(tmp_path)
    assert not found.catalogues
    assert said in found.problems[1]
    assert "named after a language" in found.problems[0]


def test_who_gets_which_language() -> None:
    languages = Languages({"cy": Catalogue({}), "ar": Catalogue({})})
    assert languages.pick("", "") == "en"
    assert languages.pick("", "fr-FR, cy-GB;q=0.9, en;q=0.8") == "cy"
    assert languages.pick("en", "cy") == "en"
    assert languages.pick("xx", "") == "en"
    assert languages.pick("", "x" * 100_000) == "en"
    assert (direction_of("ar"), direction_of("cy")) == ("rtl", "ltr")
    assert languages.choices[0] == ("en", "English")
