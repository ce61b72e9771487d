"""docs/mutants.md is what `python -m tests.matrix` printed, of the mutants that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.attack.mutants import MUTANTS as ATTACKS
from tests.crash.campaign import MUTANTS as CRASHES
from tests.disk import test_xn_mutants as walks
from tests.matrix import clauses
from tests.trials.test_oracles import CLAUSES

PAGE = (Path(__file__).parents[1] / "docs" / "mutants.md").read_text()


def test_matrix_has_every_mutant() -> None:
    named = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    known = [m.name for m in CRASHES]
    known += [*walks.MUTANTS, *walks.STORIES, *ATTACKS]
    known += [f"{owner.__name__}.{name}" for owner, name, *_ in CLAUSES.values()]
    assert named == known
    assert "survived" not in PAGE


def test_matrix_sums_say_that_all_are_killed() -> None:
    sums = re.findall(r"^\| [^|`]+ \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(sums) == 4
    assert all(mutants == killed == in_time for mutants, killed, in_time in sums)


def test_matrix_rows_are_made() -> None:
    """The shortest part, as the command makes it."""
    assert all(row.in_time for row in clauses())
