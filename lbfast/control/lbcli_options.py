"""The vendor's option names and what they are here.  Pure: an action's options in, settings out, or a clear refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

SCRIPTS: Final = "/var/lib/loadbalancer.org/check"
Settings = dict[str, Any]


class LbcliError(ValueError):
    """What is wrong with an action; the text names the option."""


def given(action: Mapping[str, Any]) -> dict[str, str]:
    """The options that were given: an empty text counts as not given.  Numbers and booleans become text."""
    options: dict[str, str] = {}
    for name, value in action.items():
        if isinstance(value, bool):
            value = "on" if value else "off"
        if isinstance(value, int):
            value = str(value)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise LbcliError(f"{name}: expected text, found {type(value).__name__}")
        options[name.replace("-", "_") if name != "action" else name] = value.strip()
    return {name: value for name, value in options.items() if value}


def vip_settings(options: Mapping[str, str]) -> Settings:
    """Settings of a virtual service for the options of add-vip, edit-vip and clone-vip."""
    return _settings(options, _VIP)


def rip_settings(options: Mapping[str, str]) -> Settings:
    """Settings of a real server for the options of add-rip and edit-rip."""
    return _settings(options, _RIP)


def _settings(options: Mapping[str, str], known: Mapping[str, Callable[[str], Settings]]) -> Settings:
    settings: Settings = {}
    for name in sorted(options, key=lambda name: name != "check_type"):  # it clears what others then set
        value, make = options[name], known.get(name)
        if make is None:
            raise _refused(name, value)
        try:
            found = make(value)
        except LbcliError as error:
            raise LbcliError(f"{name}: {error}") from None
        for key, part in found.items():
            if isinstance(part, dict):
                settings.setdefault(key, {}).update(part)
            else:
                settings[key] = part
    _finish_check(settings)
    return settings


def _refused(name: str, value: str) -> LbcliError:
    why = _WITHOUT.get(name)
    if why is None:
        return LbcliError(f"{name}: there is no such option")
    return LbcliError(f"{name}: {value[:60]!r} is not possible with lbfast: {why}")


# --- kinds of values ------------------------------------------------------------------------------


def _plain(key: str) -> Callable[[str], Settings]:
    return lambda value: {key: value}


def _number(key: str, table: str = "") -> Callable[[str], Settings]:
    def make(value: str) -> Settings:
        if not re.fullmatch(r"\d{1,9}", value):
            raise LbcliError(f"expected a whole number, found {value[:60]!r}")
        return {table: {key: int(value)}} if table else {key: int(value)}

    return make


def _switch(key: str) -> Callable[[str], Settings]:
    return lambda value: {key: _is_on(value)}


def _is_on(value: str) -> bool:
    if value not in ("on", "off"):
        raise LbcliError(f"expected on or off, found {value[:60]!r}")
    return value == "on"


def _word(key: str, words: Mapping[str, Any], table: str = "") -> Callable[[str], Settings]:
    def make(value: str) -> Settings:
        if value not in words:
            raise LbcliError(f"{value[:60]!r} is not possible with lbfast; possible are {', '.join(words)}")
        return {table: {key: words[value]}} if table else {key: words[value]}

    return make


def _only(neutral: str) -> Callable[[str], Settings]:
    """An option of something that lbfast does not have: only its off position is true."""

    def make(value: str) -> Settings:
        if value != neutral:
            raise LbcliError(f"{value[:60]!r} is not possible with lbfast; possible is only {neutral}")
        return {}

    return make


def _time(key: str, unit: str, table: str = "") -> Callable[[str], Settings]:
    """A time; without a unit it is the vendor's."""

    def make(value: str) -> Settings:
        if not re.fullmatch(r"\d{1,9}(ms|s|m|h|d)?", value):
            raise LbcliError(f"expected a time such as 30m or 12h, found {value[:60]!r}")
        text = value if not value.isdigit() else value + unit
        return {table: {key: text}} if table else {key: text}

    return make


def _ports(value: str) -> Settings:
    """``80:90-100:3443``, with colons where lbfast has commas."""
    return {"ports": value.replace(":", ",")}


def _size(value: str) -> Settings:
    found = re.fullmatch(r"(\d{1,8})([km]?)", value.lower())
    if found is None:
        raise LbcliError(f"expected a number of entries such as 10240 or 10k, found {value[:60]!r}")
    return {"persistence": {"table_size": int(found[1]) * {"": 1, "k": 1_024, "m": 1_048_576}[found[2]]}}


def _path(value: str) -> Settings:
    return {"health_check": {"path": value if value.startswith("/") else f"/{value}"}}


def _script(value: str) -> Settings:
    return {"health_check": {"script": value if value.startswith("/") else f"{SCRIPTS}/{value}"}}


def _check(key: str) -> Callable[[str], Settings]:
    return lambda value: {"health_check": {key: value}}


_CHECKS: Final = MappingProxyType(
    {
        "negotiate_http": ("http", "GET"),
        "negotiate_http_head": ("http", "HEAD"),
        "negotiate_https": ("https", "GET"),
        "negotiate_https_head": ("https", "HEAD"),
        "connect": ("connect", None),
        "external": ("external", None),
        "none": ("none", None),
    }
)
_OF_HTTP: Final = ("path", "method", "host", "expected_text", "expected_regex", "expected_status")


def _check_type(value: str) -> Settings:
    """Another type leaves behind what said something only for the type before."""
    if value not in _CHECKS:
        raise LbcliError(f"{value[:60]!r} is not possible with lbfast; possible are {', '.join(_CHECKS)}")
    kind, method = _CHECKS[value]
    check: Settings = {"type": kind, "method": method}
    if method is None:
        check |= dict.fromkeys(_OF_HTTP)
    if kind != "external":
        check["script"] = None
    if kind not in ("https", "tls"):
        check["sni"] = None
    return {"health_check": check}


def _finish_check(settings: Settings) -> None:
    """A type that was given clears only what was not given beside it."""
    check = settings.get("health_check")
    if check and check.get("type") in ("connect", "none", "external"):
        for key in _OF_HTTP:
            if check.get(key) is not None:
                raise LbcliError(f"check_type {check['type']} has no {key}; it needs negotiate_http or negotiate_https")


_FALLBACK_IP: Final = "fallback_server"

_VIP: Final[Mapping[str, Callable[[str], Settings]]] = MappingProxyType(
    {
        "layer": _only("7"),
        "check_type": _check_type,
        "ip": _plain("address"),
        "ports": _ports,
        "mode": _word("mode", {"tcp": "tcp", "other_tcp": "tcp"}),
        "persistence": _word("mode", {"ip": "source_ip", "none": "none"}, "persistence"),
        "persist_time": _time("timeout", "m", "persistence"),
        "persist_table_size": _size,
        "maxconn": _number("max_connections"),
        "scheduler": _word("scheduler", {"roundrobin": "wrr", "leastconn": "wlc"}),
        "fallback_ip": lambda value: {_FALLBACK_IP: {"address": value}},
        "fallback_port": _number("port", _FALLBACK_IP),
        "check_port": _number("port", "health_check"),
        "check_request": _path,
        "check_receive": _check("expected_text"),
        "check_host": _check("host"),
        "external_check_script": _script,
        "source_address": _check("source_address"),
        "tcp_keep_alive": _switch("tcp_keepalive"),
        "timeout": _only("on"),
        "timeout_client": _time("client_idle_timeout", "ms"),
        "timeout_server": _time("server_idle_timeout", "ms"),
        "clear_stick_drain": _word("drain_policy", {"on": "new_choice", "off": "until_expiry"}),
        "send_proxy": _word("send_proxy", {"none": "none", "v1": "v1", "v2": "v2"}),
        "redispatch": _switch("redispatch"),
        "feedback_method": _only("none"),
        **{
            name: _only("off")
            for name in (
                *("forward_for", "http_pretend_keepalive", "stunneltproxy", "fallback_persist", "force_to_https"),
                *("no_write", "compression", "backend_encryption", "enable_hsts", "invalid_http", "fallback_encrypt"),
                *("http_reuse_connection", "tproxy", "send_rip_name_as_host", "encrypt_all_backends"),
            )
        },
    }
)

_RIP: Final[Mapping[str, Callable[[str], Settings]]] = MappingProxyType(
    {
        "ip": _plain("address"),
        "port": _number("port"),
        "weight": _number("weight"),
        "maxconns": _number("max_connections"),
        "minconns": _only("0"),
        "encrypted": _only("off"),
    }
)

_HTTP: Final = "it relays bytes and does not look into HTTP"
# Options of the vendor that nothing here is like, and why.
_WITHOUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("cookiename", "appsession_cookie", "http_pipeline", "redirect_code", "cookie_maxidle"),
                *("cookie_maxlife", "hsts_month", "xff_ip_pos", "http_request", "tunneltimeout"),
            ),
            _HTTP,
        ),
        "check_username": "it has no check of MySQL",
        "feedback_port": "it has no feedback agent",
        "waf_label": "it has no web application firewall",
        "service_type": "it has no web application firewall",
        "autoscale_group": "it has no autoscaling",
        "as_port": "it has no autoscaling",
        "slave_ip": "it has no second address in a cloud",
        "stunnel_source": "TLS passes through",
        "proxy_bind": "services are not chained",
    }
)
