"""The Promela model of the pair under spin: two faults and a change of the weather; docs/ha.md has more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import scaled

MODEL = Path(__file__).parent.parent.parent / "docs/model/pair.pml"

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None, reason="spin or gcc is not here"
)


def explore(model: str, directory: Path, **defined: int) -> tuple[int, int]:
    """Errors, and states that were visited."""
    (directory / "pair.pml").write_text(model)
    words = [f"-D{name}={value}" for name, value in defined.items()]
    for command in (
        ["spin", *words, "-a", "pair.pml"],
        ["gcc", "-O1", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=scaled(60))
    done = subprocess.run(
        ["./pan", "-m1000000", "-w22"], cwd=directory, check=True, capture_output=True, text=True, timeout=scaled(60)
    )
    assert "max search depth too small" not in done.stdout
    errors, states = re.search(r"errors: (\d+)", done.stdout), re.search(r"(\d+) states, stored", done.stdout)
    assert errors
    assert states
    return int(errors[1]), int(states[1])


@pytest.mark.parametrize("lan", [1, 0], ids=["probes are answered", "probes are not answered"])
def test_two_faults_and_a_change_of_the_weather(tmp_path: Path, lan: int) -> None:
    errors, states = explore(MODEL.read_text(), tmp_path, FAULTS=2, CHANGES=1, LAN=lan)
    assert errors == 0
    assert states > 100_000


def test_it_finds_two_actives_where_nobody_asks_the_network(tmp_path: Path) -> None:
    """The same without the row's condition that the addresses are free."""
    model = MODEL.read_text()
    spoilt = model.replace("(peer == SILENT) && (probe == FREE) && (since[i] >= ANNOUNCED)", "(peer == SILENT)")
    spoilt = spoilt.replace("(started[i] >= LISTEN) && (probe == FREE)", "(started[i] >= LISTEN)")
    spoilt = spoilt.replace("(peer == SILENT) && (probe == TAKEN)", "false")
    assert spoilt != model
    assert explore(spoilt, tmp_path, FAULTS=1, CHANGES=1)[0] > 0
