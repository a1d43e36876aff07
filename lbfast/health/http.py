"""Ask a server one HTTP/1.1 question over a wire and judge the answer."""

from __future__ import annotations

import asyncio
import zlib

import h11

from lbfast import __version__
from lbfast.health.outcome import ProbeFailed
from lbfast.health.search import SearchTooSlow, search
from lbfast.health.spec import ProbeSpec
from lbfast.health.text import clean, fit, quote
from lbfast.health.trace import Phase, Trace
from lbfast.health.wire import Wire

MAX_HEAD = 32_768  # bytes received before the status line and headers are complete
MAX_BODY = 65_536  # bytes of the body that are looked at, before and after decompression
LINGER_S = 0.1  # how long to wait for the rest of a body nobody looks at, to close politely


async def ask(wire: Wire, spec: ProbeSpec, trace: Trace) -> str:
    """What was seen (``HTTP 200``), or ProbeFailed; each step goes into ``trace``."""
    link = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    await wire.write(_render_request(link, spec))
    trace.saw(f"{spec.method} {fit(spec.path, 200)} sent, Host {spec.host or _host_of(spec)}")
    trace.begin(Phase.STATUS, trace.doing)
    response = await _read_head(wire, link)
    trace.saw(_status_line(response))
    _judge_status(response, spec)
    trace.saw(f"status {response.status_code} is one of {render_status(spec.expected_status)}")
    seen = f"HTTP {response.status_code}"
    if spec.expected_text is None and spec.expected_regex is None:
        await _read_rest_politely(wire, link)
        return seen
    trace.begin(Phase.BODY, trace.doing)
    body, is_whole = await _read_body(wire, link)
    trace.saw(f"{len(body)} bytes read" + ("" if is_whole else ", more is not looked at"))
    _judge_body(_decode(response, body), spec, is_whole)
    trace.saw("text found")
    return f"{seen}, text found"


def _status_line(response: h11.Response) -> str:
    """As it came, and what the answer says of its body."""
    line = f"HTTP/{response.http_version.decode('latin-1')} {response.status_code} {response.reason.decode('latin-1')}"
    kind = _header(response, b"content-type")
    return fit(clean(line), 100) + (f", Content-Type {fit(clean(kind.decode('latin-1')), 80)}" if kind else "")


def _host_of(spec: ProbeSpec) -> str:
    return f"[{spec.address}]" if ":" in spec.address else spec.address


def _render_request(link: h11.Connection, spec: ProbeSpec) -> bytes:
    headers = [
        ("Host", spec.host or _host_of(spec)),
        ("User-Agent", f"lbfast/{__version__} health check"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    try:
        head = link.send(h11.Request(method=spec.method, target=spec.path, headers=headers))
    except h11.LocalProtocolError as error:
        raise ProbeFailed(f"the request cannot be sent: {error} (check method, path and host)") from error
    return (head or b"") + (link.send(h11.EndOfMessage()) or b"")


async def _read_head(wire: Wire, link: h11.Connection) -> h11.Response:
    received, first = 0, b""
    while True:
        try:
            event = link.next_event()
        except h11.RemoteProtocolError as error:
            raise ProbeFailed(_protocol_reason(error, first, received)) from error
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = await wire.read()
            first, received = first or data, received + len(data)
            if received > MAX_HEAD:
                raise ProbeFailed(_too_long(first))
            if not data and not received:
                raise ProbeFailed("HTTP: the server closed the connection without an answer")
            link.receive_data(data)


def _protocol_reason(error: h11.RemoteProtocolError, first: bytes, received: int) -> str:
    if received >= MAX_HEAD or not _is_http(first):
        return _too_long(first)
    return f"HTTP: bad answer ({clean(str(error))}): {quote(first)}"


def _too_long(first: bytes) -> str:
    if _is_http(first):
        return f"HTTP: headers do not end within {MAX_HEAD} bytes"
    return f"HTTP: the server does not speak HTTP/1, it said {quote(first)}"


def _is_http(first: bytes) -> bool:
    return b"HTTP/".startswith(first[:5])


def _judge_status(response: h11.Response, spec: ProbeSpec) -> None:
    status = response.status_code
    if status in spec.expected_status:
        return
    wanted = f"expected {render_status(spec.expected_status)}"
    if 300 <= status < 400:
        location = _header(response, b"location")
        target = fit(clean(location.decode("latin-1")), 100) if location else "nowhere (no Location)"
        raise ProbeFailed(f"HTTP {status} redirects to {target}, {wanted}")
    phrase = fit(clean(response.reason.decode("latin-1")), 40)
    raise ProbeFailed(f"HTTP {status}{' ' + phrase if phrase else ''}, {wanted}")


def render_status(expected: frozenset[int]) -> str:
    """``200-299,401``."""
    parts: list[str] = []
    left = sorted(expected)
    while left:
        length = next((i for i in range(1, len(left)) if left[i] != left[0] + i), len(left))
        parts.append(str(left[0]) if length == 1 else f"{left[0]}-{left[length - 1]}")
        left = left[length:]
    return ",".join(parts)


def _header(response: h11.Response, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key == name), None)


async def _read_body(wire: Wire, link: h11.Connection) -> tuple[bytes, bool]:
    """The first MAX_BODY bytes, and whether that is all."""
    body = bytearray()
    while len(body) <= MAX_BODY:
        try:
            event = link.next_event()
            if event is h11.NEED_DATA:
                link.receive_data(await wire.read())
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                return bytes(body), True
        except h11.RemoteProtocolError as error:
            raise ProbeFailed(f"HTTP: the body breaks off after {len(body)} bytes ({clean(str(error))})") from error
    return bytes(body[:MAX_BODY]), False


async def _read_rest_politely(wire: Wire, link: h11.Connection) -> None:
    """The verdict stands.  Closing with unread bytes would reset the connection and fill the server's log."""
    try:
        async with asyncio.timeout(LINGER_S):
            await _read_body(wire, link)
    except (ProbeFailed, TimeoutError):
        pass  # the status was right; what the body does after that was not asked


def _decode(response: h11.Response, body: bytes) -> str:
    encoding = (_header(response, b"content-encoding") or b"identity").strip().lower()
    if encoding in (b"gzip", b"x-gzip", b"deflate"):
        try:
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_BODY)
        except zlib.error as error:
            raise ProbeFailed(f"HTTP: the body says {encoding.decode()} but does not decompress ({error})") from error
    elif encoding != b"identity":
        raise ProbeFailed(f"HTTP: body in encoding {quote(encoding)} although identity was asked; cannot look for text")
    return body.decode("utf-8", "replace")


def _judge_body(text: str, spec: ProbeSpec, is_whole: bool) -> None:
    place = f"in {len(text)} characters" if is_whole else f"in the first {MAX_BODY} bytes"
    if spec.expected_text is not None and spec.expected_text not in text:
        raise ProbeFailed(f"HTTP: text {fit(spec.expected_text, 60)!r} not found {place}")
    if spec.expected_regex is None:
        return
    shown = fit(spec.expected_regex.pattern, 60)
    try:
        is_found = search(spec.expected_regex, text)
    except SearchTooSlow as error:
        raise ProbeFailed(f"HTTP: regex {shown!r} is too slow on this page, simplify it") from error
    if not is_found:
        raise ProbeFailed(f"HTTP: regex {shown!r} not found {place}")
