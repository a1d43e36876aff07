"""Tables of the configuration that belong to no service, as a form: read from the candidate, changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from lbfast.web.auth import identity_of, source_of, state_of
from lbfast.web.candidate import Outcome, edit, read_candidate
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.fields import Form, changed_settings, posted_values, table_form, typed_values, value_at
from lbfast.web.render import why
from lbfast.web.said import said

CHANGED = said("Changed in the candidate: commit to make it run.")


@dataclass(frozen=True)
class TableForm:
    """What the template needs: the fields, what stands in them, what is wrong with them."""

    form: Form
    values: Mapping[str, str]
    outcome: Outcome


async def read_table(request: Request, table: str) -> TableForm:
    """As the candidate has it; a fault of lbfast is shown, never raised."""
    form = table_form(table)
    try:
        candidate = await read_candidate(state_of(request).client)
    except (ControlError, ControlUnavailable) as error:
        return TableForm(form, typed_values(form, {}), Outcome(False, others=(why(error),)))
    return TableForm(form, typed_values(form, candidate.data), Outcome(True))


async def save_table(request: Request, table: str, posted: Mapping[str, Any]) -> TableForm:
    """Change the candidate; what was typed comes back with the faults when it is refused."""
    form, state, identity = table_form(table), state_of(request), identity_of(request)
    values = posted_values(form, posted)
    try:
        before = (await read_candidate(state.client)).data
        settings = _without_empty(changed_settings(form, values, before), form, values, before)
        if not settings:
            return TableForm(form, values, Outcome(True))
        outcome = await edit(state.client, identity.by, [{"op": "change_global", "settings": settings}])
    except (ControlError, ControlUnavailable) as error:
        return TableForm(form, values, Outcome(False, others=(why(error),)))
    if outcome.is_accepted:
        state.audit.add(identity.by, f"modify {table}", str(settings), source_of(request))
    return TableForm(form, values, outcome)


def _without_empty(
    settings: dict[str, Any], form: Form, values: Mapping[str, str], before: Mapping[str, Any]
) -> dict[str, Any]:
    """A table inside the table, such as ``[alerts.email]``, of which every field was emptied goes as a whole.

    A choice always has a value, so it does not count.
    """
    for table in {field.path[:2] for field in form.all if len(field.path) > 2}:
        fields = [field for field in form.all if field.path[:2] == table and field.kind not in ("choice", "switch")]
        if any(values[field.name] for field in fields):
            continue
        inside = settings.get(table[0], {})
        inside.pop(table[1], None)
        if value_at(before, table) is not None:
            settings.setdefault(table[0], {})[table[1]] = None
        elif not inside:
            settings.pop(table[0], None)
    return settings
