"""A real redis behind a virtual service: pipelines, many clients, bulk loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Lbfast, free_port
from programs import behind, need, opened, run, server

pytestmark = pytest.mark.outside


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lbfast, int, int]]:
    """lbfast, its port, the port of redis itself."""
    program = need("redis-server", "redis-server")
    folder: Path = tmp_path_factory.mktemp("redis")
    with ExitStack() as stack:
        real = free_port()
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        stack.enter_context(server([program, "--port", str(real), *options], real, folder))
        lb, port = stack.enter_context(behind([real]))
        yield lb, port, real


def test_pipelined_benchmark(redis: tuple[Lbfast, int, int]) -> None:
    """50 clients with 16 commands under way each: every answer arrives, on exactly those connections."""
    lb, port, real = redis
    before, commands = sum(opened(lb)), _stat(real, "total_commands_processed")
    options = ["-P", "16", "-c", "50", "-n", "100000", "-t", "set,get", "--csv"]
    said = run(need("redis-benchmark", "redis-tools"), "-p", str(port), *options)
    rows = {line.split(",")[0].strip('"'): float(line.split(",")[1].strip('"')) for line in said.splitlines()[-2:]}
    assert set(rows) == {"SET", "GET"}
    assert all(rate > 1_000 for rate in rows.values()), rows
    assert _stat(real, "total_commands_processed") - commands >= 200_000
    assert sum(opened(lb)) - before >= 100
    assert _stat(real, "total_error_replies") == 0


def test_bulk_loading_through_a_pipe(redis: tuple[Lbfast, int, int]) -> None:
    """100,000 commands in one stream, answers all the while; redis then has every key."""
    _, port, real = redis
    client = need("redis-cli", "redis-tools")
    assert run(client, "-p", str(real), "flushall") == "OK\n"
    text = "".join(f"SET key:{number} value-{number}\r\n" for number in range(100_000))
    said = run(client, "-p", str(port), "--pipe", text=text)
    assert "errors: 0, replies: 100000" in said
    assert run(client, "-p", str(real), "dbsize").split()[-1] == "100000"
    assert run(client, "-p", str(port), "get", "key:99999").strip() == "value-99999"


def test_a_value_of_32_mb_passes_both_ways(redis: tuple[Lbfast, int, int]) -> None:
    _, port, _ = redis
    client = need("redis-cli", "redis-tools")
    value = "0123456789abcdef" * (2 << 20)
    assert run(client, "-p", str(port), "-x", "set", "big", text=value) == "OK\n"
    assert run(client, "-p", str(port), "get", "big") == value + "\n"


def _stat(port: int, name: str) -> int:
    info = run(need("redis-cli", "redis-tools"), "-p", str(port), "info", "stats")
    return int(next(line.split(":")[1] for line in info.splitlines() if line.startswith(f"{name}:")))
