"""A real PostgreSQL behind a virtual service: transactions, and a cancel request that must find its server."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from harness import Lbfast, free_port, wait_for
from programs import behind, need, open_folder, run, server
from servers import named_server
from waiting import scaled

pytestmark = pytest.mark.outside

ENV = {"PGUSER": "postgres", "PGDATABASE": "postgres", "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}


@dataclass
class Database:
    lb: Lbfast
    port: int


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """PostgreSQL, and beside it a server that is none: whoever is sent there by mistake fails."""
    initdb, postgres = need("initdb", "postgresql"), need("postgres", "postgresql")
    need("psql", "postgresql-client")
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        as_user = _unprivileged(folder)
        data = folder / "data"
        run(*as_user, initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        port = free_port()
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F", "-c", "max_connections=50"]
        stack.enter_context(server([*as_user, postgres, "-D", str(data), *options], port, folder))
        other = stack.enter_context(named_server("no database"))
        lb, service_port = stack.enter_context(behind([port, other.port]))
        lb.call("drain", service="Symphony", real="Server 2")
        _psql(service_port, "select 1")
        lb.call("online", service="Symphony", real="Server 2")
        yield Database(lb, service_port)


def test_pgbench(database: Database) -> None:
    """8 clients, a second of transactions, none failed, no connection lost; then the same with new connections each."""
    pgbench = need("pgbench", "postgresql")
    place = ["-h", "127.0.0.1", "-p", str(database.port)]
    run(pgbench, *place, "-i", "-q", env=ENV)
    for options in (["-T", "1"], ["-C", "-t", "20"]):
        said = run(pgbench, *place, "-n", "-c", "8", "-j", "2", *options, env=ENV)
        assert "number of failed transactions: 0 (0.000%)" in said
        assert "aborted" not in said
    count = _psql(database.port, "select count(*) from pgbench_history").strip()
    assert int(count) >= 8 * 20
    balanced = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
    assert _psql(database.port, balanced).strip() == "t"


def test_a_cancel_request_reaches_the_server_of_its_query(database: Database) -> None:
    """It comes on a connection of its own; a new client would be sent to the other server, which has fewer."""
    command = [need("psql", "postgresql-client"), "-h", "127.0.0.1", "-p", str(database.port), "-X", "-At"]
    sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep(60%' and state = 'active'"
    with subprocess.Popen(
        [*command, "-c", "select pg_sleep(60) as cancel_me"],
        env=os.environ | ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as psql:
        wait_for(lambda: _psql(database.port, sleeping).strip() == "1", 10, "the query to run")
        psql.send_signal(signal.SIGINT)
        _, said = psql.communicate(timeout=scaled(10))
    assert "canceling statement due to user request" in said
    assert _psql(database.port, sleeping).strip() == "0"


def test_a_large_copy_out_and_in(database: Database) -> None:
    make = "create table bulk as select i, repeat(md5(i::text), 8) as text from generate_series(1, 100000) i"
    _psql(database.port, make)
    out = _psql(database.port, "copy bulk to stdout")
    assert len(out) > 25_000_000
    _psql(database.port, "create table again (like bulk)")
    _psql(database.port, "copy again from stdin", text=out)
    assert _psql(database.port, "select count(*) from (table bulk except table again) d").strip() == "0"


def _psql(port: int, sql: str, text: str | None = None) -> str:
    psql = need("psql", "postgresql-client")
    options = ["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]
    return run(psql, "-h", "127.0.0.1", "-p", str(port), *options, env=ENV, text=text)


def _unprivileged(folder: os.PathLike[str]) -> list[str]:
    """PostgreSQL refuses to run as root: what runs a command as another user, who then owns the folder."""
    if os.geteuid() != 0:
        return []
    user = next(entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    setpriv = need("setpriv", "util-linux")
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
