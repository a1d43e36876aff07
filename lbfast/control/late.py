"""Imports what libraries would import only on first use, when this process may no longer read where Python lies."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401
import email.contentmanager
import email.generator
import email.mime.text  # noqa: F401
import encodings.cp437  # noqa: F401
import sqlite3.dbapi2  # noqa: F401
