"""What the demo writes: its configuration and its words; pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SERVICE = "Symphony"
SERVERS = ("Symphony Server 1", "Symphony Server 2", "Symphony Server 3")


@dataclass(frozen=True)
class Served:
    """A running demo server."""

    name: str
    port: int
    pid: int


def render_config(port: int, web: int, servers: Sequence[Served]) -> str:
    """The demo's configuration as an operator would write it."""
    text = f"""# Made by `lbfast demo`.
[web]
address = "127.0.0.1"
port = {web}

[ha]
pairing = false    # nobody makes a demo their secondary

[[virtual_service]]
label = {_toml(SERVICE)}
address = "127.0.0.1"
ports = "{port}"
mode = "tcp"
persistence = {{ mode = "source_ip", timeout = "30m" }}
health_check = {{ type = "https", path = "/health", interval = "1s", timeout = "1s", rise = 2, fall = 2 }}
"""
    for server in servers:
        text += f"""
  [[virtual_service.real_server]]
  label = {_toml(server.name)}
  address = "127.0.0.1"
  port = {server.port}
"""
    return text


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a basic TOML string


def render_welcome(port: int, link: str, servers: Sequence[Served], program: str, exports: Mapping[str, str]) -> str:
    """What to try, ready to be copied into a second terminal."""
    url = f"https://127.0.0.1:{port}/"
    first = servers[0]
    width = max(len(server.name) for server in servers)
    running = "\n".join(
        f"  {server.name:<{width}}  https://127.0.0.1:{server.port}/  pid {server.pid}" for server in servers
    )
    env = "".join(f"  export {name}={shlex.quote(value)}\n" for name, value in exports.items())
    drain = f"{program} drain {shlex.quote(SERVICE)} {shlex.quote(first.name)}"
    return f"""
Virtual service "{SERVICE}" listens on {url} and spreads clients over

{running}

In a browser (the certificate is self-signed, the link works once):

  {link}

In a second terminal:

{env}
  curl -k {url}                          # each client keeps its server
  curl -k --interface 127.0.0.2 {url}    # another client, and so on: 127.0.0.3 ...
  {program} overview
  {program} explain {SERVICE} 127.0.0.1
  {drain} --reason "try it"
  {drain.replace(" drain ", " online ", 1)}
  kill {first.pid}          # kill a server for good; or
  kill -STOP {servers[-1].pid}    # let one hang, and come back with kill -CONT {servers[-1].pid}
  {program} top

Live events (Ctrl-C ends the demo):
"""
