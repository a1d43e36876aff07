"""The completion scripts: bash really completes; all three ask a verb that answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fake import TRICKY, FakeControl, environment, fake_control, lbfast, real, service

R = ["Symphony Server 1", "Symphony Server 2", "Symphony Server 3"]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path) as server:
        yield server


def complete_in_bash(runtime: Path, line: str) -> list[str]:
    """What bash would insert, with this interpreter's lbfast standing in for the program's name."""
    script = f'''
        lbfast() {{ "{sys.executable}" -m lbfast "$@"; }}
        compopt() {{ echo "compopt $*"; }}
        source <(lbfast completion bash)
        COMP_LINE=$1 COMP_POINT=${{#1}}
        _lbfast lbfast
        (( ${{#COMPREPLY[@]}} )) && printf '%s\\n' "${{COMPREPLY[@]}}"
    '''
    said = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", line],
        env=environment(runtime),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stderr == ""
    return said.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lbfast pers", ["persistence"]),
        ("lbfast persistence ", ["show", "clear", "pin"]),
        ("lbfast drain Sym", ["Symphony"]),
        ("lbfast drain Symphony ", [*(label.replace(" ", "\\ ") for label in R), "fallback"]),
        ('lbfast drain Symphony "Symphony Server 2', ["Symphony Server 2"]),
        ("lbfast drain Symphony Symphony\\ Server\\ 3", ["Symphony\\ Server\\ 3"]),
        ("lbfast persistence clear Symphony --real 'Symphony Server 1", ["Symphony Server 1"]),
        ("lbfast drain nothing ", []),
        ("lbfast check ", ["compopt -o default"]),
        ("lbfast weight --", ["--json", "--help"]),
    ],
)
def test_bash(control, tmp_path, line, found):
    assert complete_in_bash(tmp_path, line) == found


def test_words_for_zsh_and_fish(control, tmp_path):
    control.answers["overview"] = {"virtual_services": [service("A B", real("C D")), service(TRICKY)]}
    assert lbfast(tmp_path, "__complete", "words", "drain", "A").stdout == "A B\n"
    assert lbfast(tmp_path, "__complete", "words", "drain", "'A B'", "").stdout == "C D\n"
    assert lbfast(tmp_path, "__complete", "words", "check", "").returncode == 10


def test_silent_when_nobody_answers(tmp_path):
    said = lbfast(tmp_path, "__complete", "words", "drain", "")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_accepted_by_their_shells(tmp_path, shell):
    said = lbfast(tmp_path, "completion", shell)
    assert (said.returncode, said.stderr) == (0, "")
    assert "__complete" in said.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=said.stdout, text=True, check=True, timeout=60)
