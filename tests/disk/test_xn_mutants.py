"""The crash tests are worth something: each rule of the kernel, switched off, makes one fail.

Every mutant breaks one thing that DESIGN sections 4 and 5 rest on. The search for a disk that gives
it away is the one of `test_xn_crash.py`, with a bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.disk import test_xn_crash, test_xn_order, xn_crash
from tests.disk.xn_crash import explore, record
from tests.disk.xn_kit import image
from xnfs.disk.commit import Committer
from xnfs.disk.ledger import Due, Ledger, _take_one
from xnfs.disk.log import Log
from xnfs.disk.recovery import _Place
from xnfs.disk.registry import MetaPage, Registry
from xnfs.errors import XnError

Patch = pytest.MonkeyPatch


def r1_freed_blocks_are_free_at_once(patch: Patch) -> None:
    def remove_data(self: Ledger, page: MetaPage, start: int, count: int) -> None:
        self._tables.lower_run(start, count)
        page.added.difference_update(range(start, start + count))

    def remove_one(self: Ledger, page: MetaPage, block: int) -> None:
        if page.shared.get(block):
            _take_one(page.shared, block)
        page.added.discard(block)
        self._lower(block)
        self.tie(page.block, block)

    patch.setattr(Ledger, "remove_data", remove_data)
    patch.setattr(Ledger, "remove_one", remove_one)


def r1_settled_before_the_commit_point(patch: Patch) -> None:
    commit = Committer._commit

    def early(self: Committer, members: set[int], plain: set[int]) -> None:
        pages = [p for b in members if isinstance(p := self._registry.get(b), MetaPage)]
        self._ledger.settle(self._take(pages, self._reached(pages)))
        commit(self, members, plain)

    patch.setattr(Committer, "_commit", early)


def r1_what_the_dead_waited_for_is_free(patch: Patch) -> None:
    def bury(self: Ledger, dead: MetaPage) -> None:
        self.settle([self.take(dead, reached=False)])
        self.forget(dead.block)
        self._registry.drop([dead.block])

    patch.setattr(Ledger, "bury", bury)


def r2_fresh_blocks_after_their_parents(patch: Patch) -> None:
    commit, write = Committer._commit, Committer._write_plain

    def late(self: Committer, members: set[int], plain: set[int]) -> None:
        patch.setattr(Committer, "_write_plain", lambda *_: None)
        commit(self, members, plain)
        patch.setattr(Committer, "_write_plain", write)
        self._write_plain(plain)
        self._flush(patient=True)

    patch.setattr(Committer, "_commit", late)


def r2_new_frames_are_not_cleared(patch: Patch) -> None:
    patch.setattr(Registry, "clear", lambda *_: None)


def r2_retyped_blocks_are_forgotten(patch: Patch) -> None:
    def retype(self: Ledger, src: MetaPage, dst: MetaPage, start: int, count: int) -> None:
        if src is not dst:
            self.transfer(src, dst, start, count, meta=False)

    patch.setattr(Ledger, "retype", retype)


def r2_a_reached_child_stays_fresh(patch: Patch) -> None:
    def take(self: Committer, pages: list[MetaPage], reached: Any) -> list[Due]:
        return [self._ledger.take(page, reached=not page.fresh) for page in pages]

    patch.setattr(Committer, "_take", take)


def no_ties(*callers: str) -> Callable[[Patch], None]:
    """A mutant in which these functions tie nothing."""

    def mutate(patch: Patch) -> None:
        tie = Ledger.tie

        def some(self: Ledger, a: int, b: int) -> None:
            if sys._getframe(1).f_code.co_name not in callers:
                tie(self, a, b)

        patch.setattr(Ledger, "tie", some)

    return mutate


def r4_tables_not_written(patch: Patch) -> None:
    transact: Any = Committer._transact

    def run(
        self: Committer, pages: Any, logged: Any, tables: Any, plain: Any, *, patient: bool
    ) -> None:
        transact(self, pages, logged, [], plain, patient=patient)

    patch.setattr(Committer, "_transact", run)


def r5_not_raised_on_share(patch: Patch) -> None:
    def share(self: Ledger, page: MetaPage, block: int) -> None:
        self.orphans.discard(block)
        page.shared[block] = page.shared.get(block, 0) + 1
        self.tie(page.block, block)

    patch.setattr(Ledger, "share", share)


def no_flush(patch: Patch) -> None:
    def flush(self: Committer, *, patient: bool) -> None:
        self._unflushed = False
        self._written = {}
        self._listed = frozenset()

    patch.setattr(Committer, "_flush", flush)


def nothing_is_listed(patch: Patch) -> None:
    patch.setattr(Committer, "_relied_on", lambda *_: {})


def list_is_overwritten(patch: Patch) -> None:
    patch.setattr(Committer, "_guarded", lambda self, plain: plain & self._logged)


def images_are_overwritten(patch: Patch) -> None:
    patch.setattr(Committer, "_guarded", lambda self, plain: plain & self._listed)


def log_not_written(patch: Patch) -> None:
    patch.setattr(Log, "write", lambda *_: None)


def log_always_in_the_same_half(patch: Patch) -> None:
    patch.setattr(Log, "_base", lambda self, _seq: self._start)


def log_numbers_for_nothing(patch: Patch) -> None:
    commit = Committer._commit

    def more(self: Committer, members: set[int], plain: set[int]) -> None:
        commit(self, members, plain)
        self.seq += 1

    patch.setattr(Committer, "_commit", more)


def recovery_redoes_nothing(patch: Patch) -> None:
    patch.setattr(_Place, "missing", lambda *_: iter(()))


def recovery_always_redoes(patch: Patch) -> None:
    patch.setattr(_Place, "happened", lambda *_: True)


def recovery_never_redoes(patch: Patch) -> None:
    patch.setattr(_Place, "happened", lambda *_: False)


def recovery_redoes_the_newest_only(patch: Patch) -> None:
    missing: Any = _Place.missing
    patch.setattr(_Place, "missing", lambda self: iter(list(missing(self))[1:]))


def recovery_forgets_its_log(patch: Patch) -> None:
    """The next life writes in place what recovery may write again."""
    init: Any = Committer.__init__

    def begin(self: Committer, *args: Any) -> None:
        init(self, *args[:8], frozenset(), *args[9:])

    patch.setattr(Committer, "__init__", begin)


def changes_are_not_atomic(patch: Patch) -> None:
    no_ties("_apply")(patch)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "R1 freed blocks are free at once": r1_freed_blocks_are_free_at_once,
    "R1 settled before the commit point": r1_settled_before_the_commit_point,
    "R1 what the dead waited for is free": r1_what_the_dead_waited_for_is_free,
    "R2 fresh blocks after their parents": r2_fresh_blocks_after_their_parents,
    "R2 new frames are not cleared": r2_new_frames_are_not_cleared,
    "R2 a reached child stays fresh": r2_a_reached_child_stays_fresh,
    "R3 no ties on a move": no_ties("transfer", "_apply"),
    "R4 tables not written": r4_tables_not_written,
    "R5 not raised on share": r5_not_raised_on_share,
    "no ties of one change": changes_are_not_atomic,
    "no ties on a share": no_ties("share", "_apply"),
    "no flush": no_flush,
    "nothing is listed": nothing_is_listed,
    "the list is overwritten": list_is_overwritten,
    "log not written": log_not_written,
    "log always in the same half": log_always_in_the_same_half,
    "log numbers for nothing": log_numbers_for_nothing,
    "recovery redoes nothing": recovery_redoes_nothing,
    "recovery always redoes": recovery_always_redoes,
    "recovery never redoes": recovery_never_redoes,
    "recovery redoes the newest only": recovery_redoes_the_newest_only,
}
#: where to begin to look, for those that give themselves away rarely
FIRST_SEED = {
    "R1 what the dead waited for is free": 10,
    "R3 no ties on a move": 4,
    "no ties of one change": 4,
    "no ties on a share": 4,
    "log always in the same half": 4,
}


def befores_are_not_listed(patch: Patch) -> None:
    relied_on: Any = Committer._relied_on

    def relied(self: Committer, reached: Any, logged: Any) -> dict[int, int]:
        out: dict[int, int] = relied_on(self, reached, logged)
        for block in self._order.before(logged):
            out.pop(block, None)
        return out

    patch.setattr(Committer, "_relied_on", relied)


def older_over_newer(patch: Patch) -> None:
    patch.setattr(_Place, "_stamp", lambda *_: -1)


def the_list_is_all_evidence(patch: Patch) -> None:
    def happened(self: _Place) -> bool:
        digest = self._seed.digest
        return all(digest(b, self._read(b)) == want for b, want in self._newest.listed)

    patch.setattr(_Place, "happened", happened)


def images_without_stamp_are_evidence(patch: Patch) -> None:
    missing: Any = _Place.missing

    def some(self: _Place) -> Any:
        if any(self._read(i.block) != i.data for i in self._newest.images):
            yield from missing(self)

    patch.setattr(_Place, "missing", some)


#: those that only a certain story finds in reasonable time
STORIES: dict[str, tuple[Callable[[Patch], None], Callable[[], None]]] = {
    "R2 retyped blocks are forgotten": (
        r2_retyped_blocks_are_forgotten,
        test_xn_crash.test_crash_retype_shows_zeros_or_text,
    ),
    "R2 no ties on an allocation": (
        no_ties("allocate", "_apply"),  # either alone suffices
        test_xn_crash.test_crash_children_and_parents_by_either_name,
    ),
    "what is declared before is not listed": (
        befores_are_not_listed,
        test_xn_order.test_order_data_and_metadata_share_a_flush,
    ),
    "an older transaction over a newer": (
        older_over_newer,
        test_xn_crash.test_crash_a_damaged_log_brings_nothing_old_back,
    ),
    "the list is all evidence": (
        the_list_is_all_evidence,
        test_xn_crash.test_crash_images_in_place_are_evidence_enough,
    ),
    "images without stamp are evidence": (
        images_without_stamp_are_evidence,
        test_xn_crash.test_crash_the_same_bytes_again_prove_nothing,
    ),
    "recovery forgets its log": (
        recovery_forgets_its_log,
        test_xn_crash.test_crash_what_recovery_left_in_the_log_is_known_to_the_next_life,
    ),
    "images are overwritten": (
        images_are_overwritten,
        test_xn_crash.test_crash_tails_overwritten_right_after_their_sync,
    ),
}


@contextmanager
def counted(patch: Patch) -> Iterator[Callable[[], int]]:
    """How many disks have been looked at meanwhile."""
    looked: list[int] = []
    real = xn_crash.examine

    def examine(*args: Any, **kwargs: Any) -> None:
        looked.append(1)
        real(*args, **kwargs)

    patch.setattr(xn_crash, "examine", examine)
    yield lambda: len(looked)


def search(first: int, budget: int) -> str | None:
    """Look at random workloads until a promise is broken; which, or None."""
    for seed in range(first, first + budget):
        try:
            base = image(128, log_blocks=(16, 8, 6, 4)[seed % 4])
            run = record(seed, 60, base, partial=seed % 3 != 0)
            explore(run, seed, budget=3, stride=5)
        except Exception as e:
            return f"seed {seed}: {e.__cause__ or e!r}"
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert search(FIRST_SEED.get(name, 0), 40), f"nobody noticed: {name}"


@pytest.mark.parametrize("name", STORIES)
def test_mutants_are_found_by_a_story(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate, story = STORIES[name]
    story()
    mutate(monkeypatch)
    with pytest.raises((AssertionError, XnError)):
        story()


def test_mutants_nothing_is_found_without_one() -> None:
    assert search(0, 6) is None
