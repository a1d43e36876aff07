"""Every string of the templates is in the catalogue, which can be read back; and a bad translation breaks no page."""

from __future__ import annotations

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import lbfast.web
from lbfast.web.certificate_notes import certificate_notes
from lbfast.web.collect import messages, script_texts
from lbfast.web.event_lines import event_line
from lbfast.web.languages import Catalogue, Languages, direction_of, read_languages, read_po, render_pot
from lbfast.web.passwords import why_weak
from lbfast.web.render import environment, script_words, sources
from lbfast.web.said import Said, counted, joined, said, told
from lbfast.web.static_files import read_files
from lbfast.web.users import UserFault
from lbfast.web.words import span

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
    filled = re.sub(r'(_plural "(.+)"\nmsgstr\[0\]) ""\n(.*) ""', r'\1 "\2"\n\3 "\2"', filled)
    assert len(read_po(filled)) == pot.count("msgid "), "each is good as its own translation"


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
        ("100 %", "written %%"),
        ('x"\nmsgstr', "neither"),
    ],
)
def test_a_bad_translation_is_refused_before_it_is_in_a_page(tmp_path: Path, translation: str, said: str) -> None:
    (tmp_path / "cy.po").write_text(f'msgid "gone: %(count)s"\nmsgstr "{translation}"\n')
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


POLISH = r"""
msgid ""
msgstr ""
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);\n"

msgid "%(num)s entry removed."
msgid_plural "%(num)s entries removed."
msgstr[0] "%(num)s wpis usunięty."
msgstr[1] "%(num)s wpisy usunięte."
msgstr[2] "%(num)s wpisów usunięto."

msgid "%(name)s is removed."
msgstr "Usunięto: %(name)s."

msgid "%(num)s min"
msgstr "%(num)s min."
"""


def test_a_sentence_of_the_code_is_english_and_can_be_said_in_another_language() -> None:
    polish = Catalogue(read_po(POLISH))
    text = said("%(name)s is removed.", name="bob")
    assert (text, json.dumps(text)) == ("bob is removed.", '"bob is removed."')
    assert told(text, polish) == "Usunięto: bob."
    assert told(str(UserFault(text)), polish) == "Usunięto: bob.", "also as the text of an exception"
    assert told(joined(text, "As it is."), polish) == "Usunięto: bob. As it is."
    assert told(text, None) == told("bob is removed.", polish) == "bob is removed.", (
        "plain text is nobody's to translate"
    )
    assert told(said("100 % of it"), polish) == "100 % of it"
    assert (span(125), told(span(125), polish), told(span(120), polish)) == ("2 min 5 s", "2 min. 5 s", "2 min.")
    assert [span(it) for it in (0.4, 5.5, 60, 3_700, 90_000, 86_400)] == [
        *("400 ms", "5.5 s", "1 min", "1 h 1 min", "1 d 1 h", "1 d")
    ]


@pytest.mark.parametrize(
    ("number", "polish"), [(1, "wpis "), (3, "wpisy"), (5, "wpisów"), (22, "wpisy"), (1_012, "wpisów")]
)
def test_a_plural_is_as_the_language_has_it(number: int, polish: str) -> None:
    text = counted("%(num)s entry removed.", "%(num)s entries removed.", number)
    assert text == f"{number:,} {'entry' if number == 1 else 'entries'} removed."
    assert told(text, Catalogue(read_po(POLISH))).startswith(f"{number:,} {polish}")


@pytest.mark.parametrize(
    ("po", "said_of_it"),
    [
        (POLISH.replace("nplurals=3", "nplurals=2"), "has 3 plural forms, Plural-Forms in the head says 2"),
        (POLISH.replace("(n==1", "(__import__('os')"), "plural form"),
        (POLISH.replace("%(num)s wpisy", "%(some)s wpisy"), "does not have"),
    ],
)
def test_bad_plurals_are_refused(po: str, said_of_it: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said_of_it) if "has" in said_of_it else said_of_it):
        read_po(po)


TELLS = {
    "back": 3,
    "error_page": 2,
    "refuse": 2,
    "UserFault": 0,
    "CertificateFault": 0,
    "ControlUnavailable": 0,
    "Note": 0,
}


def bare_texts(source: str) -> list[int]:
    """Lines where a page is given English text that no translator sees."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TELLS:
            text = node.args[TELLS[node.func.id] :][:1]
            found += [node.lineno for it in text if _is_bare(it)]
    return found


def _is_bare(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return False  # said(...), or what makes a text elsewhere
    is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and " " in str(node.value))
    return is_text or any(_is_bare(part) for part in ast.iter_child_nodes(node))


FOR_PROGRAMS = {"vendor.py"}  # answers of the vendor's API


def test_no_page_is_told_something_in_english_alone() -> None:
    assert bare_texts('back(r, p, "bad", "It is so.")\nback(r, p, "bad", f"{x}")\nback(r, p, "", said("It is."))') == [
        1,
        2,
    ]
    files = (it for it in Path(lbfast.web.__file__).parent.glob("*.py") if it.name not in FOR_PROGRAMS)
    found = {path.name: lines for path in files if (lines := bare_texts(path.read_text(encoding="utf-8")))}
    assert found == {}


def test_what_others_say_for_pages_can_be_translated() -> None:
    """Made far from any page: weak passwords, certificates, lines of the log."""
    known = {message[0] for message in messages()}
    event = {"event": "close", "client": "10.0.0.1", "real": "one", "ended": "close", "by": "client", "attempts": 2}
    line = event_line(event)["text"]
    assert line == "10.0.0.1 → one (0 B in, 0 B out in 0 ms, close by client)"
    for text in (why_weak("short", "bob"), line, span(5)):
        assert isinstance(text, Said)
        assert set(patterns(text)) <= known, text
    seen = [{"service": "A", "real": "one", "warnings": ["A: something"]}] * 7
    more = certificate_notes(None, seen, None)[-1].text  # type: ignore[arg-type]
    assert more == "And certificates of 2 more real servers."
    assert (
        "And the certificate of %(num)s more real server.",
        "And certificates of %(num)s more real servers.",
    ) in messages()


def patterns(text: str) -> list[str]:
    """Of a text and of the texts in it; those that only join are none."""
    if not isinstance(text, Said):
        return []
    own = [] if re.fullmatch(r"[(), ]*(%\(part\d\)s[(), ]*)+", text.forms[0]) else [text.forms[0]]
    return own + [it for value in text.values.values() for it in patterns(value)]


def test_the_script_has_no_words_of_its_own() -> None:
    script = re.sub(r"//.*", "", read_files()["lbfast.js"][0].decode())
    words = [it for it in re.findall(r'"([^"\n]*)"|`([^`]*)`', script.replace('say("', 'said["')) for it in it if it]
    sentences = [
        it for it in words if re.search(r"[A-Za-z]{2,} [a-z]{2,}|^[A-Z][a-z]+$", re.sub(r"[#.\[(][^ ]*", "", it))
    ]
    assert [it for it in sentences if it not in script_texts() and it not in SELECTORS] == []
    assert "Some down" in script_texts()
    assert any(it.startswith("Services shown: %(found)s") for it in script_texts())


def test_the_style_sheet_has_only_words_that_the_script_may_replace() -> None:
    style = read_files()["lbfast.css"][0].decode()
    said_by_style = [it for it in re.findall(r"(?<![-\w])content: ([^;]+);", style) if re.search("[A-Za-z]", it)]
    assert said_by_style, "the test itself"
    for text in said_by_style:
        found = re.fullmatch(r'(?:" " )?var\(--\w+, "(\w+)"\)(?: " ")?', text)
        assert found, text
        assert found[1] in script_texts()


SELECTORS = {
    "use strict",
    "tbody.service tr:not(.vs)",
    "dialog form[data-next]",
    "main button[formaction]",
    "<table>${await answer.text()}</table>",
}


def test_the_script_gets_its_words_with_the_page() -> None:
    catalogue = Catalogue({"Up": ('Ar <waith> "',)})
    assert script_words(None) == ""
    assert json.loads(script_words(catalogue))["Up"] == 'Ar <waith> "'
    page = environment(catalogue).from_string('<script data-words="{{ words }}">').render(words=script_words(catalogue))
    assert "<waith>" not in page
    assert page.count('"') == 2, "it is an attribute, whatever a translator wrote"
