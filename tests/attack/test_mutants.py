"""The adversary can fail: with a check of the kernel switched off, cases or sequences say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from xnfs_trials.attack.cases import Tally, chosen, singles
from xnfs_trials.attack.exhaust import Search

from tests.attack.mutants import MUTANTS, TOO_STRICT
from xnfs.disk import blocktype

#: These show in sequences of two calls, those in long random ones; all others in a case.
WALKS = {"freed_blocks_never_come_back"}
SEQUENCES = (
    set(
        """
    free_checks_one_direction alloc_checks_one_direction claims_of_used_blocks
    owners_die_with_children shares_across_roots rights_are_not_looked_at reading_is_writing
    anybody_revokes fresh_metadata_is_not_zeroed fresh_data_is_not_zeroed unread_pages_are_shown
    writeback_skips_the_taint_check blocks_read_in_by_anybody freed_blocks_are_free_at_once
    others_pages_can_be_dropped dirty_pages_can_be_dropped newborns_bring_pointers
    hidden_blocks_can_be_read
    """.split()
    )
    | TOO_STRICT
)


@pytest.fixture(autouse=True)
def _made_before() -> Iterator[None]:
    """What a mutant proved is forgotten."""
    prepare()
    yield
    blocktype._proof.cache_clear()


def prepare() -> None:
    """The images are made before the kernel is spoiled."""
    Search(free=2)
    singles([])


def by_cases() -> tuple[int, str]:
    """How many calls were made until a case went wrong, and which; "" if none does."""
    tally = Tally()
    for case in chosen():
        outcome = singles([case])[case.id]
        tally.add(case.id, outcome)
        if not outcome.good:
            wrong = (outcome.accepted + outcome.denied + outcome.broken)[0]
            return tally.tried, f"{case.id}: {wrong}"
    return tally.tried, ""


def by_sequences() -> tuple[int, str]:
    """The same of all sequences of two calls."""
    census = Search(free=2, limit=1).run(2)
    return census.calls, str(census.wrong[0]) if census.wrong else ""


def by_walks() -> tuple[int, str]:
    """The same of random sequences of 40."""
    census = Search(free=2, limit=1).wander(1, 20, 40)
    return census.calls, str(census.wrong[0]) if census.wrong else ""


def by(name: str) -> tuple[str, Callable[[], tuple[int, str]]]:
    """What shows a mutant: in words, and the hunt."""
    if name in WALKS:
        return "walks", by_walks
    return ("sequences", by_sequences) if name in SEQUENCES else ("cases", by_cases)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    _, how = by(name)[1]()
    assert how, f"nobody noticed: {name}"


def test_mutant_nothing_is_found_without_one() -> None:
    assert by_cases()[1] == by_sequences()[1] == by_walks()[1] == ""


def test_mutants_are_many() -> None:
    assert len(MUTANTS) >= 30
    assert MUTANTS.keys() >= SEQUENCES
