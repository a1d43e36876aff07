"""The pages' own style, script and picture: shipped with the package, read once."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.auth import public

FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@lru_cache(maxsize=1)
def read_files() -> dict[str, tuple[bytes, str, str]]:
    """Name -> (content, type, tag).  Only what is in this list is ever served."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            found[path.name] = (content, _TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:16])
    return found


@public
async def _serve(request: Request) -> Response:
    file = read_files().get(request.path_params["name"])
    if file is None:
        return Response("There is no such file.\n", 404, media_type="text/plain")
    content, kind, tag = file
    headers = {"etag": f'"{tag}"', "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == f'"{tag}"':
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def static_routes() -> list[BaseRoute]:
    return [Route("/lbadmin/static/{name}", _serve)]
