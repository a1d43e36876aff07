"""Where the supervisor is between its first fork and its last reaped child, and how long each may take."""

from __future__ import annotations

from enum import Enum, auto

START_WITHIN = 60.0  # workers and control; first verdicts take as long as the health checks say
CUT_WITHIN = 3.0  # from the cut to the end of the workers
LEAVE_WITHIN = 5.0  # control writes the last events to the log


class State(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()  # workers end
    LEAVING = auto()  # control and health end
    GONE = auto()
