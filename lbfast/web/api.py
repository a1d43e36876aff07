"""The REST API: one FastAPI application under /api/v1, its OpenAPI document, and its page of documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from lbfast import __version__
from lbfast.web import api_access, api_candidate, api_ha, api_kept, api_running, api_traffic, api_v2, metrics
from lbfast.web.api_common import PROBLEM, Problem, Refusal, problem
from lbfast.web.api_docs import api_page, operations_of
from lbfast.web.auth import require
from lbfast.web.state import WebState

PLACE: Final = "/api/v1"
_DESCRIPTION: Final = """\
Everything that the command line can do. Show an API key (`lbfast apikey create`) as `Authorization: Bearer KEY`.
Refusals are `application/problem+json`. Edits go to the candidate; a commit makes it the running configuration.
"""
_PARTS: Final = (api_traffic, api_candidate, api_running, api_kept, api_ha, api_access)


def routes(state: WebState) -> list[BaseRoute]:
    api = make_api(state)
    return [
        Route(f"{PLACE}/openapi.json", _openapi(api), methods=["GET"]),
        Route(f"{PLACE}/docs", _docs(api), methods=["GET"]),
        *api_v2.routes(state),
        *metrics.routes(state),
        Mount(PLACE, api),
    ]


def make_api(state: WebState) -> FastAPI:
    """The application; its documentation pages are our own, because FastAPI's load scripts from outside."""
    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for code in (400, 401, 403, 404, 409, 412, 422, 500, 503)
    }
    for entry in problems.values():
        entry["description"] = "A refusal."
    api = FastAPI(
        title="lbfast",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        responses=problems,
        redirect_slashes=False,
        servers=[{"url": PLACE}],
    )
    api.state.web = state
    for part in _PARTS:
        api.include_router(part.ROUTER)
    api.add_exception_handler(Refusal, _on_refusal)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_bug)
    return api


def document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: problem+json is the only form of a refusal, and how to show who one is."""
    made = api.openapi()
    made.setdefault("components", {}).setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
    made["security"] = [{"key": []}]
    for operation in (found for path in made["paths"].values() for found in path.values()):
        for code, answer in operation["responses"].items():
            if code.isdigit() and int(code) >= 400:
                answer.get("content", {}).pop("application/json", None)
    return made


def _openapi(api: FastAPI) -> Any:
    @require("report", quiet=True)
    async def openapi(_request: Request) -> Response:
        return JSONResponse(document(api))

    return openapi


def _docs(api: FastAPI) -> Any:
    @require("report")
    async def docs(request: Request) -> Response:
        return await api_page(request, operations_of(document(api)))

    return docs


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: list[Mapping[str, Any]] = list(error.errors())
    problems = [{"field": ".".join(map(str, it["loc"][1:])), "expected": str(it["msg"])} for it in found]
    detail = "; ".join(f"{it['field'] or 'the request'}: {it['expected']}" for it in problems[:10])
    return problem(422, detail, "bad_request", problems)


async def _on_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: f"There is no such call; see {PLACE}/docs.", 405: f"This call has other methods; see {PLACE}/docs."}
    answer = problem(error.status_code, texts.get(error.status_code, str(error.detail)))
    if error.headers:
        answer.headers.update(error.headers)
    return answer


async def _on_bug(_request: Request, error: Exception) -> Response:
    return problem(500, f"This is a fault of lbfast ({type(error).__name__}); its error output has more.", "internal")
