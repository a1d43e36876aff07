"""The verbs of the pair: status, pair, unpair, takeover, maintenance, path, password."""

from __future__ import annotations

from typing import Any

from lbfast.control.engine import Caller, Engine
from lbfast.control.pair import STANDALONE, PairLine
from lbfast.control.protocol import ControlError

Result = dict[str, Any]


async def status(engine: Engine) -> Result:
    return dict(STANDALONE) if engine.pair is None else await engine.pair.status()


async def pair(engine: Engine, caller: Caller, local: str, peer: str, password: str, overwrite: bool = False) -> Result:
    line = _line(engine)
    await line.ensure_running()
    result = await line.ask("pair", 40.0, local=local, peer=peer, password=password, overwrite=overwrite)
    engine.announce(f"paired with {peer} by {caller.user}")
    return result


async def unpair(engine: Engine, caller: Caller, force: bool = False) -> Result:
    result = await _line(engine).ask("unpair", 70.0, force=force)
    engine.announce(f"the pair was ended by {caller.user}")
    return result


async def takeover(engine: Engine, caller: Caller, reason: str = "", force: bool = False) -> Result:
    line = _line(engine)
    if line.former is not None:
        await line.ensure_running()
    return await line.ask("takeover", 60.0, reason=reason, by=caller.user, force=force)


async def maintenance(engine: Engine, caller: Caller, on: bool, reason: str = "") -> Result:
    at = engine.clock.now_iso()
    return await _line(engine).ask("maintenance", 10.0, on=on, by=caller.user, at=at, reason=reason)


async def path(engine: Engine, caller: Caller, what: str, local: str, peer: str) -> Result:
    """Of this box alone: the peer has its own end to add or remove."""
    if what not in ("add", "remove"):
        raise ControlError("bad_argument", f"a path is added or removed: add or remove, got {what[:40]!r}")
    return await _line(engine).ask("path", 10.0, what=what, local=local, peer=peer, by=caller.user)


async def password(engine: Engine, caller: Caller, password: str) -> Result:
    """From now on this box can be asked to become a secondary."""
    line = _line(engine)
    await line.ensure_running()
    result = await line.ask("password", 10.0, password=password)
    engine.announce(f"the pairing password was set by {caller.user}")
    return result


def _line(engine: Engine) -> PairLine:
    if engine.pair is None:
        raise ControlError("refused", "this control process has no supervisor: there can be no pair")
    return engine.pair
