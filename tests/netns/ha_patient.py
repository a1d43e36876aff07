"""lbfast, whose move of connections may take its time: on a loaded machine one that is too slow is given up.

``ha_patient.py python -m lbfast ...``.  The order of the limits is kept: the taker gives up before the giver goes on.
"""

from __future__ import annotations

import runpy
import sys

from lbfast.ha import collecting, doors, giving, taking
from lbfast.supervisor import life, worker

ALL_SENT_S = 2.0  # by the workers
ANSWERED_S = 2.5
TAKEN_MS, KEPT_MS = 3000, 3500
STOPPED_S = 5.0  # a clean stop cuts what is left


def be_patient() -> None:
    """Patched before the first fork, so that every child has it."""
    collecting.COLLECT_S = doors._OPEN_S = ALL_SENT_S
    worker._GIVE_WITHIN = ALL_SENT_S - 0.1
    giving.ASK_S = taking.ASK_S = ANSWERED_S
    taking.TAKE_WITHIN_MS, giving.KEEP_AFTER_MS = TAKEN_MS, KEPT_MS
    life.STOP_GRACE = worker.STOP_GRACE = STOPPED_S


if __name__ == "__main__":
    _, _, _, _, *words = sys.argv
    if words[:1] == ["run"]:
        be_patient()
    sys.argv = ["lbfast", *words]
    runpy.run_module("lbfast", run_name="__main__", alter_sys=True)
