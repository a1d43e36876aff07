"""What the tests of faults measured, as a table at their end: ``make faults``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """``figure(fault, text)``: a row of the table; measured here and now, asserted only where it is a promise."""
    return lambda fault, text: record_property("figure", (fault, text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", [])
    rows = [value for report in reports for name, value in report.user_properties if name == "figure"]
    if rows:
        terminalreporter.section("measured")
        width = max(len(fault) for fault, _ in rows)
        for fault, text in sorted(tuple(row) for row in rows):
            terminalreporter.write_line(f"{fault:<{width}}  {text}")
