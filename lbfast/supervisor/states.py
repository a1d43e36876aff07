"""Where the supervisor is between its first fork and its last reaped child."""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()  # workers end
    LEAVING = auto()  # control and health end
    GONE = auto()
