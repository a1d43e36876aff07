"""Fuzz one target for some seconds: ``python tests/fuzz/run.py TARGET SECONDS``; guided by coverage (atheris).

What reaches new code is kept in build/fuzz/TARGET and built upon by the next run.  Input that a target fails on is
written there, too, as crash-...: put it into the target's corpus together with the repair.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LONGEST = 65_536


def main(name: str, seconds: str) -> None:
    import atheris

    # It names every module that it instruments.
    quiet = io.StringIO()
    with redirect_stderr(quiet), redirect_stdout(quiet), atheris.instrument_imports(include=["lbfast", "h11"]):
        from fuzz_targets import TARGETS
    target = TARGETS[name]
    found = TOP / "build" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    words = found.parent / f"{name}.words"
    words.write_text("\n".join(_quoted(word) for word in target.words) + "\n")
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=2048"]
    options += [f"-artifact_prefix={found}/", f"-dict={words}", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(found), str(target.corpus)], target.run)
    atheris.Fuzz()


def _quoted(word: bytes) -> str:
    """As libFuzzer's dictionaries want it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word[:64]) + '"'


if __name__ == "__main__":
    main(*sys.argv[1:])
