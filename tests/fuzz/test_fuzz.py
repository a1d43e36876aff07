"""Every parser that is fed from outside: its corpus, and some hundred mutations of it, other ones in each run.

``make fuzz`` goes on for as long as it is told to, guided by coverage.
"""

from __future__ import annotations

import random

import pytest
from fuzz_targets import TARGETS
from mutations import mutations

ROUNDS = 400


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds, f"no corpus in {target.corpus}"
    for data in seeds:
        target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    target = TARGETS[name]
    seed = random.SystemRandom().randrange(1 << 32)
    source = mutations(target.seeds(), target.words, random.Random(seed))
    for round_, data in zip(range(ROUNDS), source, strict=False):
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"target {name}, seed {seed}, round {round_}; keep it in {target.corpus}: {data!r}")
            raise
