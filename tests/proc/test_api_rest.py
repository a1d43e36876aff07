"""The REST API against a running lbfast: reading, operating, editing with ETags, committing, keeping."""

from __future__ import annotations

import io
import json
import ssl
import zipfile
from collections.abc import Iterator
from http.client import HTTPSConnection
from typing import Any

import pytest
from api_world import PASSWORD, Api, basic, make_key, web_lbfast
from harness import Lbfast, free_port, scaled
from waiting import wait_for

V1 = "/api/v1"


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Lbfast, Api]]:
    with web_lbfast() as made:
        yield made


@pytest.fixture
def api(world: tuple[Lbfast, Api]) -> Iterator[Api]:
    yield world[1]
    world[1].call("DELETE", f"{V1}/candidate")


def test_a_call_without_a_key_is_told_how(world: tuple[Lbfast, Api]) -> None:
    answer = Api(world[1].port).get(f"{V1}/overview")
    assert answer.status == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Bearer" in answer.json["detail"]
    assert Api(world[1].port, "lbf_wrong").get(f"{V1}/overview").status == 401


def test_roles_decide(world: tuple[Lbfast, Api]) -> None:
    lbfast, api = world
    reader, operator = (Api(api.port, make_key(lbfast, role)) for role in ("report", "operate"))
    drain = f"{V1}/services/Symphony/reals/Server%201/drain"
    assert reader.ok("GET", f"{V1}/overview")["virtual_services"][0]["label"] == "Symphony"
    assert reader.call("POST", drain, {}).status == 403
    assert operator.ok("POST", drain, {"reason": "patching"})["admin"] == "drain"
    assert "--deadline" in operator.call("POST", drain, {"stagger": 5}).json["detail"]
    assert operator.ok("POST", drain, {"deadline": 3_600, "cut": True, "stagger": 5})["admin"] == "drain"
    assert lbfast.call("drain_plan", service="Symphony", real="Server 1")["stagger"] == 5
    assert operator.ok("POST", drain.replace("drain", "online"))["admin"] == "online"
    assert operator.call("POST", f"{V1}/candidate/services", {"label": "x"}).status == 403
    assert reader.call("POST", f"{V1}/verbs/drain", {"service": "Symphony", "real": "Server 1"}).status == 403
    assert reader.ok("POST", f"{V1}/verbs/history")["version"] >= 1


def test_the_pair_of_a_box_that_has_none(world: tuple[Lbfast, Api]) -> None:
    lbfast, api = world
    reader, operator = (Api(api.port, make_key(lbfast, role)) for role in ("report", "operate"))
    way = {"local": "127.0.0.1", "peer": "192.0.2.2"}
    found = reader.ok("GET", f"{V1}/ha")
    assert (found["role"], found["ready"], found["peer"]) == ("standalone", False, None)
    for who, method, path, body in (
        (reader, "POST", "takeover", {}),
        (operator, "PUT", "maintenance", {"on": True}),
        (operator, "POST", "paths", way),
        (operator, "DELETE", "paths", way),
        (operator, "POST", "pair", way | {"password": "x"}),
        (operator, "DELETE", "pair", {}),
    ):
        assert who.call(method, f"{V1}/ha/{path}", body).status == 403, path
    for who, method, path, body in (
        (operator, "POST", "takeover", {"reason": "drill"}),
        (api, "PUT", "maintenance", {"on": True}),
        (api, "POST", "paths", way),
        (api, "DELETE", "pair", None),
    ):
        answer = who.call(method, f"{V1}/ha/{path}", body)
        assert answer.status == 409, (path, answer.json)
        assert "has no peer" in answer.json["detail"], answer.json
    wrong = api.call("POST", f"{V1}/ha/pair", way | {"peer": "127.0.0.1", "password": "x"})
    assert wrong.status == 422
    assert "local and peer are both 127.0.0.1" in wrong.json["detail"]
    assert api.call("PUT", f"{V1}/ha/maintenance", {"on": True, "why": ""}).status == 422


def test_refusals_are_problem_documents(api: Api) -> None:
    for method, path, body, status in (
        ("GET", f"{V1}/services/None/connections", None, 404),
        ("GET", f"{V1}/nothing", None, 404),
        ("PUT", f"{V1}/overview", {}, 405),
        ("PUT", f"{V1}/services/Symphony/reals/Server%201/weight", {"weight": 999}, 422),
        ("POST", f"{V1}/commit", {"text": "virtual_service = 3"}, 422),
        ("POST", f"{V1}/confirm", None, 409),
    ):
        answer = api.call(method, path, body)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
        assert answer.json["detail"]


def test_keys_and_passwords_by_rest(world: tuple[Lbfast, Api], api: Api) -> None:
    made = api.ok("POST", f"{V1}/keys", {"role": "configure", "label": "short", "days": 2})
    short = Api(api.port, made["key"])
    assert {it["id"] for it in short.ok("GET", f"{V1}/keys")["keys"]} >= {made["id"]}
    assert made["key"] not in short.get(f"{V1}/keys").body.decode()
    for longer in ({"role": "report"}, {"role": "report", "days": 3}):
        assert "outlive" in short.call("POST", f"{V1}/keys", longer).json["detail"]
    assert short.ok("POST", f"{V1}/keys", {"role": "report", "days": 1})["expires"] < made["expires"]
    assert api.call("POST", f"{V1}/keys", {"role": "root"}).status == 422
    operator = Api(api.port, make_key(world[0], "operate"))
    for method, path in (("GET", "keys"), ("POST", "keys"), ("DELETE", f"keys/{made['id']}")):
        assert operator.call(method, f"{V1}/{path}", {"role": "report"} if method == "POST" else None).status == 403
    assert api.ok("DELETE", f"{V1}/keys/{made['id']}") == {"revoked": made["id"]}
    assert short.get(f"{V1}/overview").status == 401
    assert api.call("DELETE", f"{V1}/keys/{made['id']}").status == 404
    place = f"{V1}/users/loadbalancer/password"
    assert api.call("PUT", place, {"password": "short"}).status == 422
    assert api.call("PUT", place.replace("loadbalancer", "nobody"), {"password": PASSWORD}).status == 404
    assert operator.call("PUT", place, {"password": PASSWORD}).status == 403
    api.ok("PUT", place, {"password": PASSWORD})
    vendor = Api(api.port, headers=basic("loadbalancer", PASSWORD, api.key))
    assert vendor.call("POST", "/api/v2/", {"lbcli": [{"action": "list"}]}).status == 200


def test_alerts_say_what_came_of_them(world: tuple[Lbfast, Api], api: Api) -> None:
    assert api.ok("GET", f"{V1}/alerts") == {"ways": []}
    assert api.call("POST", f"{V1}/alerts/test").status == 409
    server = {"host": "127.0.0.1", "port": free_port(), "protocol": "tcp"}
    api.ok("PATCH", f"{V1}/candidate/globals", {"alerts": {"syslog_server": server}})
    api.ok("POST", f"{V1}/candidate/commit")
    (tested,) = api.ok("POST", f"{V1}/alerts/test")["ways"]
    assert (tested["way"], tested["ok"]) == ("syslog server", False)
    reader = Api(api.port, make_key(world[0], "report"))
    assert reader.call("POST", f"{V1}/alerts/test").status == 403
    (way,) = reader.ok("GET", f"{V1}/alerts")["ways"]
    assert (way["failing"], "nobody listens there" in way["error"], way["sent_at"]) == (True, True, None)
    shown = world[0].cli("alerts", "show")[1]
    assert shown.startswith("syslog server: nothing sent yet, still failing at 20"), shown
    assert world[0].json("alerts", "show")["ways"] == [way]
    api.ok("PATCH", f"{V1}/candidate/globals", {"alerts": None})
    api.ok("POST", f"{V1}/candidate/commit")


def test_edit_with_etag_then_plan_commit_and_revert(world: tuple[Lbfast, Api], api: Api) -> None:
    lbfast, _ = world
    seen = api.get(f"{V1}/candidate")
    tag = seen.headers["etag"]
    settings = {"label": "Second", "address": "127.0.0.1", "ports": str(free_port()), "health_check": {"type": "none"}}
    made = api.call("POST", f"{V1}/candidate/services", settings, if_match=tag)
    assert made.status == 201
    assert made.headers["etag"] != tag
    stale = api.call("PATCH", f"{V1}/candidate/services/Symphony", {"max_connections": 7}, if_match=tag)
    assert stale.status == 412, "somebody edits what they have not seen"
    real = {"label": "R", "address": "127.0.0.1", "port": free_port()}
    api.ok("POST", f"{V1}/candidate/services/Second/reals", real, if_match=made.headers["etag"])
    assert [it["kind"] for it in api.ok("GET", f"{V1}/candidate/plan")["steps"]] == [
        "open_listener",
        "add_service",
        "add_real",
    ]
    assert any('+label = "Second"' in line for line in api.ok("GET", f"{V1}/candidate/diff")["lines"])
    before = lbfast.call("history")["version"]
    assert api.ok("POST", f"{V1}/candidate/commit", {"reason": "second"})["version"] == before + 1
    assert [it["label"] for it in api.ok("GET", f"{V1}/services")] == ["Symphony", "Second"]
    assert not api.ok("GET", f"{V1}/candidate")["is_changed"]
    history = api.ok("GET", f"{V1}/history")["versions"][0]
    assert history["by"].startswith("key ")
    assert api.ok("POST", f"{V1}/revert", {"version": before})["version"] == before + 2


def test_an_edit_that_is_not_valid_says_where(api: Api) -> None:
    answer = api.call(
        "PATCH", f"{V1}/candidate/services/Symphony", {"health_check": {"interval": "often"}, "ports": "0"}
    )
    assert answer.status == 422
    fields = {it["field"]: it for it in answer.json["problems"]}
    assert set(fields) == {"health_check.interval", "ports"}
    assert fields["ports"]["service"] == "Symphony"
    assert not api.ok("GET", f"{V1}/candidate")["is_changed"]


def test_events_come_as_server_sent_events(world: tuple[Lbfast, Api], api: Api) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection("127.0.0.1", api.port, timeout=scaled(20), context=context)
    connection.request("GET", f"{V1}/events/stream", headers={"authorization": f"Bearer {api.key}"})
    response = connection.getresponse()
    assert response.getheader("content-type", "").startswith("text/event-stream")
    assert response.readline() == b"retry: 2000\n"
    api.ok("PUT", f"{V1}/services/Symphony/reals/Server%201/weight", {"weight": 50})
    found: list[Any] = []
    while not found:
        line = response.readline()
        assert line, "the stream ended"
        if line.startswith(b"data:") and "weight 50" in (event := json.loads(line[5:])).get("message", ""):
            found.append(event)
    assert found[0]["event"] == "admin"
    connection.close()
    api.ok("PUT", f"{V1}/services/Symphony/reals/Server%201/weight", {"weight": 100})


def test_backup_download_upload_and_restore(world: tuple[Lbfast, Api], api: Api) -> None:
    made = api.ok("POST", f"{V1}/backups", {"passphrase": "pass phrase"})
    content = api.get(f"{V1}/backups/{made['name']}").body
    assert len(content) == made["size"]
    api.ok("PATCH", f"{V1}/candidate/services/Symphony", {"max_connections": 77})
    changed = api.ok("POST", f"{V1}/candidate/commit")["version"]
    api.ok("DELETE", f"{V1}/backups/{made['name']}")
    api.ok("PUT", f"{V1}/backups/again.lbfast", content)
    wish = {"name": "again.lbfast", "passphrase": "pass phrase"}
    assert api.call("POST", f"{V1}/restore", wish | {"passphrase": "wrong"}).status == 409
    trial = api.ok("POST", f"{V1}/restore", wish | {"trial": True})
    assert "-max_connections = 77" in trial["lines"]
    assert not trial["restored"]
    assert api.ok("POST", f"{V1}/restore", wish)["commit"]["version"] == changed + 1
    assert "max_connections" not in api.get(f"{V1}/config").body.decode()
    # The users came back too: the key that asks is of before the backup, and still one.
    assert api.get(f"{V1}/overview").status == 200


def test_support_archive_holds_no_secret_and_masks_clients(world: tuple[Lbfast, Api], api: Api) -> None:
    lbfast, _ = world
    lbfast.call("persistence_pin", service="Symphony", client="10.77.66.55", real="Server 1")
    made = api.ok("POST", f"{V1}/support", {"masked": True})
    archive = zipfile.ZipFile(io.BytesIO(api.get(f"{V1}/support/{made['name']}").body))
    texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"lbfast-support/overview.json", "lbfast-support/log.jsonl", "lbfast-support/tables.json"} <= set(texts)
    assert all("10.77.66.55" not in text for text in texts.values())
    assert "client-" in texts["lbfast-support/tables.json"]


def test_logs_are_found_by_filter(world: tuple[Lbfast, Api], api: Api) -> None:
    api.ok("POST", f"{V1}/services/Symphony/reals/Server%201/drain", {"reason": "needle in a haystack"})
    api.ok("POST", f"{V1}/services/Symphony/reals/Server%201/online")
    path = f"{V1}/logs?kind=audit&service=Symphony&text=needle"
    records = wait_for(lambda: api.ok("GET", path)["records"], what="the record to be written")
    assert all(record["event"] == "admin" for record in records)
    assert not api.ok("GET", f"{path}&until=2020-01-01T00:00")["records"]
    assert api.get(f"{V1}/logs?since=yesterday").status == 422


def test_graphs_are_kept(api: Api) -> None:
    def point() -> Any:
        points = api.ok("GET", f"{V1}/series?service=Symphony&real=Server%201&range=60")["points"]
        return [it for it in points if it[1] is not None]

    found = wait_for(point, 25, "a sample")
    assert found[-1][7] == 1.0
    report = api.ok("GET", f"{V1}/availability?range=3600")
    assert {"service": "Symphony", "real": "Server 1", "availability": 100.0} in report["real_servers"]


def test_metrics_are_prometheus_text(api: Api) -> None:
    answer = api.get("/metrics")
    assert answer.status == 200
    text = answer.body.decode()
    assert 'lbfast_real_up{real="Server 1",service="Symphony"} 1.0' in text
    assert "# TYPE lbfast_real_opened_connections_total counter" in text


def test_documentation_is_served_from_here(api: Api) -> None:
    document = api.ok("GET", f"{V1}/openapi.json")
    assert document["openapi"].startswith("3.1")
    page = api.get(f"{V1}/docs")
    assert page.status == 200
    text = page.body.decode()
    assert "/api/v1/candidate/edits" in text
    assert "https://" not in text
