"""The vendor's verbs without a running lbfast: what is understood, what is refused, that a post is one transaction."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast.cli.lbcli import command, parse_words
from lbfast.config.edit import EditError, edit
from lbfast.config.store import parse
from lbfast.control.lbcli_options import _RIP, _VIP, _WITHOUT, LbcliError, vip_settings
from lbfast.control.lbcli_run import API_SWITCH, EDITS, OPERATIONS, READS, role_of, run, understand
from lbfast.control.protocol import ControlError

TEXT = """\
[[virtual_service]]
label = "S"
address = "127.0.0.1"
ports = "443"

[[virtual_service.real_server]]
label = "R"
address = "10.0.0.1"
"""


class Fake:
    """An lbfast with nothing but a candidate; counts what is committed."""

    def __init__(self) -> None:
        self.text = self.running = TEXT
        self.acts: list[tuple[str, dict[str, Any]]] = []
        self.fails: set[str] = set()

    def answer(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        if verb in self.fails:
            raise ControlError("refused", f"{verb} failed")
        if verb == "candidate":
            return {"text": self.text, "tag": "t", "is_changed": self.text != self.running}
        if verb == "candidate_edit":
            try:
                self.text, _ = edit(self.text, args["operations"])
            except EditError as error:
                raise ControlError("bad_argument", str(error)) from None
            return {"accepted": True, "problems": []}
        if verb == "candidate_discard":
            self.text = self.running
            return {}
        if verb == "candidate_commit":
            parse(self.text)
            self.running = self.text
            return {"version": 2}
        if verb == API_SWITCH:
            return {"message": "the API is on", "enabled": "on"}
        self.acts.append((verb, args))
        return {"admin": verb, "removed": 1, "virtual_services": [], "version": "0", "name": "support.zip"}

    def post(self, *actions: Any) -> tuple[bool, list[dict[str, Any]]]:
        steps = run(actions)
        try:
            question = next(steps)
            while True:
                try:
                    question = steps.send(self.answer(question.verb, question.args))
                except ControlError as error:
                    question = steps.throw(error)
        except StopIteration as end:
            outcome: tuple[bool, list[dict[str, Any]]] = end.value
            return outcome


OPTIONS = sorted({*_VIP, *_RIP, *_WITHOUT, "vip", "rip", "clone", "function", "services"})
VALUES = st.one_of(
    st.sampled_from(
        ["", "on", "off", "S", "R", "10.0.0.9", "80:90-100", "30", "12h", "none", "ip", "connect", "negotiate_http"]
    ),
    st.text(max_size=10),
    st.integers(-5, 70_000),
    st.none(),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
)
ACTIONS = st.builds(
    lambda name, options: {**options, "action": name},
    st.sampled_from([*EDITS, *OPERATIONS, *READS, "reload-haproxy", "restart-haproxy", "support-download", "nonsense"]),
    st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, min_size=1, max_size=5))
def test_whatever_is_posted_there_is_an_entry_for_each_and_all_or_nothing_in_the_candidate(posted: list[Any]) -> None:
    fake = Fake()
    is_done, entries = fake.post(*posted)
    assert [entry["action"] for entry in entries] == [action["action"] for action in posted]
    assert is_done == all(entry["status"] == "success" for entry in entries)
    assert all(entry["message"] for entry in entries)
    if not is_done:
        assert [entry["status"] for entry in entries].count("error") == 1
        if fake.running == TEXT:
            assert fake.text == TEXT, "edits of a post that failed are taken back"


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=8))
def test_an_option_that_is_empty_counts_as_not_given(options: dict[str, Any]) -> None:
    def outcome(given_: dict[str, Any]) -> Any:
        try:
            return understand({"action": "add-vip", **given_}).operation
        except LbcliError as error:
            return str(error)

    full = {name: value for name, value in options.items() if value not in ("", None)}
    assert outcome(options) == outcome(full)
    assert outcome(full | {name: "" for name in _WITHOUT if name not in full}) == outcome(full)


def test_the_vendors_template_with_every_option_empty_changes_nothing() -> None:
    empty = dict.fromkeys((*_VIP, *_WITHOUT), "")
    is_done, entries = Fake().post({"action": "edit-vip", "vip": "S", **empty})
    assert not is_done
    assert "no option" in entries[0]["message"]
    assert Fake().post({"action": "edit-vip", "vip": "S", **empty, "maxconn": "7"})[0]


def test_an_option_that_says_what_is_so_anyway_is_no_fault_and_no_change() -> None:
    for action, options in (
        ({"action": "edit-vip", "vip": "S"}, {"compression": "off", "timeout": "on", "feedback_method": "none"}),
        ({"action": "edit-rip", "vip": "S", "rip": "R"}, {"minconns": "0", "encrypted": "off"}),
    ):
        fake = Fake()
        assert fake.post({**action, **options})[0]
        assert fake.text == TEXT
        assert "no option was given" in fake.post(action)[1][0]["message"]
        assert not fake.post({**action, "vip": "nobody", **options})[0]


def test_defaults_are_the_vendors() -> None:
    fake = Fake()
    assert fake.post({"action": "add-vip", "vip": "N", "ip": "127.0.0.1", "ports": "80:90-91", "mode": "tcp"})[0]
    service = parse(fake.text).config.virtual_services[1]
    assert service.ports_text == "80,90-91"
    assert str(service.persistence.mode) == "source_ip"
    assert (service.persistence.timeout, service.persistence.table_size) == (30 * 60_000, 10_240)
    assert (service.max_connections, service.client_idle_timeout, service.redispatch) == (40_000, 12 * 3_600_000, True)
    assert (service.health_check.type, service.send_proxy) == ("connect", "none")


@pytest.mark.parametrize(
    ("options", "settings_"),
    [
        ({"persist_time": "45"}, {"persistence": {"timeout": "45m"}}),
        ({"persist_table_size": "10k"}, {"persistence": {"table_size": 10_240}}),
        ({"timeout_client": "43200000"}, {"client_idle_timeout": "43200000ms"}),
        ({"clear_stick_drain": "on"}, {"drain_policy": "new_choice"}),
        (
            {"fallback_ip": "10.0.0.9", "fallback_port": "9081"},
            {"fallback_server": {"address": "10.0.0.9", "port": 9081}},
        ),
        ({"external_check_script": "ping.sh"}, {"health_check": {"script": "/var/lib/loadbalancer.org/check/ping.sh"}}),
        ({"compression": "off", "forward_for": "off"}, {}),
    ],
)
def test_options_become_settings(options: dict[str, str], settings_: dict[str, Any]) -> None:
    assert vip_settings(options) == settings_


def test_another_check_type_leaves_nothing_of_the_one_before() -> None:
    fake = Fake()
    http = {"check_request": "check.txt", "check_receive": "OK", "check_host": "web.example", "check_port": "80"}
    assert fake.post({"action": "edit-vip", "vip": "S", **http, "check_type": "negotiate_http"})[0]
    check = parse(fake.text).config.virtual_services[0].health_check
    assert (check.type, check.path, check.expected_text, check.port) == ("http", "/check.txt", "OK", 80)
    assert fake.post({"action": "edit-vip", "vip": "S", "check_type": "connect"})[0]
    assert parse(fake.text).config.virtual_services[0].health_check.expected_text is None
    assert not fake.post({"action": "edit-vip", "vip": "S", "check_type": "connect", "check_receive": "OK"})[0]


def test_a_commit_that_fails_takes_the_edits_back() -> None:
    fake = Fake()
    fake.fails.add("candidate_commit")
    is_done, entries = fake.post({"action": "delete-rip", "vip": "S", "rip": "R"}, {"action": "reload-haproxy"})
    assert (is_done, fake.text) == (False, TEXT)
    assert [entry["status"] for entry in entries] == ["not done", "error"]


def test_what_was_done_before_an_action_failed_is_told_as_done() -> None:
    fake = Fake()
    fake.fails.add("persistence_clear")
    is_done, entries = fake.post(
        {"action": "edit-vip", "vip": "S", "maxconn": "9"},
        {"action": "drain", "vip": "S", "rip": "R"},
        {"action": "haproxy-clear-stick", "vip": "S"},
        {"action": "online", "vip": "S", "rip": "R"},
    )
    assert (is_done, fake.text, [verb for verb, _ in fake.acts]) == (False, TEXT, ["drain"])
    assert [entry["status"] for entry in entries] == ["not done", "success", "error", "not done"]


def test_roles() -> None:
    assert {role_of(action) for action in EDITS} == {"configure"}
    assert {role_of(action) for action in OPERATIONS} == {"operate"}
    assert {role_of(action) for action in READS} == {"report"}
    assert role_of("reload-haproxy") == role_of("nonsense") == "configure"
    assert role_of("api", "get") == role_of("api", " ") == "report"
    assert role_of("api", "disable") == role_of("api", " enable ") == role_of("api", "Get") == "configure"


def test_words_of_the_command_line() -> None:
    assert parse_words(["--action", "clone-vip", "--vip", "a", "--vip", "b", "--ports=1"]) == {
        "action": "clone-vip",
        "vip": "a",
        "clone": "b",
        "ports": "1",
    }
    for wrong in ([], ["--vip", "a"], ["--action"], ["add-vip"], ["--action", "a", "--action", "b"], ["--"]):
        with pytest.raises(ValueError):
            parse_words(wrong)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_no_fault(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([word]) == 0
    assert capsys.readouterr().out.startswith("usage: lbcli --action ACTION")
