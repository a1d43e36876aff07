"""The stages of a supervisor's life, and how long each may take."""

from __future__ import annotations

from enum import Enum, auto

START_WITHIN = 60.0  # workers and control; first verdicts take as long as the health checks say
CUT_WITHIN = 3.0  # from the cut to the end of the workers
LEAVE_WITHIN = 5.0  # control writes the last events to the log
ANNOUNCE_AGAIN = (1.0, 5.0)  # an announcement can be lost, or come while a switch is still learning


class State(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()  # workers end
    LEAVING = auto()  # control and health end
    GONE = auto()
