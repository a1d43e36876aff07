"""What the web interface costs with many virtual services: bytes, first paint, live updates, idle viewers.

    python -m bench.web_cost [--services 500] [--reals 3] [--viewers 10] [--seconds 30]

Starts lbfast with that many services on 127.0.0.1, real servers that are probed and up, and Debian's Chromium.  Then:
the overview's bytes and the milliseconds of CPU that the web process spends on it; first contentful paint in the
browser; one live update, of a real server that is drained or brought back: CPU of web and control for it, its bytes,
and in the browser the time from the event to the row that is painted anew; CPU of web and control, as per cent of one
core, without a viewer (what sampling for graphs and alerts costs), with idle viewers, and with viewers while a client
connects to one service after the other.  One JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import load
from bench.many_services import accepting, real_address
from bench.procs import Ports, cpu_seconds, wait_until

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "browser")]

from web_world import HOME, PASSWORD, Client, Web, web_lbfast  # noqa: E402 - the tests' own client

SETTLE_S = 6.0  # first verdicts are told, and one turn of everything has been
TRIES = 5
UPDATES = 12
# Around the page's own handler: how long it takes, and how long until the frame with its changes has been painted.
WATCH = """
window.updates = [];
window.turns = 0;
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, handler) {
  add.call(this, kind, (event) => {
    const began = performance.now();
    handler(event);
    if (kind === "host") window.turns += 1;
    if (kind !== "services") return;
    const done = performance.now(), channel = new MessageChannel();
    channel.port1.onmessage = () => window.updates.push(
      { bytes: event.data.length, script: done - began, painted: performance.now() - began, at: Date.now() });
    requestAnimationFrame(() => channel.port2.postMessage(0));
  });
};
"""


def services_of(ports: list[int], reals: int, target: int) -> list[dict[str, Any]]:
    return [
        {
            "label": f"Service {index}",
            "address": "127.0.0.1",
            "ports": str(port),
            "health_check": {"type": "connect"},
            "real_server": [
                {"label": f"Server {number}", "address": real_address(index * reals + number), "port": target}
                for number in range(reals)
            ],
        }
        for index, port in enumerate(ports)
    ]


def page_cost(client: Client, pid: int) -> dict[str, Any]:
    """Of the overview: bytes, and CPU of the web process for one answer."""
    client.get(HOME)
    before = cpu_seconds([pid])
    sizes = [len(client.get(HOME).text.encode()) for _ in range(TRIES)]
    return {"bytes": sizes[-1], "web_ms": round((cpu_seconds([pid]) - before) / TRIES * 1000, 1)}


@contextlib.contextmanager
def browser_page(web: Web) -> Iterator[Any]:
    """The overview in Chromium, logged in; None without Chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.add_init_script(WATCH)
        page.goto(web.url + HOME)
        page.locator("input[name=user]").first.fill("loadbalancer")
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.locator("tbody.service").first.wait_for()
        yield page
        browser.close()


def first_paint(page: Any) -> dict[str, float]:
    """Of a page that is opened with a warm cache; median of some."""
    paints, loads = [], []
    for _ in range(TRIES):
        page.reload()
        page.locator("tbody.service").last.wait_for(state="attached")
        script = "() => [performance.getEntriesByName('first-contentful-paint')[0]?.startTime || 0, performance.now()]"
        paint, done = page.evaluate(script)
        paints.append(paint)
        loads.append(done)
    return {"first_paint_ms": round(statistics.median(paints)), "all_rows_ms": round(statistics.median(loads))}


def live_update(web: Web, page: Any, pids: dict[str, int], services: int) -> dict[str, float]:
    """One change after the other, each seen before the next; medians in the browser, CPU per turn of the feed."""
    wait_until(lambda: page.evaluate("window.turns") > 0, "the first update", 30)
    before, first, seen = {name: cpu_seconds([pid]) for name, pid in pids.items()}, page.evaluate("window.turns"), []
    for number in range(UPDATES):
        service, had = f"Service {number // 2 * (services // UPDATES)}", page.evaluate("window.updates.length")
        web.lb.call("drain" if number % 2 == 0 else "online", service=service, real="Server 0")
        done = time.time()
        wait_until(lambda had=had: page.evaluate("window.updates.length") > had, "the change to be painted", 60)
        seen.append(page.evaluate("window.updates.at(-1).at") - done * 1000)
    turns = page.evaluate("window.turns") - first
    spent_ms = {name: (cpu_seconds([pid]) - before[name]) * 1000 / turns for name, pid in pids.items()}
    updates = page.evaluate("window.updates")[-UPDATES:]
    middle = {key: statistics.median(it[key] for it in updates) for key in ("bytes", "script", "painted")}
    return {
        "turns": turns,
        "web_ms": round(spent_ms["web"], 1),
        "control_ms": round(spent_ms["control"], 1),
        "bytes": round(middle["bytes"]),
        "script_ms": round(middle["script"], 1),
        "event_to_paint_ms": round(middle["painted"], 1),
        "deed_to_paint_ms": round(statistics.median(seen)),
    }


@contextlib.contextmanager
def viewers(port: int, cookie: str, count: int) -> Iterator[list[int]]:
    """So many open overviews that take every event; how many bytes each has got."""
    context = ssl._create_unverified_context()
    got, socks, threads = [0] * count, [], []

    def read(number: int, sock: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := sock.recv(65_536):
                got[number] += len(data)

    for number in range(count):
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
        head = f"GET /lbadmin/overview/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
        sock.sendall(head.encode())
        socks.append(sock)
        threads.append(threading.Thread(target=read, args=(number, sock), daemon=True))
        threads[-1].start()
    try:
        yield got
    finally:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def spent(pids: dict[str, int], seconds: float, work: Any = None) -> dict[str, float]:
    """Per cent of one core that each process takes."""
    before, started = {name: cpu_seconds([pid]) for name, pid in pids.items()}, time.monotonic()
    while time.monotonic() - started < seconds:
        if work is None:
            time.sleep(0.2)
        else:
            work()
    took = time.monotonic() - started
    return {name: round((cpu_seconds([pid]) - before[name]) / took * 100, 2) for name, pid in pids.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    taken = Ports()
    ports = [taken.take() for _ in range(options.services)]
    target = taken.take()
    with accepting(target), web_lbfast(services_of(ports, options.reals, target)) as web:
        pids = {name: web.lb.child(name) for name in ("web", "control")}
        wait_until(
            lambda: web.lb.call("overview")["virtual_services"][-1]["state"] == "up", "all services to be up", 60
        )
        client = web.client()
        client.login()
        turn = iter(range(10**9))

        def visit() -> None:
            with socket.create_connection(("127.0.0.1", ports[next(turn) % len(ports)])):
                time.sleep(0.05)

        result: dict[str, Any] = {"overview": page_cost(client, pids["web"])}
        with browser_page(web) as page:
            if page is not None:
                result["overview"] |= first_paint(page)
                result["live_update"] = live_update(web, page, pids, options.services)
        time.sleep(SETTLE_S)
        result["nobody_looks"] = spent(pids, options.seconds)
        with viewers(web.port, client.cookie, options.viewers) as got:
            time.sleep(SETTLE_S)
            first = sum(got)
            result["idle_viewers"] = spent(pids, options.seconds)
            result["idle_bytes_per_viewer_s"] = round((sum(got) - first) / options.viewers / options.seconds)
            first = sum(got)
            result["busy_viewers"] = spent(pids, options.seconds, visit)
            result["busy_bytes_per_viewer_s"] = round((sum(got) - first) / options.viewers / options.seconds)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default in (("services", 500), ("reals", 3), ("viewers", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    print(json.dumps({**vars(options), "load": load(), "cores": os.cpu_count(), **measure(options)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
