"""Files that load, files that do not, and what is said of each: file, line, key, found, expected."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lbfast.config.errors import ConfigError, Problem
from lbfast.config.store import Loaded, load, parse
from lbfast.model.addresses import join_address
from lbfast.model.appliance import Config
from lbfast.model.state import AtLimit, DrainPolicy, Persistence, Scheduler

EXAMPLE = Path(__file__).parents[2] / "packaging/examples/symphony.toml"
SERVICE = '[[virtual_service]]\nlabel = "Symphony"\naddress = "192.0.2.1"\nports = "443"\n'
REAL = '  [[virtual_service.real_server]]\n  label = "one"\n  address = "192.0.2.11"\n'


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "lb.toml")
    assert str(caught.value).count("\n") + 1 == len(caught.value.problems), "one line each"
    return list(caught.value.problems)


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def refused(path: Path) -> Problem:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_the_example_loads_without_a_doubt() -> None:
    loaded = load(EXAMPLE)
    assert loaded.warnings == ()
    service = loaded.config.virtual_services[0]
    assert (service.label, service.address, service.port_numbers) == ("Symphony", "192.168.85.150", (443,))
    assert [real.address for real in service.real_servers] == [f"192.168.85.20{n}" for n in range(3)]
    assert (service.health_check.interval, service.health_check.timeout) == (4_000, 2_000)


def test_defaults() -> None:
    config = parse(SERVICE + REAL).config
    service = config.virtual_services[0]
    assert (config.workers, config.pin_workers) == (None, True)
    assert (config.log.target, config.log.rate_limit, config.log.rate_interval) == ("stdout", 1_000, 30_000)
    assert service.scheduler is Scheduler.WLC
    assert service.persistence.mode is Persistence.SOURCE_IP
    assert (service.persistence.timeout, service.persistence.mask_v4, service.persistence.mask_v6) == (
        1_800_000,
        32,
        128,
    )
    assert service.drain_policy is DrainPolicy.UNTIL_EXPIRY
    assert service.at_limit is AtLimit.QUEUE
    assert service.max_connections == 40_000
    assert service.client_idle_timeout == service.server_idle_timeout == 12 * 3_600_000
    assert (service.connect_timeout, service.retries, service.redispatch) == (4_000, 3, True)
    assert service.real_servers[0].weight == 100
    assert service.health_check.is_expected(204)
    assert not service.health_check.is_expected(302)


def test_every_value_survives_the_way_out_and_in() -> None:
    config = parse(
        SERVICE.replace('"443"', '"80,443,8000-8010"')
        + """scheduler = "hash"
persistence = { mode = "none", timeout = "90s" }
drain_policy = "new_choice"
drain_deadline = "1h"
drain_cut = true
allow = ["10.0.0.0/8"]
source_addresses = ["192.0.2.1", "192.0.2.2"]
fallback_server = { address = "192.0.2.9", port = 81 }
health_check = { type = "https", expected_status = [200, 302], host = "a.example", jitter = 0 }
id = "0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11"
"""
        + REAL
    ).config
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert config.model_dump(mode="json")["virtual_service"][0]["drain_deadline"] == "1h"


@pytest.mark.parametrize(
    ("text", "line", "key", "found", "expected"),
    [
        (SERVICE + "wieght = 5\n", 5, 'virtual_service[0] "Symphony" . wieght', "an unknown key", "one of label"),
        (SERVICE + "max-connection = 5\n", 5, 'virtual_service[0] "Symphony" . max-connection', "an unknown key",
         '"max_connections"'),
        (SERVICE + REAL + "  wieght = 5\n", 8, 'virtual_service[0] "Symphony" . real_server[0] "one" . wieght',
         "an unknown key", '"weight"'),
        ("worker = 2\n" + SERVICE, 1, "worker", "an unknown key", '"workers"'),
        (SERVICE.replace('"443"', '"44x"'), 4, 'virtual_service[0] "Symphony" . ports', '"44x"', 'such as "443"'),
        (SERVICE.replace('"443"', "443"), 4, 'virtual_service[0] "Symphony" . ports', "443", 'in quotes: "443"'),
        ('workers = "two"\n' + SERVICE, 1, "workers", '"two"', "a whole number from 1 to 256"),
        ("pin_workers = 1\n" + SERVICE, 1, "pin_workers", "1", "true or false"),
        (SERVICE + REAL + "  weight = 257\n", 8, 'virtual_service[0] "Symphony" . real_server[0] "one" . weight', "257",
         "from 0 to 256"),
        (SERVICE + REAL + "  weight = 1.5\n", 8, 'virtual_service[0] "Symphony" . real_server[0] "one" . weight', "1.5",
         "a whole number"),
        (SERVICE + REAL + "  weight = true\n", 8, 'virtual_service[0] "Symphony" . real_server[0] "one" . weight',
         "true", "a whole number"),
        (SERVICE + "retries = 99999999999999999999999\n", 5, 'virtual_service[0] "Symphony" . retries',
         "99999999999999999999999", "from 0 to 100"),
        (SERVICE + "health_check = { jitter = nan }\n", 5, 'virtual_service[0] "Symphony" . health_check . jitter',
         "nan", "a number from 0 to 0.5"),
        (SERVICE + "connect_timeout = 4\n", 5, 'virtual_service[0] "Symphony" . connect_timeout', "4", '"4s"?'),
        (SERVICE + "connect_timeout = 2026-01-01\n", 5, 'virtual_service[0] "Symphony" . connect_timeout',
         "2026-01-01", "a duration"),
        (SERVICE + 'mode = "udp"\n', 5, 'virtual_service[0] "Symphony" . mode', '"udp"', '"tcp"'),
        (SERVICE + 'scheduler = "rr"\n', 5, 'virtual_service[0] "Symphony" . scheduler', '"rr"',
         '"wlc", "wrr" or "hash"'),
        (SERVICE + 'allow = "10.0.0.0/8"\n', 5, 'virtual_service[0] "Symphony" . allow', '"10.0.0.0/8"', "an array"),
        (SERVICE + 'allow = [\n  "10.0.0.0/8", # site\n  "x",\n]\n', 7, 'virtual_service[0] "Symphony" . allow[1]',
         '"x"', "a network"),
        (SERVICE + "source_addresses = [" + ",".join(f'"192.0.2.{n}"' for n in range(1, 10)) + "]\n", 5,
         'virtual_service[0] "Symphony" . source_addresses', '["192.0.2.1", ', "of at most 8"),
        (SERVICE + "[virtual_service.persistence]\ntimeout = 3\n", 6,
         'virtual_service[0] "Symphony" . persistence . timeout', "3", "a duration"),
        (SERVICE + "persistence = 'source_ip'\n", 5, 'virtual_service[0] "Symphony" . persistence', '"source_ip"',
         "a table"),
        ('[virtual_service]\nlabel = "x"\n', 1, "virtual_service", "a table", "each begun by [[virtual_service]]"),
        ("", None, "virtual_service", "nothing", "at least one [[virtual_service]]"),
        ('[log]\ntarget = "file"\n' + SERVICE, 1, "log . file", "nothing", "the file to write to"),
        ('[log]\nfile = "/var/log/x"\n' + SERVICE, 2, "log . file", '"/var/log/x"', "no file"),
        (SERVICE.replace('address = "192.0.2.1"\n', ""), 1, 'virtual_service[0] "Symphony" . address', "nothing",
         "a value, such as"),
        (SERVICE + "drain_cut = true\n", 5, 'virtual_service[0] "Symphony" . drain_cut', "true without drain_deadline",
         "a drain_deadline"),
        (SERVICE + 'at_limit = "fallback"\n', 5, 'virtual_service[0] "Symphony" . at_limit',
         '"fallback" without fallback_server', "a fallback_server"),
        (SERVICE + "client_limit_report_only = true\n", 5, 'virtual_service[0] "Symphony" . client_limit_report_only',
         "true without", "client_max_connections above 0"),
        (SERVICE + 'health_check = { type = "connect", path = "/x" }\n', 5,
         'virtual_service[0] "Symphony" . health_check . path', 'path with type "connect"', "type http or https"),
        (SERVICE + 'health_check = { type = "external" }\n', 5, 'virtual_service[0] "Symphony" . health_check . script',
         "nothing", "the program to run"),
        (SERVICE + 'health_check = { type = "external", script = "/no/such" }\n', 5,
         'virtual_service[0] "Symphony" . health_check . script', '"/no/such"', "exists and may be executed"),
        (SERVICE + 'health_check = { type = "external", script = "check.sh" }\n', 5,
         'virtual_service[0] "Symphony" . health_check . script', '"check.sh"', 'one that begins with "/"'),
        (SERVICE + 'health_check = { type = "http", method = "HEAD", expected_text = "ok" }\n', 5,
         'virtual_service[0] "Symphony" . health_check . expected_text', "expected_text with method", 'method "GET"'),
        (SERVICE + 'health_check = { type = "http", expected_regex = "(" }\n', 5,
         'virtual_service[0] "Symphony" . health_check . expected_regex', '"("', "a regular expression: "),
        (SERVICE + 'source_addresses = ["2001:db8::1"]\n' + REAL, 5,
         'virtual_service[0] "Symphony" . source_addresses[0]', '"2001:db8::1"', "an IPv4 address"),
        (SERVICE + 'source_address = "vip"\nsource_addresses = ["192.0.2.1"]\n' + REAL, 5,
         'virtual_service[0] "Symphony" . source_address', '"vip" beside source_addresses', "one of the two"),
        (SERVICE + 'source_address = "vip"\n' + REAL.replace("192.0.2.11", "2001:db8::1"), 5,
         'virtual_service[0] "Symphony" . source_address', '"vip" with real servers of the other', "IPv4 addresses"),
        (SERVICE.replace("192.0.2.1", "0.0.0.0") + 'source_address = "vip"\n' + REAL, 5,
         'virtual_service[0] "Symphony" . source_address', '"vip" with address 0.0.0.0', "a single service address"),
        (SERVICE + 'health_check = { source_address = "2001:db8::1" }\n' + REAL, 5,
         'virtual_service[0] "Symphony" . health_check . source_address', '"2001:db8::1"', "of the family"),
    ],
)  # fmt: skip
def test_one_mistake(text: str, line: int | None, key: str, found: str, expected: str) -> None:
    problem = only(text)
    assert (problem.file, problem.line, problem.key) == ("lb.toml", line, key)
    assert problem.found.startswith(found)
    assert expected in problem.expected
    place = "lb.toml" if line is None else f"lb.toml:{line}"
    assert str(problem) == f"{place}: {key}: found {problem.found}, expected {problem.expected}"


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        "workers = 0\n"
        + SERVICE.replace('"443"', '"44x"')
        + "retrys = 3\n"
        + REAL
        + "  weight = 300\n"
        + SERVICE.replace("Symphony", "B")
        + "drain_cut = true\n"
        + SERVICE.replace("Symphony", "B")
    )
    told = [(problem.line, problem.path[-1]) for problem in problems(text)]
    assert told == [
        (1, "workers"),
        (5, "ports"),
        (6, "retrys"),
        (10, "weight"),
        (15, "drain_cut"),
        (17, "label"),
        (19, "ports"),
    ]


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    shown = str(only(SERVICE.replace('"Symphony"', '"a\\u001b[2J\\u202eb"')))
    assert shown.isprintable()
    assert "\\u001b" in shown
    assert "\\u202e" in shown


def test_the_name_of_the_file_is_never_cut(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 100) / ("b" * 100 + "\n.toml")
    path.parent.mkdir()
    path.write_text(SERVICE + "retries = -1\n")
    shown = str(path).replace("\n", "\\n")
    assert str(refused(path)).startswith(f"{shown}:5: ")
    assert str(refused(path.parent / ("c" * 100))).startswith(f"{path.parent}/{'c' * 100}: found no such file")


def test_long_values_are_cut() -> None:
    assert len(str(only(SERVICE.replace('"443"', f'"{"4" * 5_000}"')))) < 400


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ('label "x"\n', 1, '`label "x"`', "valid TOML at column 7: expected '='"),
        ("[virtual_service\n", 1, "`[virtual_service`", "valid TOML"),
        ('\n\nx = "abc\n', 3, '`x = "abc`', "valid TOML"),
        ("x = [1,\n", 2, "the end of the file", "valid TOML"),
        ("x = " + "9" * 5_000, None, "Exceeds the limit", "valid TOML"),
        ("x = " + "[" * 5_000 + "]" * 5_000, None, "arrays or tables nested hundreds deep", "few levels"),
        ('x = "a\x01b"\n', 1, '`x = "a\\u0001b"`', "valid TOML"),
    ],
)
def test_what_is_not_toml(text: str, line: int | None, found: str, expected: str) -> None:
    problem = only(text)
    assert (problem.line, problem.key) == (line, "")
    assert problem.found.startswith(found)
    assert expected in problem.expected


@pytest.mark.parametrize(
    ("text", "line", "first", "key"),
    [
        (SERVICE + 'label = "again"\n', 5, 2, "virtual_service[0] . label"),
        ("workers = 1\nworkers = 2\n", 2, 1, "workers"),
        ("[log]\nrate_limit = 1\n[log]\nrate_limit = 1\n", 3, 1, "log"),
        (SERVICE + 'health_check = { type = "http", type = "tls" }\n', 5, 5,
         "virtual_service[0] . health_check . type"),
        (SERVICE + "retries = 1\n" + REAL + SERVICE + 'retries = 1\n"retries" = 2\n', 14, 13,
         "virtual_service[1] . retries"),
    ],
)  # fmt: skip
def test_a_key_given_twice_is_told_with_both_lines(text: str, line: int, first: int, key: str) -> None:
    problem = problems(text)[0]
    assert (problem.line, problem.key) == (line, key)
    assert problem.found == f"the key a second time (first on line {first})"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = refused(tmp_path / "no.toml")
    assert (missing.line, missing.found) == (None, "no such file or directory")
    assert str(missing).startswith(f"{tmp_path}/no.toml: found no such file")
    assert refused(tmp_path).found == "a directory"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").found == "something that is not a regular file"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "symbolic links" in refused(tmp_path / "loop").found
    assert "null" in refused(Path("a\0b")).found


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(SERVICE)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root reads everything
    try:
        assert refused(path).found == "permission denied"
    finally:
        os.seteuid(user)


def test_an_enormous_file_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    with path.open("wb") as stream:
        stream.truncate(65 * 1024 * 1024)
    assert refused(path).expected == "at most 64 MiB of configuration"


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b"a = 1\n" + 'label = "caf\u00e9"\n'.encode("latin-1"), 2, "byte 0xe9, which is not UTF-8"),
        (SERVICE.encode("utf-16"), 1, "text in UTF-16"),
        (b"a = 1\nb = \0\n", 2, "a NUL byte"),
    ],
)
def test_wrong_encodings(tmp_path: Path, content: bytes, line: int, found: str) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(content)
    problem = refused(path)
    assert (problem.line, problem.found) == (line, found)


def test_marks_and_line_ends_of_other_systems_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SERVICE.replace("\n", "\r\n").encode())
    assert load(path).config.virtual_services[0].label == "Symphony"
    path.write_bytes(b"\xef\xbb\xbf" + (SERVICE + "retries = -1\n").replace("\n", "\r\n").encode())
    assert refused(path).line == 5


def test_a_linked_file_is_read_through_its_link(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text(SERVICE)
    (tmp_path / "lb.toml").symlink_to("real.toml")
    assert load(tmp_path / "lb.toml").file == str(tmp_path / "lb.toml")


def test_problems_of_this_machine_are_tied_to_the_line_of_their_key() -> None:
    loaded = parse(SERVICE + REAL, "lb.toml")
    problem = loaded.problem(("virtual_service", 0, "address"), "192.0.2.1", "an address of this machine")
    assert str(problem) == (
        'lb.toml:3: virtual_service[0] "Symphony" . address: found 192.0.2.1, expected an address of this machine'
    )
    absent = loaded.problem(("virtual_service", 0, "real_server", 0, "port"), "x", "y")
    assert absent.line == 5, "a key that is not in the file is told at its table"


def test_doubts_do_not_stop_a_file() -> None:
    twins = REAL + "  weight = 0\n" + REAL.replace("one", "two") + "  weight = 0\n"
    loaded = parse(
        SERVICE + 'health_check = { interval = "1s" }\n' + twins + SERVICE.replace("Sym", "X").replace("2.1", "2.2")
    )
    told = [(doubt.line, doubt.path[-1]) for doubt in loaded.warnings]
    assert told == [(6, "real_server"), (5, "timeout"), (12, "address"), (14, "real_server")]


def large(services: int, reals: int) -> str:
    parts = []
    for number in range(services):
        net = f"10.{number // 250}.{number % 250}"
        parts.append(f'[[virtual_service]]\nlabel = "s{number}"\naddress = "{net}.1"\nports = "443"\n')
        parts += [
            f'[[virtual_service.real_server]]\nlabel = "r{real}"\naddress = "{net}.{real + 2}"\n'
            for real in range(reals)
        ]
    return "".join(parts)


def cpu_of(text: str) -> tuple[float, Loaded]:
    from lbfast.config.source import parse_source
    from lbfast.config.store import validate

    source = parse_source(text, "lb.toml")
    before = time.process_time()
    loaded = validate(source)
    return time.process_time() - before, loaded


def test_a_thousand_services_of_ten_servers_are_validated_well_within_a_second() -> None:
    spent, loaded = cpu_of(large(1_000, 10))
    assert len(loaded.config.virtual_services) == 1_000
    assert spent < 1.0


def test_ten_thousand_services_and_a_mistake_in_the_last() -> None:
    problem = only(large(10_000, 0) + "retries = -1\n")
    assert (problem.line, problem.key) == (40_001, 'virtual_service[9999] "s9999" . retries')


def test_addresses_with_ports() -> None:
    assert join_address("192.0.2.1", 443) == "192.0.2.1:443"
    assert join_address("2001:db8::1", 443) == "[2001:db8::1]:443"


def test_how_far_the_graphs_reach_is_bounded_and_much_of_it_is_a_doubt() -> None:
    services = large(500, 1)
    loaded = parse('[graphs]\nkeep_10s = "1d"\nkeep_1m = "7d"\n' + services, "lb.toml")
    assert loaded.warnings == ()
    much = '[graphs]\nkeep_10s = "1d"\nkeep_1m = "7d"\nkeep_5m = "31d"\nkeep_30m = "180d"\nkeep_2h = "730d"\n'
    (doubt,) = parse(much + services, "lb.toml").warnings
    assert "GB on disk for 1001 series" in str(doubt)
    for bad, what in (
        ('keep_1m = "8d"', "from 1h to 7d"),
        ('keep_1d = "1500ms"', "whole seconds"),
        ("keep_2h = 3", "4s"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(f"virtual_service = []\n[graphs]\n{bad}\n", "lb.toml")
        assert what in str(caught.value), bad
        assert "graphs" in str(caught.value)
