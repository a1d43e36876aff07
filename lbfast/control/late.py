"""Imports what libraries would import only on first use, when this process may no longer read where Python lies."""

from __future__ import annotations

import sqlite3.dbapi2  # noqa: F401 - all of these are only to be there
