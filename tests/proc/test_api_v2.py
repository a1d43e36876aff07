"""The vendor's API and command against a running lbfast, in the manner of the vendor's own client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from api_world import PASSWORD, Api, basic, make_key, web_lbfast
from harness import Lbfast, free_port

USER = "loadbalancer"


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Lbfast, Api, str]]:
    with web_lbfast() as (lbfast, api):
        path = lbfast.directory / "password"
        path.write_text(PASSWORD + "\n")
        code, _, err = lbfast.cli("passwd", USER, "--password-file", str(path))
        assert code == 0, err
        yield lbfast, Api(api.port, headers=basic(USER, PASSWORD, api.key)), api.key


def post(api: Api, *actions: dict[str, Any], status: int = 200) -> list[dict[str, Any]]:
    """The entries; the body has no content type that says JSON, as the vendor's client sends it."""
    answer = api.call("POST", "/api/v2/", json.dumps({"lbcli": actions}).encode())
    assert answer.status == status, answer.body
    entries: list[dict[str, Any]] = answer.json["lbapi"][0]["itteration"]
    assert len(entries) == len(actions)
    return entries


def test_wrong_password_or_key_is_401(world: tuple[Lbfast, Api, str]) -> None:
    _, api, key = world
    for headers in (
        {},
        basic(USER, "wrong", key),
        basic(USER, PASSWORD, "wrong"),
        basic("nobody", PASSWORD, key),
        {"authorization": f"Bearer {key}"},
    ):
        answer = Api(api.port, headers=headers).call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]})
        assert answer.status == 401
        assert answer.json["lbapi"][0]["itteration"][0]["status"] == "error"
    post(api, {"action": "list"})  # a wrong attempt or four do not shut the right ones out


def test_a_virtual_service_made_changed_cloned_and_deleted(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, _ = world
    port, other = free_port(), free_port()
    vip = {"action": "add-vip", "layer": "7", "vip": "web", "ip": "127.0.0.1", "ports": str(port), "mode": "tcp"}
    entries = post(
        api,
        vip | {"fallback_ip": "", "service_type": "", "slave_ip": "", "check_type": "none"},
        {"action": "add-rip", "vip": "web", "rip": "web0", "ip": "127.0.0.1", "port": "81", "weight": "100"},
        {"action": "add-rip", "vip": "web", "rip": "web1", "ip": "127.0.0.1", "port": "82", "minconns": ""},
        {"action": "reload-haproxy"},
    )
    assert [entry["status"] for entry in entries] == ["success"] * 4
    service = next(it for it in lbfast.json("overview")["virtual_services"] if it["label"] == "web")
    assert [real["label"] for real in service["real_servers"]] == ["web0", "web1"]
    post(
        api,
        {"action": "edit-vip", "vip": "web", "persist_time": "45", "scheduler": "roundrobin", "maxconn": "500"},
        {"action": "edit-rip", "vip": "web", "rip": "web0", "weight": "50"},
        {"action": "clone-vip", "vip": "web", "clone": "web2", "ports": str(other)},
        {"action": "delete-rip", "vip": "web", "rip": "web1"},
        {"action": "reload-haproxy"},
    )
    text = lbfast.call("candidate")["text"]
    assert 'timeout = "45m"' in text
    assert 'scheduler = "wrr"' in text
    labels = {it["label"]: len(it["real_servers"]) for it in lbfast.json("overview")["virtual_services"]}
    assert (labels["web"], labels["web2"]) == (1, 2)
    listed = post(api, {"action": "list", "function": "virtual", "vip": "web"})[0]["virtual"]
    assert listed[0]["rips"][0]["weight"] == 50
    post(api, *({"action": "delete-vip", "vip": it} for it in ("web", "web2")), {"action": "reload-haproxy"})
    assert [it["label"] for it in lbfast.json("overview")["virtual_services"]] == ["Symphony"]


def test_one_post_is_one_transaction(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, _ = world
    before = lbfast.call("candidate")
    entries = post(
        api,
        {"action": "edit-vip", "vip": "Symphony", "maxconn": "9"},
        {"action": "add-rip", "vip": "Symphony", "rip": "x", "ip": "not an address"},
        {"action": "reload-haproxy"},
        status=400,
    )
    assert [entry["status"] for entry in entries] == ["not done", "error", "not done"]
    assert "address" in entries[1]["message"]
    # An operation that fails in its turn takes the edits before it back.
    post(
        api,
        {"action": "edit-vip", "vip": "Symphony", "maxconn": "9"},
        {"action": "drain", "vip": "Symphony", "rip": "nobody"},
        status=400,
    )
    after = lbfast.call("candidate")
    assert (after["text"], after["is_changed"], after["version"]) == (before["text"], False, before["version"])


def test_what_has_no_equivalent_is_refused_by_name(world: tuple[Lbfast, Api, str]) -> None:
    _, api, _ = world
    for option, value in (
        ("mode", "http"),
        ("cookiename", "SERVERID"),
        ("persistence", "sslsesid"),
        ("check_type", "mysql"),
        ("forward_for", "on"),
        ("nonsense", "1"),
    ):
        entry = post(api, {"action": "edit-vip", "vip": "Symphony", option: value}, status=400)[0]
        assert entry["message"].startswith(f"{option}: "), entry
    assert "add-waf" in post(api, {"action": "add-waf", "vip": "Symphony"}, status=400)[0]["message"]


def test_drain_halt_online_and_the_rest(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, _ = world
    real = {"vip": "Symphony", "rip": "Server 1"}
    for action, admin in (("drain", "drain"), ("halt", "halt"), ("online", "online")):
        post(api, {"action": action, **real, "services": "all"})
        assert lbfast.json("overview")["virtual_services"][0]["real_servers"][0]["admin"] == admin
    lbfast.call("persistence_pin", service="Symphony", client="10.1.2.3", real="Server 1")
    assert post(api, {"action": "haproxy-clear-stick"})[0]["message"].startswith("1 ")
    assert "label = " in post(api, {"action": "list", "function": "dumpconfig"})[0]["config"]
    assert post(api, {"action": "api", "function": "get"})[0]["enabled"] == "on"
    for function in ("enable", "disable"):
        refused = post(api, {"action": "api", "function": function}, status=400)[0]
        assert (function in refused["message"], "lbfast apikey" in refused["message"]) == (True, True)
    assert post(api, {"action": "support-download"})[0]["file"].startswith("support-")
    assert post(api, {"action": "restart-haproxy"})[0]["status"] == "success"


def test_user_and_key_must_both_be_allowed(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, _ = world
    weak = Api(api.port, headers=basic(USER, PASSWORD, make_key(lbfast, "operate")))
    assert weak.call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]}).status == 200
    assert weak.call("POST", "/api/v2/", {"lbcli": [{"action": "delete-vip", "vip": "Symphony"}]}).status == 403


def test_a_body_that_is_none_is_told(world: tuple[Lbfast, Api, str]) -> None:
    _, api, _ = world
    for body in (b"", b"[]", b'{"lbcli":[]}', b'{"lbcli":{}}', b"\xff", b'{"lbcli":' + b"[" * 5_000):
        answer = api.call("POST", "/api/v2/", body)
        assert answer.status == 400, body[:40]
        assert answer.json["lbapi"][0]["itteration"][0]["status"] == "error"
    assert post(api, {}, status=400)[0]["message"] == "action is missing"


def test_the_command_does_the_same(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, _, _ = world

    def lbcli(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lbfast.cli.lbcli", *words]
        return subprocess.run(command, env=lbfast.env, capture_output=True, text=True, timeout=60, check=False)

    done = lbcli("--action", "add-rip", "--vip", "Symphony", "--rip", "more", "--ip", "127.0.0.1", "--port", "99")
    assert (done.returncode, done.stderr) == (0, "")
    assert lbcli("--action", "reload-haproxy").returncode == 0
    assert len(lbfast.json("overview")["virtual_services"][0]["real_servers"]) == 2
    wrong = lbcli("--action", "delete-rip", "--vip", "Symphony", "--rip", "none")
    assert wrong.returncode == 1
    assert "none" in wrong.stderr
    assert lbcli("--action").returncode == 2
    assert lbcli("--action", "delete-rip", "--vip", "Symphony", "--rip", "more", "--json").returncode == 0
    assert lbcli("--action=reload-haproxy").returncode == 0
