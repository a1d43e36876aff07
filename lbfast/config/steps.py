"""The steps of a commit: what is added, changed and removed, as plain data that can also be read aloud.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbfast.model.addresses import join_address

LIVE_KEYS = ("workers", "pin_workers")
"""Of the keys outside services and log: those that a commit takes live."""


@dataclass(frozen=True)
class Step:
    """One step; ``label`` is empty where it concerns no virtual service."""

    label: str

    @property
    def kind(self) -> str:
        """Of programs: ``add_real``, ``open_listener`` ..."""
        name = type(self).__name__
        return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")

    def words(self) -> str:
        """For people, one line."""
        raise NotImplementedError


@dataclass(frozen=True)
class OpenListener(Step):
    address: str
    port: int
    slot: int

    def words(self) -> str:
        return f"listen on {join_address(self.address, self.port)} for {self.label!r}"


@dataclass(frozen=True)
class CloseListener(Step):
    address: str
    port: int
    slot: int

    def words(self) -> str:
        return f"listen no more on {join_address(self.address, self.port)} of {self.label!r}"


@dataclass(frozen=True)
class MoveListener(Step):
    """The sockets stay open; another virtual service takes what they accept."""

    address: str
    port: int
    slot: int  # of the service that has it from now on
    was: str

    def words(self) -> str:
        return f"{join_address(self.address, self.port)} goes from {self.was!r} to {self.label!r}"


@dataclass(frozen=True)
class AddService(Step):
    slot: int

    def words(self) -> str:
        return f"add virtual service {self.label!r}"


@dataclass(frozen=True)
class ChangeService(Step):
    slot: int
    keys: tuple[str, ...]
    was: str  # its label in the running configuration

    def words(self) -> str:
        name = repr(self.label) if self.was == self.label else f"{self.was!r} (now {self.label!r})"
        return f"change virtual service {name}: {', '.join(self.keys)}"


@dataclass(frozen=True)
class RemoveService(Step):
    slot: int

    def words(self) -> str:
        return f"remove virtual service {self.label!r}"


@dataclass(frozen=True)
class AddReal(Step):
    real: str
    slot: int

    def words(self) -> str:
        return f"add {self.label!r} / {self.real!r}"


@dataclass(frozen=True)
class ChangeReal(Step):
    real: str
    slot: int
    keys: tuple[str, ...]
    was: str

    def words(self) -> str:
        name = repr(self.real) if self.was == self.real else f"{self.was!r} (now {self.real!r})"
        return f"change {self.label!r} / {name}: {', '.join(self.keys)}"


@dataclass(frozen=True)
class RemoveReal(Step):
    real: str
    slot: int
    service_slot: int

    def words(self) -> str:
        return f"remove {self.label!r} / {self.real!r}"


@dataclass(frozen=True)
class ChangeCheck(Step):
    slot: int
    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change the health check of {self.label!r}: {', '.join(self.keys)}"


@dataclass(frozen=True)
class ChangeLog(Step):
    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change the log: {', '.join(self.keys)}"


@dataclass(frozen=True)
class ChangePair(Step):
    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change how the pair watches itself: {', '.join(self.keys)}"


@dataclass(frozen=True)
class ChangeWeb(Step):
    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change the web interface: {', '.join(self.keys)}" if self.keys else "switch the web interface off"


@dataclass(frozen=True)
class ChangeUpkeep(Step):
    """Of what watches and saves: no client notices."""

    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change the settings of {' and '.join(self.keys)}"


@dataclass(frozen=True)
class ChangeWorkers(Step):
    keys: tuple[str, ...]

    def words(self) -> str:
        return f"change {' and '.join(self.keys)}"
