"""Imports what Python itself would import only when it is first needed.

Once a child has given up its rights it may not be able to read where Python lies (an interpreter in a home directory),
and a worker opens no file at all: what was not imported before would be missing in the middle of an error.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

LATE: Final = (
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8", "encodings.utf_8_sig"),
    *("_strptime", "difflib", "linecache", "subprocess", "traceback", "zlib"),
)


def import_late() -> None:
    """To be called by a child with everything it runs imported, before it gives up its rights."""
    for name in LATE:
        import_module(name)
