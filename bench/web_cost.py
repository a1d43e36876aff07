"""What the web interface costs with many virtual services: bytes, first paint, live updates, idle viewers.

    python -m bench.web_cost [--services 500] [--reals 3] [--viewers 10] [--seconds 30]

Starts lbfast with that many services on 127.0.0.1, real servers that are probed and up, and Debian's Chromium.  Then:
the overview's bytes and the milliseconds of CPU that the web process spends on it; first contentful paint in the
browser; CPU of web and control, as per cent of one core, without a viewer (what sampling for graphs and alerts costs),
with idle viewers, and with viewers while a client connects to one service after the other.  One JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import ssl
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


def first_paint(web: Web) -> dict[str, float]:
    """In Chromium, of a page that is opened with a warm cache; median of some."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(web.url + HOME)
        page.locator("#user").or_(page.locator("input[name=user]")).first.fill("loadbalancer")
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.locator("tbody.service").first.wait_for()
        paints, loads = [], []
        for _ in range(TRIES):
            page.goto(web.url + HOME)
            page.locator("tbody.service").last.wait_for(state="attached")
            script = (
                "() => [performance.getEntriesByName('first-contentful-paint')[0]?.startTime || 0, performance.now()]"
            )
            paint, done = page.evaluate(script)
            paints.append(paint)
            loads.append(done)
        browser.close()
    return {"first_paint_ms": round(sorted(paints)[TRIES // 2]), "all_rows_ms": round(sorted(loads)[TRIES // 2])}


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

        result: dict[str, Any] = {"overview": page_cost(client, pids["web"]) | first_paint(web)}
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
