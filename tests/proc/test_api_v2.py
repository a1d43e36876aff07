"""The vendor's API and command against a running lbfast, in the manner of the vendor's own client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from api_world import PASSWORD, Api, basic, make_key, web_lbfast
from harness import Lbfast, free_port
from waiting import wait_for

USER = "loadbalancer"


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Lbfast, Api, str]]:
    with web_lbfast(allow_stderr=True) as (lbfast, api):  # a web process is killed
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
    assert post(api, {"action": "api", "function": "neither"}, status=400)[0]["message"].startswith("function: ")
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


def command(lbfast: Lbfast, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lbfast.cli.lbcli", *words]
    return subprocess.run(line, env=lbfast.env, capture_output=True, text=True, timeout=60, check=False)


def test_the_api_is_switched_off_and_on_and_that_is_kept(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, key = world
    operator = Api(api.port, headers=basic(USER, PASSWORD, make_key(lbfast, "operate")))
    for function in ("disable", " disable "):
        body = {"lbcli": [{"action": "api", "function": function}]}
        assert operator.call("POST", "/api/v2/", body).status == 403, "the key may only operate"
    assert post(operator, {"action": "api"})[0]["enabled"] == "on"
    entries = post(api, {"action": "list"}, {"action": "api", "function": "disable"})
    assert entries[1]["enabled"] == "off"
    for headers in (api.headers, basic(USER, "wrong", key), {}):
        answer = Api(api.port, headers=headers).call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]})
        assert answer.status == 403, "no password is tried"
        assert "api --function enable" in answer.json["lbapi"][0]["itteration"][0]["message"]
    assert Api(api.port, key).get("/api/v1/overview").status == 200, "the other API goes on"
    web = lbfast.child("web")
    os.kill(web, signal.SIGKILL)
    lbfast.wait_replaced("web", web)

    def status() -> int | None:
        try:
            return api.call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]}).status
        except OSError:
            return None  # the new process takes up its socket

    assert wait_for(status, 30, "the new web process") == 403
    shown = command(lbfast, "--action", "api", "--method", "api")
    assert json.loads(shown.stdout)["lbapi"][0]["itteration"][0]["enabled"] == "off"
    done = command(lbfast, "--action", "api", "--function", "enable")
    assert (done.returncode, "the API is on" in done.stdout) == (0, True), done.stderr
    post(api, {"action": "list"})
    acts = [json.loads(line) for line in (lbfast.state_dir / "web" / "audit.jsonl").read_text().splitlines()]
    switched = [
        (act["what"], act["from"]) for act in acts if act["what"].startswith("api v2 ") and "abled" in act["what"]
    ]
    assert switched == [("api v2 disabled", "127.0.0.1"), ("api v2 enabled", "console")]


def test_the_login_of_the_vendors_enable_works_and_is_set_on_the_console_only(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, api, _ = world
    login = {"username": "automation", "password": "three unrelated words 7", "apikey": "K" * 20 + "eep-it-32-long"}
    refused = post(api, {"action": "api", "function": "enable", **login}, status=400)[0]
    assert "lbcli" in refused["message"]
    words = [word for name, value in login.items() for word in (f"--{name}", value)]
    done = command(lbfast, "--action", "api", "--function", "enable", *words)
    assert done.returncode == 0, done.stderr
    assert login["apikey"] in done.stdout
    assert login["password"] not in done.stdout
    first = Api(api.port, headers=basic(login["username"], login["password"], login["apikey"]))
    assert post(first, {"action": "list"})[0]["status"] == "success"
    # The same again is nothing new; without a key one is made, and the one before is gone.
    assert command(lbfast, "--action", "api", "--function", "enable", *words).returncode == 0
    assert post(first, {"action": "list"})[0]["status"] == "success"
    again = command(lbfast, "--action", "api", "--function", "enable", *words[:4], "--method", "api")
    made = json.loads(again.stdout)["lbapi"][0]["itteration"][0]["apikey"]
    assert len(made) == 32
    second = Api(api.port, headers=basic(login["username"], login["password"], made))
    assert post(second, {"action": "list"})[0]["status"] == "success"
    assert first.call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]}).status == 401
    for wrong in (words[:2], words[2:4], [*words[:3], "short"], [*words[:5], "short"]):
        bad = command(lbfast, "--action", "api", "--function", "enable", *wrong)
        assert bad.returncode == 1, wrong


def test_the_command_does_the_same(world: tuple[Lbfast, Api, str]) -> None:
    lbfast, _, _ = world

    def lbcli(*words: str) -> subprocess.CompletedProcess[str]:
        return command(lbfast, *words)

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
