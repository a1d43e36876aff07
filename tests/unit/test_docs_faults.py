"""docs/faults.md: each row names a test, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_row_names_tests_that_are_there() -> None:
    rows = [row for row in (ROOT / "docs/faults.md").read_text().splitlines() if re.match(r"\| (?!fault \|)\w", row)]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`([a-z]+/\w+\.py)`", row)
        assert named, f"no test in: {row}"
        for name in named:
            assert (ROOT / "tests" / name).exists(), f"{name} is not there: {row}"
