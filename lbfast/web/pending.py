"""What waits to be committed or confirmed: the box on every page."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from lbfast.web.auth import state_of
from lbfast.web.client import ControlError, ControlUnavailable


async def pending_of(request: Request) -> dict[str, Any]:
    """``changes``: edits of the candidate; ``unconfirmed``: a commit that reverts by itself.

    ``edited_on``: the box where the configuration is edited, when it is not this one.
    """
    found: dict[str, Any] = {"changes": [], "unconfirmed": None, "version": None, "edited_on": None}
    client = state_of(request).client
    try:
        history = await client.call("history")
        candidate = await client.call("candidate")
    except (ControlError, ControlUnavailable):
        return found
    changes = [f"{it['text']} ({it['by']})" for it in candidate["changes"]]
    return found | {
        "changes": changes,
        "unconfirmed": history["unconfirmed"],
        "version": history["version"],
        "edited_on": candidate["edited_on"],
    }
