"""Hostile cases, each by its own name, and a part of all pairs; the holes of the published XN."""

from __future__ import annotations

import pytest
from xnfs_trials.attack.case import CASES
from xnfs_trials.attack.cases import chosen, pairs, singles

#: The holes that the published source of XN had, and the cases that try them here.
HOLES = {
    "free checked one direction of the set difference": ["free-installs", "alloc-drops"],
    "a claim on an existing block under another type": ["claim-as-another-type"],
    "metadata made of a block's old bytes": ["retype-in-place", "metadata-bound-unread"],
    "a diff that reaches outside its partition": ["diff-beyond-its-partition"],
    "a diff that reaches outside its block": ["diff-beyond-its-block", "partitions-outside"],
    "ranges tested inclusively": ["raw-range-inclusive", "udf-range-inclusive"],
    "runs that begin in one owner's block and end in another's": ["others-bytes-by-a-long-run"],
    "no check on branch targets": ["udf-branch-targets"],
    "no check on operands": ["udf-operands"],
    "division by zero in the kernel": ["udf-division-by-zero"],
    "bad reads in the kernel": ["udf-bad-read"],
    "fresh pages attached as metadata without being zeroed": ["fresh-metadata-not-zero"],
    "write-back that skips the taint check": [
        "writeback-of-tainted",
        "writeback-in-hostile-order",
    ],
    "the kernel's own blocks by their numbers": ["kernels-blocks-named", "kernels-blocks-claimed"],
}


@pytest.mark.parametrize("name", CASES)
def test_attack_case_is_refused(name: str) -> None:
    outcome = singles([CASES[name]])[name]
    assert outcome.good, outcome
    assert outcome.tried


def test_attack_cases_are_many() -> None:
    assert len(CASES) >= 40
    assert sum(outcome.tried for outcome in singles(CASES.values()).values()) > 1000


@pytest.mark.parametrize("hole", HOLES)
def test_attack_holes_of_the_published_xn(hole: str) -> None:
    found = [name for name in HOLES[hole] if CASES[name].source.endswith("published source of XN")]
    assert found == HOLES[hole]
    for name, outcome in singles(CASES[name] for name in found).items():
        assert outcome.good, (name, outcome)
        assert outcome.refused == outcome.tried


@pytest.mark.parametrize("seed", range(4))
def test_attack_pairs(seed: int) -> None:
    """All of them are tried by `xnfs attack`."""
    tally = pairs(chosen(), seed=seed, limit=250)
    assert tally.trials == 250
    assert tally.wrong == []


@pytest.mark.slow
def test_attack_all_pairs() -> None:
    tally = pairs(chosen())
    assert tally.trials == len(CASES) ** 2
    assert tally.wrong == []
