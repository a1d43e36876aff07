"""Automatic failback: when the primary should ask for the addresses again.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbfast.model.pair import HaSettings


def is_in_window(begin: str, end: str, clock: str) -> bool:
    """Whether a time of day lies between two; a window may reach over midnight."""
    if begin <= end:
        return begin <= clock < end
    return clock >= begin or clock < end


@dataclass
class Failback:
    """``turn`` is True once when it is time; the order may fail, then it is tried again after another delay."""

    well_since: int | None = None

    def turn(self, settings: HaSettings, now_ms: int, clock: str, *, could: bool) -> bool:
        """``could``: this is the primary, passive, fit, and its peer is active; ``clock``: local time, HH:MM."""
        if not settings.auto_failback or not could:
            self.well_since = None
            return False
        if self.well_since is None:
            self.well_since = now_ms
        if now_ms - self.well_since < settings.failback_delay:
            return False
        if not is_in_window(settings.failback_from, settings.failback_until, clock):
            return False
        self.well_since = now_ms
        return True
