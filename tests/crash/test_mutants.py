"""The crash tests see: with any rule of XN switched off they fail, and soon.

`docs/mutants.md` is the table that `python -m tests.crash.campaign` prints.
"""

from __future__ import annotations

import pytest

from tests.crash.campaign import STATES, TRIALS_EACH, hunt
from tests.crash.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
def test_mutants_killed(mutant: Mutant) -> None:
    killed, looked, _ = hunt(mutant, states=STATES, trials=TRIALS_EACH)
    assert killed, f"{mutant.rule} is off, and {looked} states show nothing"


@pytest.mark.parametrize("kind", ["toy", "collecting", "ffs"])
def test_mutants_none(kind: str) -> None:
    """The same hunt without a mutant finds nothing."""
    killed, _, why = hunt(Mutant("none", "nothing", trial=kind), states=1500, trials=40)
    assert not killed, why
