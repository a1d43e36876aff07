"""The command line of candidate, backup, restore, support, logs, series and alerts; and a restore that is killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from harness import Lbfast, free_port, real_server, virtual_service
from servers import echo_server
from waiting import wait_for

from lbfast.control.backup_file import Backup, pack, unpack


@pytest.fixture
def lbfast() -> Iterator[Lbfast]:
    reals = [real_server(f"Server {number}", free_port()) for number in (1, 2)]
    config = {"workers": 1, "log": {"target": "none"}, "virtual_service": [virtual_service(free_port(), reals)]}
    with Lbfast(config, allow_stderr=True) as made:
        yield made


def ok(lbfast: Lbfast, *words: str) -> str:
    code, out, err = lbfast.cli(*words)
    assert (code, err) == (0, ""), f"{words}: {code} {err}"
    return out


def test_the_candidate_from_the_command_line(lbfast: Lbfast) -> None:
    ok(lbfast, "candidate", "set", "max_connections", "77", "--service", "Symphony")
    ok(lbfast, "candidate", "set", "weight", "5", "--service", "Symphony", "--real", "Server 1")
    ok(lbfast, "candidate", "set", "health_check.type", "connect", "--service", "Symphony")
    code, _, err = lbfast.cli("candidate", "set", "ports", "443x", "--service", "Symphony")
    assert code == 2
    assert "443x" in err
    assert "3 changes" in ok(lbfast, "candidate", "show")
    assert "+max_connections = 77" in ok(lbfast, "candidate", "diff")
    assert "health check" in ok(lbfast, "candidate", "plan")
    assert "health check" in ok(lbfast, "candidate", "plan", "--removed", "30m")
    assert lbfast.cli("candidate", "commit", "--removed", "later")[0] == 2
    assert "version 2 runs" in ok(lbfast, "candidate", "commit", "--reason", "test", "--removed", "30m")
    ok(lbfast, "candidate", "set", "max_connections", "-", "--service", "Symphony")
    ok(lbfast, "candidate", "discard")
    assert lbfast.cli("candidate", "commit")[0] == 1


def test_the_candidate_outlives_control_and_lbfast(lbfast: Lbfast) -> None:
    ok(lbfast, "candidate", "set", "max_connections", "77", "--service", "Symphony")
    before = lbfast.call("candidate")
    control = lbfast.child("control")
    os.kill(control, signal.SIGKILL)
    lbfast.wait_replaced("control", control)
    wait_for(lambda: lbfast.cli("overview")[0] == 0, what="control to answer")
    assert lbfast.call("candidate") == before
    lbfast.stop()
    with Lbfast(lbfast.config_path.read_text(), directory=lbfast.directory) as again:
        assert again.call("candidate") == before
        assert "version 2 runs" in ok(again, "candidate", "commit")
        again.stop()
    # What was committed by candidate runs after a restart too, as long as the file is as it was.
    with Lbfast(lbfast.config_path.read_text(), directory=lbfast.directory) as third:
        assert third.call("history")["version"] == 2
        assert "max_connections = 77" in third.call("candidate")["text"]
        third.stop()
        third.config_path.write_text(third.config_path.read_text() + "# edited\n")
    with Lbfast(third.config_path.read_text(), directory=lbfast.directory) as edited:
        assert edited.call("history")["version"] == 3, "a file that was edited wins"
        assert "max_connections" not in edited.call("candidate")["text"]


def test_backup_and_restore_with_admin_state(lbfast: Lbfast, tmp_path: Path) -> None:
    file, phrase = tmp_path / "a.lbfast", tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    ok(lbfast, "drain", "Symphony", "Server 1", "--reason", "kept")
    ok(lbfast, "weight", "Symphony", "Server 2", "7")
    ok(lbfast, "persistence", "pin", "Symphony", "10.1.2.3", "Server 2")
    assert "encrypted" in ok(lbfast, "backup", str(file), "--passphrase-file", str(phrase))
    assert set(unpack(file.read_bytes(), "correct horse").files) >= {"lbfast.toml", "state.json", "ids.json"}
    ok(lbfast, "online", "Symphony", "Server 1")
    ok(lbfast, "weight", "Symphony", "Server 2", "100")
    ok(lbfast, "persistence", "clear", "Symphony")
    ok(lbfast, "candidate", "set", "max_connections", "77", "--service", "Symphony")
    ok(lbfast, "candidate", "commit")
    words = ("restore", str(file), "--passphrase-file", str(phrase))
    assert "dry run" in ok(lbfast, *words, "--dry-run")
    assert lbfast.json("overview")["virtual_services"][0]["real_servers"][0]["admin"] == "online"
    assert "restored; version 3 runs" in ok(lbfast, *words)
    first, second = lbfast.json("overview")["virtual_services"][0]["real_servers"]
    assert (first["admin"], second["weight"]) == ("drain", 7)
    assert lbfast.json("persistence", "show", "Symphony")["entries"][0]["pinned"]
    assert "max_connections" not in lbfast.call("candidate")["text"]
    assert lbfast.cli("restore", str(file))[0] == 1, "without the passphrase"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(file.read_bytes()[:-1] + b"x")
    assert lbfast.cli("restore", str(damaged), "--passphrase-file", str(phrase))[0] == 1
    assert not lbfast.call("backups")["backups"], "what was uploaded to be restored is not kept"


def test_a_backup_of_another_appliance_finds_the_servers_by_their_labels(lbfast: Lbfast, tmp_path: Path) -> None:
    file = tmp_path / "a.lbfast"
    ok(lbfast, "halt", "Symphony", "Server 2")
    ok(lbfast, "backup", str(file))
    text = lbfast.config_path.read_text()
    lbfast.stop()  # its port is needed
    with Lbfast(text.replace("Server 1", "Server one")) as other:
        assert "restored" in ok(other, "restore", str(file))
        reals = other.json("overview")["virtual_services"][0]["real_servers"]
        assert [(real["label"], real["admin"]) for real in reals] == [("Server 1", "online"), ("Server 2", "halt")]


def test_a_restore_that_is_killed_is_whole_or_not_at_all(lbfast: Lbfast) -> None:
    """Killed after the configuration stood, it is finished by the next control process; before that, forgotten."""
    made = lbfast.call("backup")
    piece = lbfast.call("file_get", kind="backup", name=made["name"])
    backup = unpack(base64.b64decode(piece["data"]))
    marks = {"version": 1, "admin": {}, "weights": {}, "pins": {}}
    real = json.loads(backup.files["ids.json"])["virtual_services"]["Symphony"]["real_servers"]["Server 1"]
    marks["weights"] = {real.replace("-", ""): {"weight": 9, "by": "ann", "at": "2026-03-01T08:00:00+00:00"}}
    staged = pack(Backup(backup.about, {**backup.files, "state.json": json.dumps(marks).encode()}))

    def killed_with(digest: str) -> int:
        """A journal as a killed restore leaves it, then another control process; the weight it ends with."""
        journal = json.dumps({"digest": digest, "by": "ann"}).encode()
        for name, content in (("restore.zip", staged), ("restore.json", journal)):
            path = lbfast.state_dir / name
            path.write_bytes(content)
            owner = (lbfast.state_dir / "ids.json").stat()
            os.chown(path, owner.st_uid, owner.st_gid)
        control = lbfast.child("control")
        os.kill(control, signal.SIGKILL)
        lbfast.wait_replaced("control", control)
        wait_for(lambda: not (lbfast.state_dir / "restore.json").exists(), what="the journal to be dealt with")
        weight: int = lbfast.json("overview")["virtual_services"][0]["real_servers"][0]["weight"]
        return weight

    assert killed_with("0" * 16) == 100, "its configuration never stood"
    text = lbfast.call("candidate")["text"]
    lbfast.call("commit", text=text + "# restored\n", file=f"backup {'1' * 16}")
    assert killed_with("1" * 16) == 9


def test_support_logs_series_and_availability(lbfast: Lbfast, tmp_path: Path) -> None:
    file = tmp_path / "support.zip"
    assert "masked" in ok(lbfast, "support", str(file), "--mask")
    assert "lbfast-support/overview.json" in zipfile.ZipFile(file).namelist()
    ok(lbfast, "drain", "Symphony", "Server 1", "--reason", "needle")
    wait_for(lambda: "needle" in ok(lbfast, "logs", "--kind", "audit", "--text", "needle"), what="the record")
    assert "connections" in ok(lbfast, "series", "--service", "Symphony")
    assert "Symphony / Server 1" in ok(lbfast, "availability", "--range", "365d")
    assert lbfast.cli("series", "--range", "soon")[0] == 2
    assert lbfast.cli("alerts", "test")[0] == 1


def test_alerts_of_a_server_that_goes_down_and_of_a_commit_that_fails() -> None:
    letters: list[str] = []

    class Inbox:
        async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:
            letters.append(envelope.content.decode())  # type: ignore[attr-defined]
            return "250 OK"

    controller = Controller(Inbox(), hostname="127.0.0.1", port=free_port())
    controller.start()
    check = {"type": "connect", "interval": "200ms", "timeout": "100ms", "rise": 1, "fall": 1, "all_down_grace": "0s"}
    try:
        with echo_server() as server:
            service = virtual_service(free_port(), [real_server("Server 1", server.port)], health_check=check)
            email = {"host": "127.0.0.1", "port": controller.port, "tls": "none"}
            email |= {"sender": "lb@example.org", "recipients": ["ops@example.org"]}
            config = {
                "workers": 1,
                "log": {"target": "none"},
                "alerts": {"email": email, "group_wait": "0s", "repeat_after": "1s"},
                "virtual_service": [service],
            }
            with Lbfast(config) as lbfast:
                assert "email: sent" in ok(lbfast, "alerts", "test")
                server.stop()
                wait_for(lambda: any("Server 1 of Symphony is down" in it for it in letters), 20, "the alert")
                with echo_server() as other:  # its port is taken
                    text = lbfast.config_path.read_text().replace(service["ports"], str(other.port), 1)
                    lbfast.config_path.write_text(text)
                    assert lbfast.cli("commit", str(lbfast.config_path))[0] == 1
                wait_for(lambda: any("commit by" in it for it in letters), 20, "the alert of the commit")
    finally:
        controller.stop()


def test_scheduled_backups_are_made_and_kept_in_number(tmp_path: Path) -> None:
    config = {
        "workers": 1,
        "log": {"target": "none"},
        "backup": {"every": "1ms", "keep": 2},
        "virtual_service": [virtual_service(free_port(), [real_server("Server 1", free_port())])],
    }
    with Lbfast(config, allow_stderr=True) as lbfast:
        made = wait_for(lambda: lbfast.call("backups")["backups"], what="the first backup")
        assert made[0]["scheduled"]
        name = made[0]["name"]
        for _ in range(3):  # a control process that starts finds one due
            control = lbfast.child("control")
            os.kill(control, signal.SIGKILL)
            lbfast.wait_replaced("control", control)
            wait_for(lambda old=name: _newest(lbfast) not in ("", old), what="another backup")
            name = _newest(lbfast)
        # The oldest one goes a moment after the newest one came.
        wait_for(lambda: len(lbfast.call("backups")["backups"]) == 2, what="no more than two to be kept")


def _newest(lbfast: Lbfast) -> str:
    try:
        found: str = lbfast.call("backups")["backups"][0]["name"]
    except Exception:
        return ""
    return found
