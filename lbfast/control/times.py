"""Moments and durations in words, for people."""

from __future__ import annotations

from datetime import datetime


def moment(iso: str) -> str:
    """A time for people: local, to the second."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A duration in words of at most two units: ``2 h 5 min``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"
