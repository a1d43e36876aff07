"""Make one probe of one real server, whatever its type, within its timeout."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass

from lbfast.health import external, http
from lbfast.health.certificates import Certificate, read_certificate
from lbfast.health.outcome import ProbeFailed, ProbeResult, ProbeUnmade
from lbfast.health.spec import ProbeSpec, ProbeType
from lbfast.health.text import clean
from lbfast.health.wire import TcpWire, TlsWire, connect, make_context


@dataclass(slots=True)
class _Progress:
    """How far a probe has come: the words for a timeout, and what was seen until then."""

    doing: str = "connect"
    certificate: Certificate | None = None


class Prober:
    """Makes probes; holds what they share.  Never raises for what a server does."""

    def __init__(self) -> None:
        self._tls = make_context()

    async def probe(self, spec: ProbeSpec) -> ProbeResult:
        """One result within ``spec.timeout_ms``."""
        started = time.monotonic()
        progress, ok, is_local = _Progress(), False, False
        try:
            async with asyncio.timeout(spec.timeout_ms / 1000):
                reason = await self._run(spec, progress)
                ok = True
        except TimeoutError:
            reason = f"{progress.doing}: no answer within {spec.timeout_ms} ms"
        except ProbeFailed as error:
            reason = str(error)
        except ProbeUnmade as error:
            reason, is_local = f"probe could not be made: {error}", True
        duration_ms = round((time.monotonic() - started) * 1000)
        return ProbeResult(ok, duration_ms, clean(reason), progress.certificate, is_local)

    async def _run(self, spec: ProbeSpec, progress: _Progress) -> str:
        if spec.type is ProbeType.NONE:
            return "not checked"
        if spec.type is ProbeType.EXTERNAL:
            progress.doing = "script"
            return await external.run_script(spec)
        tcp = await connect(spec.address, spec.port, spec.source_address)
        try:
            if spec.type is ProbeType.CONNECT:
                return "connected"
            if spec.type is ProbeType.HTTP:
                progress.doing = f"HTTP {spec.method} {spec.path}"
                return await http.ask(tcp, spec)
            return await self._run_tls(tcp, spec, progress)
        finally:
            tcp.close()

    async def _run_tls(self, tcp: TcpWire, spec: ProbeSpec, progress: _Progress) -> str:
        progress.doing = "TLS handshake"
        tls = TlsWire(tcp, self._tls, server_name(spec))
        await tls.handshake()
        der = tls.peer_certificate()
        progress.certificate = read_certificate(der) if der else None
        try:
            if spec.type is ProbeType.TLS:
                return f"TLS handshake done, {tls.version()}"
            progress.doing = f"HTTPS {spec.method} {spec.path}"
            return await http.ask(tls, spec)
        finally:
            tls.finish()


def server_name(spec: ProbeSpec) -> str | None:
    """The name for SNI: the configured one, or the host's name without its port; an address is no name."""
    if spec.sni:
        return spec.sni
    name = (spec.host or "").partition(":")[0] if not (spec.host or "").startswith("[") else ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name or None
    return None
