"""Who may import whom: the layers of lbfast as tables, and the rule that reads them."""

import fnmatch
import sys

from tests.source_text import Source, family, imported

# Who may import whom; every package may import itself and `lbfast` (the version).
PACKAGES: dict[str, set[str]] = {
    "model": set(),
    "config": {"model"},
    "health": {"model"},
    "ha": {"model"},
    "l4": {"model"},
    "l7": {"model"},
    "control": {"model", "config"},
    "web": {"model", "control"},
    "cli": {"model", "control"},
    "supervisor": {"model", "config", "health", "ha", "l4", "l7", "control"},
    "__main__": {"cli"},
    "__init__": set(),
}
# Compiled modules: downwards only; `_stick_lock` belongs to the family `_stick`.
_LOW = {"_sys", "_address", "_siphash", "_shm"}
_PARTS = _LOW | {"_table", "_stick", "_conn", "_pipe", "_proxy", "_timer", "_counters", "_ring", "_sched", "_journal"}
# The loop, in layers: each may use those before it.
_LOOP = ("_worker", "_relay", "_pick", "_close", "_link", "_handover", "_accept", "_splice", "_repair", "_letters")
COMPILED: dict[str, set[str]] = {
    "_sys": set(),
    "_siphash": set(),
    "_address": {"_sys"},
    "_shm": {"_sys"},
    "_table": _LOW,
    "_stick": _LOW,
    "_conn": _LOW | {"_table", "_stick"},
    "_pipe": {"_sys"},
    "_proxy": _LOW,
    "_timer": {"_sys", "_conn"},
    "_counters": _LOW | {"_table"},
    "_ring": _LOW | {"_table"},
    "_journal": _LOW,
    "_replica": _LOW | {"_stick", "_journal"},
    "_sched": _LOW | {"_table"},
    "_tcp": {"_sys"},
    **{name: _PARTS | set(_LOOP[:place]) for place, name in enumerate(_LOOP)},
}
# Single files that reach further, and why.
FURTHER: dict[str, set[str]] = {
    "lbfast/config/publish.py": {"_table"},  # writes the settings of a configuration to shared memory
    "lbfast/health/*": {"_shm", "_table"},  # verdicts and probe results live in shared memory
    "lbfast/control/*": {"_shm", "_table", "_stick", "_counters", "_ring", "_conn", "health.results"},
    "lbfast/control/probe_now.py": {"health"},  # a probe out of turn is made by the prober's own code
    "lbfast/control/where_to.py": {"_sched"},  # the rendezvous hash, to say where a client would go
    "lbfast/ha/*": {"_shm", "_replica", "config.files", "config.paths", "control.protocol"},  # one framing, one file
    "lbfast/ha/history_sync.py": {"config.versions"},  # compares the history of both boxes, which control writes
    "lbfast/ha/confirm_sync.py": {"config.unconfirmed"},  # and what of it waits
    "lbfast/ha/desk.py": {"config.former"},  # what a pair leaves behind, which every start reads
    "lbfast/ha/verbs.py": {"config.former"},
    "lbfast/ha/giving.py": {"_letters", "_tcp"},  # passes connections on
    "lbfast/ha/collecting.py": {"_letters", "_tcp"},  # ... from workers
    "lbfast/ha/taking.py": {"_tcp"},
    "lbfast/ha/moving.py": {"_tcp"},
    "lbfast/ha/conn_image.py": {"_letters", "_tcp"},
    "lbfast/ha/doors.py": {"_letters", "_tcp"},  # ... to workers
    "lbfast/ha/web_user.py": {"web.store", "web.users"},  # whose password pairing asks for, also while web is down
    "lbfast/cli/passwords.py": {"web"},  # users and keys are set on the console while nothing runs, too
    "lbfast/cli/web_store.py": {"web"},
    "lbfast/cli/lbcli.py": {"web"},  # ... and so is the switch of the vendor's API
    "lbfast/cli/demo_web.py": {"web"},  # shows the setup link
    "lbfast/cli/running.py": {"config", "supervisor"},  # `run` is the supervisor, `check` reads a file
    "lbfast/supervisor/*": {"_shm", "_table", "_stick", "_counters", "_ring", "_conn", "_journal"},
    "lbfast/supervisor/bodies.py": {"_repair", "web"},  # repairs what a dead worker left; runs every child
    "lbfast/supervisor/worker.py": {"_splice"},  # the one process that runs the loop
}
# What a package may import beside the standard library; a package that is not named here may import anything.
LIBRARIES: dict[str, set[str]] = {
    "model": {"pydantic", "pydantic_core"},
    "supervisor": {"pyroute2", "structlog", "pydantic"},
}
# A process that forks has no threads and no event loop.
FORBIDDEN: dict[str, set[str]] = {"supervisor": {"threading", "asyncio", "concurrent", "multiprocessing"}}


def imports_point_down(source: Source) -> list[str]:
    if source.path.endswith(".pyi"):
        return []  # faces name types of one another
    here = source.package
    may = {here} | (COMPILED if here in COMPILED else PACKAGES).get(here, set())
    for pattern, more in FURTHER.items():
        may |= more if fnmatch.fnmatch(source.path, pattern) else set()
    faults = []
    if here not in COMPILED and here not in PACKAGES:
        faults.append(f"package {here} is not in the table of tests/source_imports.py: say what it may import")
    for line, name in imported(source):
        top, _, rest = name.partition(".")
        if top == "relative":
            faults.append(f"line {line}: relative import; write the whole name")
        elif top == "lbfast":
            wanted = family(rest.split(".")[0])
            if wanted.startswith("__") or wanted in may:
                continue
            if not any(rest == each or rest.startswith(each + ".") for each in may):
                faults.append(f"line {line}: {here} imports lbfast.{wanted}; it may import {', '.join(sorted(may))}")
        elif top in FORBIDDEN.get(here, ()):
            faults.append(f"line {line}: {here} imports {top}: the process that forks has no threads and no event loop")
        elif (
            here in LIBRARIES and source.is_python and top not in sys.stdlib_module_names and top not in LIBRARIES[here]
        ):
            faults.append(f"line {line}: {here} imports {top}; it may import {', '.join(sorted(LIBRARIES[here]))}")
    return list(dict.fromkeys(faults))  # once a line, however many names it imports
