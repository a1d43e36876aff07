"""An lbfast with a web interface, and a plain HTTPS client of it that behaves as badly as a test wants."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness import Lbfast, free_port, render_toml
from waiting import scaled, wait_for

PASSWORD = "correct horse battery"
HOME = "/lbadmin/"


@contextmanager
def web_lbfast(services: Sequence[Mapping[str, Any]] = (), *, with_password: bool = True, **more: Any) -> Iterator[Web]:
    """READY, with the web interface on a port of its own; without a password it is a first start."""
    port = free_port()
    rest: dict[str, Any] = {"virtual_service": list(services)} if services else {}
    text = f'[web]\naddress = "127.0.0.1"\nport = {port}\n[log]\ntarget = "none"\n[ha]\npairing = false\n'
    lb = Lbfast("workers = 1\n" + text + render_toml(rest), **more)
    with lb:
        web = Web(lb, port)
        if with_password:
            web.set_password("loadbalancer", PASSWORD)
        yield web


class Web:
    """The web interface of a running lbfast."""

    def __init__(self, lb: Lbfast, port: int) -> None:
        self.lb = lb
        self.port = port
        self.url = f"https://127.0.0.1:{port}"

    def set_password(self, user: str, password: str) -> None:
        file = Path(self.lb.directory) / "password"
        file.write_text(password)
        code, _, err = self.lb.cli("passwd", user, "--password-file", str(file))
        assert code == 0, err

    @property
    def setup_code(self) -> str:
        """What the console shows at the first start."""
        found = wait_for(lambda: [it for it in self.lb.lines if it.startswith("SETUP")], 20, "the setup link")
        return found[0].rpartition("code=")[2]

    def client(self, source: str = "127.0.0.1") -> Client:
        return Client(self.port, source)


class Answer:
    """Of one request; ``location`` and ``cookie`` for convenience."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode("utf-8", "replace")

    @property
    def location(self) -> str:
        return self.headers.get("location", "")

    @property
    def cookie(self) -> str:
        found = re.search(r"(__Host-lbfast=[^;]*)", self.headers.get("set-cookie", ""))
        return found[1] if found else ""

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        assert found, self.text[:2000]
        return found[1]


class Client:
    """A browser without manners: every header is the test's own choice."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.port = port
        self.source = source
        self.cookie = ""
        self.context = ssl._create_unverified_context()

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=scaled(20), context=self.context, source_address=(self.source, 0)
        )
        try:
            sent = {**({"Cookie": self.cookie} if self.cookie else {}), **(headers or {})}
            connection.request(method, path, body, sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> Answer:
        sent = {"Content-Type": "application/x-www-form-urlencoded"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, urlencode(form), sent)

    def login(self, user: str = "loadbalancer", password: str = PASSWORD, **more: str) -> Answer:
        answer = self.post("/lbadmin/login", {"user": user, "password": password, **more})
        self.cookie = answer.cookie or self.cookie
        return answer

    def csrf(self) -> str:
        """The token of this session, as a page has it."""
        return self.get("/lbadmin/account").csrf
