"""What this machine refuses of a configuration that is valid in itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One setting that cannot be followed here."""

    service: int  # position of the virtual service in the file
    key: str  # with a dot before a key of a table inside: "health_check.source_address"
    found: str
    expected: str

    @property
    def path(self) -> tuple[str | int, ...]:
        """The key as the configuration's errors name it."""
        return ("virtual_service", self.service, *self.key.split("."))
