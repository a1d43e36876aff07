"""What control can ask of the ha process, on behalf of an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lbfast._shm import now_ms
from lbfast.config.former import load_former
from lbfast.control.protocol import ControlError
from lbfast.ha.door import Handler
from lbfast.ha.election import Facts, HaState, Peer, Standing, Surroundings
from lbfast.ha.link import own_fingerprint
from lbfast.ha.pair_file import Maintenance, load_maintenance, save_maintenance, save_pair
from lbfast.ha.pairing import check_addresses
from lbfast.ha.password import PasswordFile
from lbfast.ha.paths import add_path, check_path, drop_path
from lbfast.ha.status import BoxFacts, Readiness, compare_reach, judge_readiness
from lbfast.ha.web_user import WebUser

if TYPE_CHECKING:
    from lbfast.ha.duty import Duty
    from lbfast.ha.process import HaProcess
    from lbfast.ha.timing import Timing

Result = dict[str, Any]
_LOOK_S = 0.02


class HaVerbs:
    """Each is a question and its answer as plain data; ControlError when it is refused."""

    def __init__(self, process: HaProcess) -> None:
        self._process = process

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "status": self.status,
            "takeover": self.takeover,
            "maintenance": self.maintenance,
            "path": self.path,
            "password": self.password,
            "replicate": self._process.sync.replicate,
            "replicated": self._process.sync.replicated,
            "confirmed": self._process.sync.confirmed,
            "pair": self._process.desk.pair,
            "unpair": self._process.desk.unpair,
        }

    async def status(self) -> Result:
        """Role, state, readiness, the peer, the replication."""
        duty, pair = self._process.duty, self._process.pair
        if duty is None or pair is None:
            return standalone(has_addresses=load_former(self._process.setup.state_dir) is None)
        now = now_ms()
        heard = _peer(duty, now) is not Peer.SILENT
        replication = self._replication()
        readiness = self._readiness(duty, heard, replication)
        ours, theirs = self._process.facts(), self._process.peer_facts
        return {
            "role": pair.role,
            "state": duty.state(now).value,
            "ready": readiness.is_ready,
            "reasons": list(readiness.reasons),
            "differences": list(readiness.differences),
            "objections": list(readiness.reasons) if heard and not duty.is_active else [],
            "level": duty.steady.level,
            "maintenance": _maintenance(load_maintenance(self._process.setup.state_dir)),
            "local": pair.local,
            "name": ours["name"],
            "version": ours["version"],
            "fingerprint": own_fingerprint(self._process.setup.state_dir),
            "peer": {
                **_describe_peer(duty, pair.peer, now, heard),
                "name": pair.peer_name,
                "version": theirs.get("version"),
                "fingerprint": pair.peer_fingerprint,
            },
            "servers": compare_reach(ours["servers"], theirs.get("servers", ())),
            "replication": replication,
            "paths": [_describe_path(path, duty, now) for path in duty.beats.paths],
            "heartbeats": _describe_heartbeats(duty),
            "timing": describe_timing(duty.timing),
            "addresses": sorted(str(address) for address, _ in self._process.plan.wanted),
            "moves": [
                {
                    "ago_ms": now - at,
                    "from": move.before.name.lower(),
                    "to": move.after.name.lower(),
                    "why": move.because,
                }
                for at, move in duty.moves
            ],
        }

    async def takeover(self, reason: str = "", by: str = "", force: bool = False) -> Result:
        """Make this box active; answered when it is, or when it could not be."""
        order = f"takeover ordered by {by or 'an operator'}" + (f": {reason}" if reason else "")
        if self._process.pair is None and load_former(self._process.setup.state_dir) is not None:
            return await self._process.desk.take_addresses(order)
        duty = self._duty()
        if duty.is_active:
            raise ControlError("refused", "this box is active already; give the order on its peer")
        before = duty.judgement
        if duty.steady.level == 0:
            raise ControlError("refused", f"this box cannot serve: {'; '.join(before.reasons)}")
        against = self.objections(duty)
        if against and not force:
            raise ControlError("refused", "not ready to take over: " + "; ".join(against) + " (--force does it anyway)")
        self._process.tell(order)
        started = now_ms()
        self._process.mover.giver.forget()
        await self._process.mover.taker.fetch()
        duty.order(now_ms())
        while not duty.is_active and now_ms() - started < duty.timing.order_ms:
            await asyncio.sleep(_LOOK_S)
        if not duty.is_active:
            await self._process.mover.taker.give_up()
            raise ControlError("refused", "the peer did not let go in time; it stays active")
        return {"state": duty.state(now_ms()).value, "took_ms": now_ms() - started}

    def objections(self, duty: Duty) -> tuple[str, ...]:
        """What stands against this box taking over in good order; nothing where there is nobody to take over from.

        A peer that is not heard leaves it to the table.
        """
        if duty.is_active or _peer(duty, now_ms()) is Peer.SILENT:
            return ()
        return self._readiness(duty, True, self._replication()).reasons

    async def maintenance(self, on: bool, by: str = "", at: str = "", reason: str = "") -> Result:
        """While on, this box takes no addresses; an active one hands over first."""
        duty = self._duty()
        if on and duty.is_active and _peer(duty, now_ms()) is not Peer.PASSIVE:
            raise ControlError(
                "refused", "this box is active and its peer cannot take over: clients would lose service"
            )
        kept = Maintenance(by, at, reason) if on else None
        save_maintenance(self._process.setup.state_dir, kept)
        duty.is_in_maintenance = on
        self._process.tell(f"maintenance {'begun' if on else 'ended'} by {by or 'an operator'}: {reason}")
        return {"maintenance": _maintenance(kept)}

    async def path(self, what: str, local: str, peer: str, by: str = "") -> Result:
        """Add or remove a further way of the heartbeats, on this box; it counts at once."""
        process, pair = self._process, self._process.pair
        if pair is None:
            raise ControlError("refused", "this box has no peer; `lbfast ha pair` makes a pair")
        local, peer = check_path(local, peer)
        if what == "add":
            check_addresses(local, peer)
            changed = add_path(pair, local, peer, {address for address, _ in process.plan.wanted})
        else:
            changed = drop_path(pair, local, peer)
        save_pair(process.setup.state_dir, changed)
        process.use_paths(changed)
        process.tell(f"path {local} - {peer} {'added' if what == 'add' else 'removed'} by {by or 'an operator'}")
        return {"paths": [list(way) for way in changed.all_paths]}

    async def password(self, password: str) -> Result:
        """With which another box may make this one its secondary, where no web user has one."""
        process = self._process
        if process.plan.settings.pairing and WebUser(process.setup.state_dir).challenge() is not None:
            raise ControlError(
                "refused", "the web user loadbalancer has a password: that is the one which a pairing asks for"
            )
        try:
            PasswordFile(self._process.setup.state_dir).set(password)
        except ValueError as error:
            raise ControlError("bad_argument", str(error)) from None
        return {}

    def _replication(self) -> Result:
        linking = self._process.linking
        current = None if linking is None else linking.current
        if current is None:
            trouble = "" if linking is None else linking.trouble
            return {"linked": False, "synced": False, "lag_entries": None, "lag_ms": None, "trouble": trouble}
        replica = self._process.replica
        ours = {"entries": current.lag_entries, "ms": current.lag_ms}
        # The entries are the active box's, and so is what is known of their way.
        lag = ours if current.is_active() else self._process.peer_facts.get("lag", ours)
        return {
            "linked": True,
            "synced": current.is_synced,
            "lag_entries": lag["entries"],
            "lag_ms": lag["ms"],
            "resyncs": current.resyncs,
            "last_resync": current.last_resync,
            "sent": current.sent_entries,
            "applied": replica.applied,
            "unknown": replica.unknown,
            "kept": replica.kept,
            "no_room": replica.no_room,
            "trouble": "",
        }

    def _readiness(self, duty: Duty, heard: bool, replication: Result) -> Readiness:
        """Of the passive box of the two, whichever it is."""
        ours, theirs = BoxFacts.of(self._process.facts()), BoxFacts.of(self._process.peer_facts)
        beat = duty.memory.beat
        passive, active = (theirs, ours) if duty.is_active else (ours, theirs)
        level = duty.steady.level if not duty.is_active else 0 if beat is None else beat.level
        return judge_readiness(
            passive=passive,
            active=active,
            peer_heard=heard,
            passive_level=level,
            passive_reasons=() if duty.is_active else duty.judgement.reasons,
            is_linked=bool(replication["linked"]),
            is_synced=bool(replication["synced"]),
            lag_ms=replication["lag_ms"] or 0,
            link_trouble=str(replication["trouble"]),
            unread=duty.beats.guard.unread,
        )

    def _duty(self) -> Duty:
        if self._process.duty is None:
            raise ControlError("refused", "this box has no peer; `lbfast ha pair` makes a pair")
        return self._process.duty


def standalone(*, has_addresses: bool) -> Result:
    """The status of a box without a pair; control says more."""
    return {
        "role": "standalone",
        "state": (HaState.ACTIVE if has_addresses else HaState.PASSIVE).value,
        "ready": False,
        "reasons": ["this box has no peer"],
        "peer": None,
        "replication": {"lag_entries": None, "lag_ms": None},
    }


def _peer(duty: Duty, now: int) -> Peer:
    return Facts(now, duty.memory, Surroundings(1), duty.timing).peer


def _describe_peer(duty: Duty, address: str, now: int, heard: bool) -> Result:
    beat, heard_at = duty.memory.beat, duty.memory.heard_at
    return {
        "address": address,
        "heard": heard,
        "silent_ms": None if heard_at is None else now - heard_at,
        "standing": None if beat is None else Standing(beat.standing).name.lower(),
        "level": None if beat is None else beat.level,
        "hears_us": None if beat is None else beat.hears,
    }


def _describe_path(path: Any, duty: Duty, now: int) -> Result:
    silent = None if path.heard_at is None else now - path.heard_at
    return {
        "local": path.local,
        "peer": path.peer,
        "via": path.via,
        "heard": silent is not None and silent < duty.timing.dead_ms,
        "silent_ms": silent,
        "sent": path.sent,
        "send_failures": path.refused,
        "trouble": path.trouble,
    }


def _describe_heartbeats(duty: Duty) -> Result:
    late, peer_late = duty.late, duty.beats.peer_late
    return {
        **duty.beats.guard.counts,
        "own_late": late.count,
        "own_late_most_ms": late.most_ms,
        "peer_late": peer_late.count,
        "peer_late_most_ms": peer_late.most_ms,
    }


def describe_timing(timing: Timing) -> Result:
    """What interval and missed come to."""
    least, most = timing.takeover_ms
    return {
        "interval_ms": timing.interval_ms,
        "dead_ms": timing.dead_ms,
        "takeover_least_ms": least,
        "takeover_most_ms": most,
    }


def _maintenance(kept: Maintenance | None) -> Result | None:
    return None if kept is None else {"by": kept.by, "at": kept.at, "reason": kept.reason}
