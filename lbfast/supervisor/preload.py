"""Imports what Python itself would import only when it is first needed.

Once a child has given up its rights it may not be able to read where Python lies (an interpreter in a home directory),
and a worker opens no file at all: what was not imported before would be missing in the middle of an error.
"""

from __future__ import annotations


def import_late() -> None:
    """Codecs, tracebacks, dates and signals' helpers of the standard library."""
    import traceback  # noqa: F401 - all of these are only to be there
