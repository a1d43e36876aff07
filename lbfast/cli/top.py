"""`lbfast top`: a live screen of virtual services, real servers and events."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import DataTable, Footer, Input, RichLog, Static

from lbfast.cli import talk
from lbfast.cli.clean import clean, size
from lbfast.cli.errors import OK, Refused
from lbfast.cli.event_lines import event_line
from lbfast.cli.shapes import Shapes
from lbfast.cli.top_dialog import Change, ConfirmChange
from lbfast.cli.top_feed import Feed
from lbfast.cli.top_model import Key, Rates, Row, Totals, rates_between, rows_of, summary, totals_of
from lbfast.control.client import ControlError, ControlUnavailable

_COLUMNS = (("state", 11), ("conns", 7), ("new/s", 7), ("in/s", 8), ("out/s", 8))
_LEAST_LABEL = 16
_EVENTS_KEPT = 500
_EVENTS_FIRST = 50  # of those from before the screen


def top() -> int:
    """A live screen of services, servers and events; q quits, d drains, h halts, o puts online, / filters."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("`lbfast top` needs a terminal; `lbfast overview` and `lbfast events` work in a pipe")
    talk.ask("version")  # one clear line before the screen is taken, when nobody answers
    return TopApp().run() or OK


class TopApp(App[int]):
    """Asks for overview and statistics every second and follows the events."""

    TITLE = "lbfast top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: 1; background: $panel; text-style: bold; padding: 0 1; }
    #table { height: 1fr; }
    #note { height: 1; background: $panel; padding: 0 1; }
    #filter { display: none; height: 1; border: none; padding: 0 1; }
    #filter.open { display: block; }
    #events { height: 7; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("d", "change('drain')", "Drain"),
        Binding("h", "change('halt')", "Halt"),
        Binding("o", "change('online')", "Online"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "clear_filter", "All", show=False),
    ]

    def __init__(self, every: float = 1.0) -> None:
        super().__init__()
        self.every = every
        self.feed = Feed()
        self.shapes = Shapes(unicode=True)
        self.overview: dict[str, Any] | None = None
        self.totals: tuple[float, dict[Key, Totals]] | None = None
        self.rates: dict[Key, Rates] = {}
        self.rows: dict[str, Row] = {}
        self.wanted = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="summary")
        yield DataTable(id="table", cursor_type="row", zebra_stripes=False)
        yield Static("", id="note")
        yield Input(placeholder="filter: part of a label, or a state; Enter keeps, Escape shows all", id="filter")
        yield RichLog(id="events", max_lines=_EVENTS_KEPT, wrap=True, min_width=20)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#events", RichLog).can_focus = False
        self._make_columns()
        self.query_one("#table", DataTable).focus()
        self.run_worker(self._poll(), exclusive=False)
        self.run_worker(self._follow(), exclusive=False)

    def on_resize(self) -> None:
        self._make_columns()
        self._draw()

    def _make_columns(self) -> None:
        table = self.query_one("#table", DataTable)
        taken = sum(width for _, width in _COLUMNS) + 2 * (len(_COLUMNS) + 1)  # a blank on either side of each
        table.clear(columns=True)
        table.add_column("service / real server", width=max(_LEAST_LABEL, self.size.width - taken - 1), key="label")
        for title, width in _COLUMNS:
            table.add_column(Text(title, justify="left" if title == "state" else "right"), width=width, key=title)

    async def _poll(self) -> None:
        while True:
            await self.refresh_data()
            await asyncio.sleep(self.every)

    async def refresh_data(self) -> None:
        """Take one sample and draw it; when nobody answers, keep the last one and say so."""
        try:
            overview = await self.feed.call("overview")
            totals = (time.monotonic(), totals_of(await self.feed.call("statistics")))
        except (ControlUnavailable, ControlError) as error:
            if self.is_running:
                self.query_one("#summary", Static).update(Content.styled(f"OUT OF DATE: {clean(error)}", "bold red"))
            return
        if not self.is_running:
            return  # the screen was left meanwhile: there is nothing to draw on
        if self.totals is not None:
            self.rates = rates_between(self.totals[1], totals[1], totals[0] - self.totals[0])
        self.overview, self.totals = overview, totals
        self._draw()

    def _draw(self) -> None:
        if self.overview is None:
            return
        rows = rows_of(self.overview, self.rates, self.wanted)
        table = self.query_one("#table", DataTable)
        keys = {f"{row.key[0]}\0{row.key[1]}": row for row in rows}
        if list(keys) != [str(row.key.value) for row in table.ordered_rows]:
            self._refill(table, keys)
        else:
            for key, row in keys.items():
                for column, cell in zip(("label", *(title for title, _ in _COLUMNS)), self._cells(row), strict=True):
                    table.update_cell(key, column, cell)
        self.rows = keys
        shown = f" (filter: {clean(self.wanted)})" if self.wanted else ""
        self.query_one("#summary", Static).update(Content(summary(rows) + self._flow(rows) + shown))
        self._show_note()

    def _refill(self, table: DataTable[Any], keys: dict[str, Row]) -> None:
        """Fill anew with the cursor on the row where it was."""
        chosen = self._chosen_key()
        table.clear()
        for key, row in keys.items():
            table.add_row(*self._cells(row), key=key)
        if chosen in keys:
            table.move_cursor(row=list(keys).index(chosen))

    def _cells(self, row: Row) -> list[Text]:
        label = Text(f"  {clean(row.key[1])}") if row.is_real else Text(clean(row.key[0]), "bold")
        rates = row.rates
        figures = [str(row.connections)]
        if rates is None:
            figures += ["", "", ""]
        else:
            figures += [f"{rates.opened:.0f}", size(rates.bytes_in), size(rates.bytes_out)]
        return [label, self.shapes.text(row.state), *(Text(figure, justify="right") for figure in figures)]

    def _flow(self, rows: list[Row]) -> str:
        known = [row.rates for row in rows if not row.is_real and row.rates is not None]
        if not known:
            return ""
        bytes_in, bytes_out = sum(rate.bytes_in for rate in known), sum(rate.bytes_out for rate in known)
        return f", {sum(rate.opened for rate in known):.0f} new/s, {size(bytes_in)}/s in, {size(bytes_out)}/s out"

    def _chosen_key(self) -> str:
        table = self.query_one("#table", DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return ""
        return str(table.ordered_rows[table.cursor_row].key.value)

    def _show_note(self) -> None:
        row = self.rows.get(self._chosen_key())
        self.query_one("#note", Static).update(Content(clean(row.note) if row else ""))

    def on_data_table_row_highlighted(self) -> None:
        self._show_note()

    async def _follow(self) -> None:
        kept: int | None = _EVENTS_FIRST
        while True:
            try:
                async for event in self.feed.stream("events", follow=True, limit=kept):
                    kept = None  # after a break go on with what is new
                    if not self.is_running:
                        return
                    self.query_one("#events", RichLog).write(Text(event_line(event)))
            except (ControlUnavailable, ControlError):
                pass  # the head line says it; control may come back
            await asyncio.sleep(self.every)

    def action_change(self, verb: str) -> None:
        """Ask, then drain, halt or put online the real server under the cursor."""
        row = self.rows.get(self._chosen_key())
        if row is None or not row.is_real:
            self.notify("Move to a real server first.", severity="warning")
            return
        self.push_screen(ConfirmChange(Change(verb, *row.key), row.connections), self._carry_out)

    async def _carry_out(self, change: Change | None) -> None:
        if change is None:
            return
        try:
            await self.feed.call(change.verb, service=change.service, real=change.real, reason=change.reason)
        except (ControlUnavailable, ControlError) as error:
            self.notify(clean(error), severity="error", markup=False)
            return
        self.notify(f"{clean(change.real)}: {change.verb}", markup=False)
        await self.refresh_data()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self.wanted = event.value
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self.query_one("#table", DataTable).focus()
            if not self.wanted:
                event.input.remove_class("open")

    def action_clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("open")
        self.query_one("#table", DataTable).focus()
