"""`lbfast top` without a terminal, in textual's harness, against a control server with canned answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_fake import OVERVIEW, STATISTICS, FakeControl, fake_control, lbfast, real, service
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, RichLog, Static

from lbfast.cli.top import TopApp
from lbfast.cli.top_model import rows_of, summary
from lbfast.control.client import ControlUnavailable


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeControl]:
    monkeypatch.setenv("LBFAST_RUNTIME_DIR", str(tmp_path))
    with fake_control(tmp_path) as server:
        yield server


def on_screen(body: Callable[[TopApp, Pilot[int]], object], every: float = 3600.0) -> None:
    """Run the app at 80 by 24; its own clock stands still unless ``every`` says otherwise."""

    async def play() -> None:
        app = TopApp(every)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: bool(app.rows))
            await body(app, pilot)  # type: ignore[misc]

    asyncio.run(play())


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.01)


def table_of(app: TopApp) -> list[list[str]]:
    table = app.query_one("#table", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def text_of(app: TopApp, name: str) -> str:
    return str(app.query_one(name, Static).content)


def screen_of(app: TopApp) -> str:
    return "\n".join(
        "".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips(app.size)
    )


def test_one_of_each_is_called_one():
    overview = {"virtual_services": [service("A", real("B", connections=1), connections=1)]}
    assert summary(rows_of(overview, {})) == "1 service, 1 of 1 server up, 1 connection"


def test_rows_rates_and_note(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        rows = table_of(app)
        assert [row[0] for row in rows[:4]] == [
            "Symphony",
            "  Symphony Server 1",
            "  Symphony Server 2",
            "  Symphony Server 3",
        ]
        assert rows[5][0] == 'Röntgen [bold]"PACS"[/bold] \\u200fX\\x1b[31m'
        assert rows[1][1:3] == ["◐ drain", "12"]
        assert rows[1][3:] == ["", "", ""]  # no rate from one sample
        assert "2 services, 3 of 5 servers up, 72 connections" in text_of(app, "#summary")
        await pilot.press("down")
        await until(pilot, lambda: "patching" in text_of(app, "#note"))

        grown = [
            found | {"real_servers": [one | {"opened": 160, "bytes_out": 9_000_000} for one in found["real_servers"]]}
            for found in STATISTICS["virtual_services"]
        ]
        control.answers["statistics"] = {"virtual_services": grown}
        assert app.totals is not None
        app.totals = (time.monotonic() - 2.0, app.totals[1])  # as if the first sample were two seconds old
        await app.refresh_data()
        opened, _, bytes_out = table_of(app)[1][3:]
        assert 0 < int(opened) <= 30
        assert bytes_out.endswith("MB")
        assert 0 < float(bytes_out.split()[0]) <= 2.0
        assert "new/s" in text_of(app, "#summary")

    on_screen(body)


def test_everything_fits_80_by_24(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await app.refresh_data()
        await pilot.pause()
        screen = screen_of(app)
        assert "out/s" in screen
        assert "Filter" in screen
        assert app.query_one("#table", DataTable).virtual_size.width <= 80

    on_screen(body)


def test_events_appear_harmless(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        log = app.query_one("#events", RichLog)
        await until(pilot, lambda: len(log.lines) >= 2)
        assert "open   10.1.2.3 -> Symphony / Symphony Server 2  (table)" in log.lines[0].text
        assert "\\x1b]0;title\\x07patching" in "".join(line.text for line in log.lines[1:])

    on_screen(body)


@pytest.mark.parametrize(("key", "verb"), [("d", "drain"), ("h", "halt"), ("o", "online")])
def test_a_change_is_confirmed_with_a_reason(control, key, verb):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("down", "down", key)
        await until(pilot, lambda: len(app.screen_stack) == 2)
        assert "Symphony Server 2 of Symphony?" in str(app.screen.query_one("#question", Static).content)
        await pilot.press(*"qd", "enter")  # letters are the reason here, not keys
        await until(pilot, lambda: bool(control.asked(verb)))
        assert control.asked(verb) == [{"service": "Symphony", "real": "Symphony Server 2", "reason": "qd"}]
        await until(pilot, lambda: len(app.screen_stack) == 1)

    on_screen(body)


def test_escape_changes_nothing(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("down", "h")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("up", "h")  # a service cannot be halted
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert control.asked("halt") == []

    on_screen(body)


def test_a_refusal_is_shown_and_the_screen_lives(control):
    control.answers["drain"] = ("error", "busy", "a change [b]is[/b] under way")

    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("down", "d")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await until(pilot, lambda: any("a change [b]is[/b] under way" in note.message for note in app._notifications))

    on_screen(body)


def test_filter(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("slash", *"SERVER 3", "enter")
        await until(pilot, lambda: len(app.rows) == 2)
        assert [row[0] for row in table_of(app)] == ["Symphony", "  Symphony Server 3"]
        assert "filter: SERVER 3" in text_of(app, "#summary")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.rows) == 7)
        assert app.query_one("#filter", Input).value == ""

    on_screen(body)


def test_the_cursor_stays_on_its_server_when_rows_come_and_go(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("down", "down")
        new = service("A first one", real("X"))
        control.answers["overview"] = {"virtual_services": [new, *OVERVIEW["virtual_services"]]}
        control.answers["statistics"] = {"virtual_services": []}
        await app.refresh_data()
        await pilot.pause()
        assert app._chosen_key() == "Symphony\0Symphony Server 2"

    on_screen(body)


@pytest.mark.parametrize("lost", [False, True], ids=["figures", "an error"])
def test_an_answer_after_the_screen_was_left_is_dropped(control, lost):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        async def late(verb: str) -> dict[str, object]:
            while app.query("#table"):
                await asyncio.sleep(0)
            if lost:
                raise ControlUnavailable("it has ended")
            return {"overview": OVERVIEW, "statistics": STATISTICS}[verb]

        app.feed.call = late
        app.run_worker(app.refresh_data())
        await pilot.pause()

    on_screen(body)


def test_lost_lbfast_is_told_and_found_again(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        control.answers["overview"] = ("error", "internal", "out of order")
        await until(pilot, lambda: "OUT OF DATE: out of order" in text_of(app, "#summary"))
        assert table_of(app)  # the last figures stay
        control.answers["overview"] = OVERVIEW
        await until(pilot, lambda: "2 services" in text_of(app, "#summary"))

    on_screen(body, every=0.02)


def test_q_ends(control):
    async def body(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)

    on_screen(body)


def test_top_without_a_terminal(tmp_path):
    said = lbfast(tmp_path, "top")
    assert said.returncode == 1
    assert "needs a terminal" in said.stderr
