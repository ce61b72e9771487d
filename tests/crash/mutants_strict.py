"""Kernels that are too careful: what they refuse or keep, they may not. See `mutants.py`.

A rule that forbids too much is a defect, too: a crash run sees it by a call that fails, a disk that
can't be opened, or blocks that never come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.crash.mutants import Mutant
from xnfs import CollectStatus, CorruptionError, Refused
from xnfs.disk import xn
from xnfs.disk.change import Changer
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.ledger import Due, Ledger
from xnfs.disk.registry import MetaPage
from xnfs.disk.reshape import Reshaper

_settle: Any = Ledger.settle


def nothing_becomes_free(p: pytest.MonkeyPatch) -> None:
    """What was dropped waits for ever."""

    def settle(self: Ledger, due: Iterable[Due]) -> None:
        for drops in due:
            self._due.remove(drops)

    p.setattr(Ledger, "settle", settle)


def shared_blocks_stay(p: pytest.MonkeyPatch) -> None:
    """Counts are raised and never lowered."""
    lower: Any = Ledger._lower

    def keep(self: Ledger, block: int) -> None:
        if self._tables.total(block) == 1:
            lower(self, block)

    p.setattr(Ledger, "_lower", keep)


def collector_keeps_all(p: pytest.MonkeyPatch) -> None:
    """The collector takes nothing for a leak."""
    p.setattr(Collector, "step", lambda self, blocks: CollectStatus(done=True, visited=0, freed=0))


def recovery_wants_both_halves(p: pytest.MonkeyPatch) -> None:
    """A log of which one half is not whole is taken for damage."""
    real: Any = vars(xn)["recover"]

    def recover(device: Any, seed: Any, log: Any, *rest: Any) -> Any:
        found = log.newest_untrusted(rest[-1])
        if len(found) == 1 and found[0].seq > 3:
            raise CorruptionError(1, "log", "one half", "two")
        return real(device, seed, log, *rest)

    p.setattr(xn, "recover", recover)


def no_second_owner(p: pytest.MonkeyPatch) -> None:
    """A block of metadata may have one owner."""

    def refuse(self: Changer, block: int, t: int, root: str) -> None:
        raise Refused(f"block {block} has an owner")

    p.setattr(Changer, "_check_shareable", refuse)


def no_relocation_of_parents(p: pytest.MonkeyPatch) -> None:
    """Only what owns nothing may be relocated."""
    check: Any = Reshaper._check_relocation

    def strict(self: Reshaper, parent: MetaPage, diff: Any, old: MetaPage, new: int) -> Any:
        if not old.type.owns_nothing(bytes(old.view)):
            raise Refused(f"block {old.block} owns blocks")
        return check(self, parent, diff, old, new)

    p.setattr(Reshaper, "_check_relocation", strict)


def freed_only_when_durable(p: pytest.MonkeyPatch) -> None:
    """What was never on the disk may not be freed."""
    remove: Any = Ledger.remove_one

    def strict(self: Ledger, page: MetaPage, block: int) -> None:
        if block in page.added:
            raise Refused(f"block {block} is not on the disk yet")
        remove(self, page, block)

    p.setattr(Ledger, "remove_one", strict)


def commits_of_one_page(p: pytest.MonkeyPatch) -> None:
    """A transaction with more than two pages is refused."""
    commit: Any = Committer._commit

    def strict(self: Committer, members: set[int], plain: set[int]) -> None:
        if len(members) > 2:
            raise Refused(f"{len(members)} blocks in one transaction")
        commit(self, members, plain)

    p.setattr(Committer, "_commit", strict)


STRICT = (
    Mutant(
        "nothing_becomes_free",
        "too strict: R1",
        run=nothing_becomes_free,
        mount=nothing_becomes_free,
    ),
    Mutant(
        "shared_blocks_stay", "too strict: R5", run=shared_blocks_stay, mount=shared_blocks_stay
    ),
    Mutant("collector_keeps_all", "too strict: collector", mount=collector_keeps_all),
    Mutant("recovery_wants_both_halves", "too strict: recovery", mount=recovery_wants_both_halves),
    Mutant("no_second_owner", "too strict: owners", run=no_second_owner),
    Mutant("no_relocation_of_parents", "too strict: relocation", run=no_relocation_of_parents),
    Mutant("freed_only_when_durable", "too strict: free", run=freed_only_when_durable),
    Mutant("commits_of_one_page", "too strict: transactions", run=commits_of_one_page),
)
