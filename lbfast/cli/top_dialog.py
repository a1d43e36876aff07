"""The question before `top` changes a real server: what will happen, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from lbfast.cli.clean import clean

_EFFECTS = {
    "drain": "It takes no new clients; its own may return as the drain policy says.",
    "halt": "It takes nobody, and its open connections are cut at once.",
    "online": "It takes clients again as soon as it is healthy.",
}


@dataclass(frozen=True)
class Change:
    """A confirmed change."""

    verb: str
    service: str
    real: str
    reason: str | None = None


class ConfirmChange(ModalScreen[Change | None]):
    """Enter carries the change out, Escape leaves everything as it is."""

    DEFAULT_CSS = """
    ConfirmChange { align: center middle; }
    ConfirmChange Vertical {
        width: 72; max-width: 95%; height: auto; border: round $warning; padding: 0 1; background: $surface;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, change: Change, connections: int) -> None:
        super().__init__()
        self.change = change
        self.connections = connections

    def compose(self) -> ComposeResult:
        change = self.change
        question = f"{change.verb.capitalize()} {clean(change.real)} of {clean(change.service)}?"
        with Vertical():
            yield Static(Content(question), id="question")
            yield Static(Content(f"{_EFFECTS[change.verb]} Open connections now: {self.connections}."))
            yield Input(placeholder="reason (may be left empty)", id="reason")
            yield Static(Content("Enter: do it   Escape: leave it"))

    def on_mount(self) -> None:
        self.query_one("#reason", Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        change = self.change
        self.dismiss(Change(change.verb, change.service, change.real, event.value.strip() or None))

    def action_cancel(self) -> None:
        self.dismiss(None)
