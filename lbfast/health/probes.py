"""Make one probe of one real server, whatever its type, within its timeout."""

from __future__ import annotations

import ipaddress

from lbfast.health import external, http
from lbfast.health.certificates import Certificate, read_certificate
from lbfast.health.deadline import within
from lbfast.health.outcome import ProbeFailed, ProbeResult, ProbeUnmade
from lbfast.health.spec import ProbeSpec, ProbeType
from lbfast.health.text import clean
from lbfast.health.trace import Phase, Trace
from lbfast.health.wire import TcpWire, TlsWire, connect, make_context


class Prober:
    """Makes probes; holds what they share.  Never raises for what a server does."""

    def __init__(self) -> None:
        self._tls = make_context()

    async def probe(self, spec: ProbeSpec, trace: Trace | None = None) -> ProbeResult:
        """One result within ``spec.timeout_ms``; ``trace``, a new one, tells afterwards what was seen on the way."""
        trace, ok, is_local = trace or Trace(), False, False
        try:
            async with within(spec.timeout_ms / 1000):
                reason = await self._run(spec, trace)
                ok = True
        except TimeoutError:
            reason = f"{trace.doing}: no answer within {spec.timeout_ms} ms"
        except ProbeFailed as error:
            reason = str(error)
        except ProbeUnmade as error:
            reason, is_local = f"probe could not be made: {error}", True
        if not ok:
            trace.saw(reason, ok=False)
        return ProbeResult(ok, round(trace.elapsed_ms()), clean(reason), trace.certificate, is_local)

    async def _run(self, spec: ProbeSpec, trace: Trace) -> str:
        if spec.type is ProbeType.NONE:
            return "not checked"
        if spec.type is ProbeType.EXTERNAL:
            trace.begin(Phase.SCRIPT, "script")
            seen = await external.run_script(spec)
            trace.saw(seen)
            return seen
        tcp = await connect(spec.address, spec.port, spec.source_address)
        try:
            trace.saw(f"connected to {place_of(spec)}")
            if spec.type is ProbeType.CONNECT:
                return "connected"
            if spec.type is ProbeType.HTTP:
                trace.begin(Phase.REQUEST, f"HTTP {spec.method} {spec.path}")
                return await http.ask(tcp, spec, trace)
            return await self._run_tls(tcp, spec, trace)
        finally:
            tcp.close()

    async def _run_tls(self, tcp: TcpWire, spec: ProbeSpec, trace: Trace) -> str:
        trace.begin(Phase.TLS, "TLS handshake")
        tls = TlsWire(tcp, self._tls, server_name(spec))
        await tls.handshake()
        der = tls.peer_certificate()
        trace.certificate = read_certificate(der) if der else None
        try:
            trace.saw(f"{tls.version()}, {_named(trace.certificate)}")
            if spec.type is ProbeType.TLS:
                return f"TLS handshake done, {tls.version()}"
            trace.begin(Phase.REQUEST, f"HTTPS {spec.method} {spec.path}")
            return await http.ask(tls, spec, trace)
        finally:
            tls.finish()


def place_of(spec: ProbeSpec) -> str:
    """``10.0.0.1:443``, ``[::1]:443``."""
    return f"[{spec.address}]:{spec.port}" if ":" in spec.address else f"{spec.address}:{spec.port}"


def _named(certificate: Certificate | None) -> str:
    if certificate is None:
        return "no certificate"
    return f"certificate {certificate.subject or '(no subject)'}"


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
