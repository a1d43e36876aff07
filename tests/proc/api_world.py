"""An lbfast with a web interface, and a client of its API."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness import Lbfast, free_port, real_server, scaled, virtual_service

PASSWORD = "correct horse battery staple 9"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """Calls with an API key."""

    port: int
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=scaled(30), context=context)
        given = self.headers | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        if body is not None and not isinstance(body, bytes):
            body, given["content-type"] = json.dumps(body).encode(), "application/json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(connection):
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, None, **headers)

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON of a call that must succeed."""
        answer = self.call(method, path, body, **headers)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:2_000]!r}"
        return answer.json


def basic(user: str, password: str, key: str) -> dict[str, str]:
    """The headers of the vendor's API."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {login}", "x-lb-apikey": base64.b64encode(key.encode()).decode()}


@contextmanager
def web_lbfast(**settings: Any) -> Iterator[tuple[Lbfast, Api]]:
    """lbfast with one virtual service and a web interface; the Api has a key that may configure."""
    port = free_port()
    services = settings.pop("services", None)
    if services is None:
        services = [virtual_service(free_port(), [real_server("Server 1", free_port())])]
    is_noisy = settings.pop("allow_stderr", False)
    config = {
        "workers": 1,
        "log": {"target": "none"},
        "web": {"address": "127.0.0.1", "port": port},
        "ha": {"pairing": False},
        "virtual_service": services,
    }
    with Lbfast(config | settings, allow_stderr=is_noisy) as lbfast:
        yield lbfast, Api(port, make_key(lbfast, "configure"))


def make_key(lbfast: Lbfast, role: str) -> str:
    key: str = lbfast.json("apikey", "create", "--role", role)["key"]
    return key
