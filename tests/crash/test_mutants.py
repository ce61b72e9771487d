"""The crash tests see: with any rule of XN switched off they fail, and soon.

`docs/mutants.md` is the table that `python -m tests.matrix` prints.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.attack.mutants import MUTANTS as ATTACKS
from tests.attack.mutants import TOO_STRICT
from tests.crash.campaign import MUTANTS, SECONDS, STATES, hunt
from tests.crash.mutants import RULES, Mutant
from tests.crash.mutants_device import DEVICES
from tests.crash.mutants_partly import PARTLY
from tests.crash.mutants_strict import STRICT


@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
def test_mutants_killed(mutant: Mutant) -> None:
    found = hunt(mutant)
    assert found.how, f"{mutant.rule} is off, and {found.states} states show nothing"
    assert found.states <= STATES or found.seconds <= SECONDS


@pytest.mark.parametrize("kind", ["toy", "collecting", "replacing", "sharing", "ffs"])
def test_mutants_none(kind: str) -> None:
    """The same hunt without a mutant finds nothing."""
    found = hunt(Mutant("none", "nothing", trial=kind), states=300, seconds=0)
    assert not found.how, found.how


def test_mutants_are_many() -> None:
    assert len(RULES) + len(PARTLY) >= 40
    assert len(STRICT) + sum(name in TOO_STRICT for name in ATTACKS) >= 6
    assert len(DEVICES) >= 6
    assert max(Counter(m.name for m in MUTANTS).values()) == 1
