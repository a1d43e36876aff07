"""Pages from templates: autoescaped, strict, with what every page shows around its own part."""

from __future__ import annotations

import json
from functools import lru_cache
from gettext import NullTranslations
from pathlib import Path
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lbfast import __version__
from lbfast.model.visible import clean, size
from lbfast.web import words
from lbfast.web.auth import Identity, identity_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.collect import script_texts
from lbfast.web.icons import icon
from lbfast.web.languages import Catalogue, direction_of, shipped
from lbfast.web.menu import menu_for
from lbfast.web.pending import pending_of
from lbfast.web.roles import may
from lbfast.web.said import told
from lbfast.web.sparkline import spark_path

HERE: Final = Path(__file__).parent
LANGUAGE_COOKIE: Final = "lbfast-language"
THEMES: Final = ("light", "dark")
_FILTERS: Final = {
    "bytes": size,
    "rate": words.rate,
    "count": words.count,
    "moment": words.moment,
    "clock": words.clock,
    "quoted": words.quoted,
    "spark": spark_path,
    "slug": words.slug,
    "state": words.service_state,
    "taken": words.taken,
    "findable": words.findable,
}


@lru_cache(maxsize=1)
def sources() -> dict[str, str]:
    """The templates, each read once: the process may not be able to read its own files later."""
    return {path.name: path.read_text(encoding="utf-8") for path in (HERE / "templates").glob("*.html")}


@lru_cache(maxsize=8)
def environment(catalogue: Catalogue | None = None) -> Environment:
    """The templates in one language; None is English."""
    made = Environment(
        loader=DictLoader(sources()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
        extensions=["jinja2.ext.i18n"],
    )
    made.filters.update(_FILTERS)
    made.filters["shown"] = lambda text: clean(told(text, catalogue))
    made.filters["span"] = lambda seconds: told(words.span(seconds), catalogue)
    made.globals.update(icon=lambda name: Markup(icon(name)), state_word=words.state_word, version=__version__)  # noqa: S704
    # `_` fills values in, so a % must be none of its own; `tr` is for texts that stand in the code.
    made.globals["tr"] = (catalogue or NullTranslations()).gettext
    made.install_gettext_translations(catalogue or NullTranslations(), newstyle=True)  # type: ignore[attr-defined]
    return made


@lru_cache(maxsize=8)
def script_words(catalogue: Catalogue | None) -> str:
    """What the script says, in one language, as JSON for an attribute: the page's policy allows no code in it."""
    if catalogue is None:
        return ""
    return json.dumps({text: catalogue.gettext(text) for text in script_texts()}, ensure_ascii=False)


def read_templates() -> None:
    """All of them, while they can be read."""
    shipped()
    script_texts()
    for name in environment().list_templates():
        environment().get_template(name)


def fragment(request: Request, template: str, **values: Any) -> str:
    """A part of a page, without what is around it."""
    identity: Identity | None = getattr(request.state, "identity", None)
    role = identity.role if identity else ""
    values.setdefault("may_operate", may(role, "operate"))
    values.setdefault("may_configure", may(role, "configure"))
    values.setdefault("csrf", identity.csrf if identity else "")
    languages, language = state_of(request).languages, language_of(request)
    values |= {"language": language, "languages": languages.choices, "direction": direction_of(language)}
    catalogue = languages.catalogues.get(language)
    values["script_words"] = script_words(catalogue)
    made = environment(catalogue)
    return made.get_template(template).render(identity=identity, **values)


async def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A whole page for somebody who is logged in."""
    identity, state = identity_of(request), state_of(request)
    around = {
        "menu": menu_for(identity.role, request.url.path),
        "notes": state.take_notes(identity.digest),
        "pending": await pending_of(request),
        "theme": theme_of(request),
        "host": state.host,
        "path": request.url.path,
    }
    return HTMLResponse(fragment(request, template, **around, **values), status)


def bare_page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page for somebody who is not: login, setup, errors."""
    around = {"theme": theme_of(request), "host": state_of(request).host}
    return HTMLResponse(fragment(request, template, **around, **values), status)


def error_page(request: Request, status: int, message: str) -> Response:
    return bare_page(request, "error.html", status, message=message, code=status)


def language_of(request: Request) -> str:
    """What the user has chosen, else what the browser asks for, as far as there is a catalogue."""
    cookie, accepted = request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
    return state_of(request).languages.pick(cookie, accepted)


def in_language(request: Request, text: str) -> str:
    """A sentence for somebody who is shown it otherwise than by a template."""
    return told(text, state_of(request).languages.catalogues.get(language_of(request)))


def theme_of(request: Request) -> str:
    """What the user has chosen; empty: as the system is."""
    theme = request.cookies.get("lbfast-theme", "")
    return theme if theme in THEMES else ""


def back(request: Request, place: str, kind: str = "", text: str = "") -> Response:
    """After something was done: to a page, which says how it went."""
    if text:
        state_of(request).note(identity_of(request).digest, kind, text)
    return RedirectResponse(place, 303)


def why(error: Exception) -> str:
    """What lbfast said, for a page."""
    if isinstance(error, ControlError):
        return error.message
    if isinstance(error, ControlUnavailable):
        return str(error)
    return str(error)
