"""Files that control keeps, fetched and put in pieces: backups and support archives."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import StreamingResponse

from lbfast.web.client import AsyncClient

PIECE: Final = 256 * 1024


async def fetch(client: AsyncClient, by: str, kind: str, name: str) -> StreamingResponse:
    """A download; ControlError when there is no such file."""
    first = await client.call("file_get", by=by, kind=kind, name=name)
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(first["size"])}
    return StreamingResponse(
        _pieces(client, by, kind, name, first), media_type="application/octet-stream", headers=headers
    )


async def _pieces(client: AsyncClient, by: str, kind: str, name: str, piece: dict[str, Any]) -> AsyncIterator[bytes]:
    while True:
        yield base64.b64decode(piece["data"])
        if piece["next"] is None:
            return
        piece = await client.call("file_get", by=by, kind=kind, name=name, offset=piece["next"])


async def put(client: AsyncClient, by: str, kind: str, name: str, content: bytes) -> None:
    """An upload, whole or not at all."""
    offset = 0
    while True:
        part = content[offset : offset + PIECE]
        is_last = offset + len(part) >= len(content)
        data = base64.b64encode(part).decode()
        await client.call("file_put", by=by, kind=kind, name=name, offset=offset, data=data, last=is_last)
        if is_last:
            return
        offset += len(part)
