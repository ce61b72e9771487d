"""The adversary can fail: with a check of the kernel switched off, cases or sequences say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xnfs_trials.attack.cases import chosen, singles
from xnfs_trials.attack.exhaust import Search

from tests.attack.mutants import MUTANTS
from xnfs.disk import blocktype

#: These show in sequences of two calls; all others in a case.
SEQUENCES = set(
    """
    free_checks_one_direction alloc_checks_one_direction claims_of_used_blocks
    owners_die_with_children shares_across_roots rights_are_not_looked_at reading_is_writing
    anybody_revokes fresh_metadata_is_not_zeroed fresh_data_is_not_zeroed unread_pages_are_shown
    writeback_skips_the_taint_check blocks_read_in_by_anybody freed_blocks_are_free_at_once
    others_pages_can_be_dropped dirty_pages_can_be_dropped newborns_bring_pointers
    hidden_blocks_can_be_read
    """.split()
)


@pytest.fixture(autouse=True)
def _made_before() -> Iterator[None]:
    """The images are made before the kernel is spoiled, and what a mutant proved is forgotten."""
    Search(free=2)
    singles([])
    yield
    blocktype._proof.cache_clear()


def by_cases() -> str:
    """The first case that goes wrong; empty if none does."""
    for case in chosen():
        outcome = singles([case])[case.id]
        if not outcome.good:
            return f"{case.id}: {(outcome.accepted + outcome.denied + outcome.broken)[0]}"
    return ""


def by_sequences() -> str:
    """The first sequence of two calls that goes wrong."""
    found = Search(free=2, limit=1).run(2).wrong
    return str(found[0]) if found else ""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert by_sequences() if name in SEQUENCES else by_cases(), f"nobody noticed: {name}"


def test_mutant_nothing_is_found_without_one() -> None:
    assert by_cases() == by_sequences() == ""


def test_mutants_are_many() -> None:
    assert len(MUTANTS) >= 30
    assert MUTANTS.keys() >= SEQUENCES
