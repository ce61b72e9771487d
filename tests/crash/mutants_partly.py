"""Rules of XN that hold but for one situation: what a test of the rule in general does not see.

See `mutants.py`. Most are hunted with a workload of FFS that brings the situation up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.crash.mutants import Mutant
from xnfs.disk import recovery, xn
from xnfs.disk.change import Changer
from xnfs.disk.commit import Committer
from xnfs.disk.flow import Flow
from xnfs.disk.ledger import Due, Ledger
from xnfs.disk.registry import MetaPage

_account: Any = Changer._account
_commit: Any = Committer._commit
_relied_on: Any = Committer._relied_on
_remove_data: Any = Ledger.remove_data
_remove_one: Any = Ledger.remove_one


def _data_at_once(self: Ledger, page: MetaPage, start: int, count: int) -> None:
    page.filled.difference_update(range(start, start + count))
    page.added.difference_update(range(start, start + count))
    self._tables.lower_run(start, count)


def _one_at_once(self: Ledger, page: MetaPage, block: int) -> None:
    page.added.discard(block)
    if page.shared.get(block):
        page.shared[block] -= 1
        if not page.shared[block]:
            del page.shared[block]
    self._lower(block)
    self.tie(page.block, block)


def not_on_rename_over(p: pytest.MonkeyPatch) -> None:
    """R1 is off in changes that also move a pointer: what was renamed over is free at once."""

    def account(self: Changer, flow: Flow) -> None:
        with pytest.MonkeyPatch.context() as inner:
            if flow.moved and flow.freed:
                inner.setattr(Ledger, "remove_one", _one_at_once)
            _account(self, flow)

    p.setattr(Changer, "_account", account)


def not_on_truncate(p: pytest.MonkeyPatch) -> None:
    """R1 is off for data whose owner lives on."""

    def remove(self: Ledger, page: MetaPage, start: int, count: int) -> None:
        live = not page.fresh and self.owners(page.block) > 0
        (_data_at_once if live else _remove_data)(self, page, start, count)

    p.setattr(Ledger, "remove_data", remove)


def not_for_indirect_blocks(p: pytest.MonkeyPatch) -> None:
    """R1 is off for what a block of pointers drops that an inode points at."""

    def remove(self: Ledger, page: MetaPage, start: int, count: int) -> None:
        indirect = page.type.spec.name == "ffs.node"
        (_data_at_once if indirect else _remove_data)(self, page, start, count)

    p.setattr(Ledger, "remove_data", remove)


def indirect_blocks_not_listed(p: pytest.MonkeyPatch) -> None:
    """R2 is off for what blocks of pointers name: only the inode's own new blocks are listed."""

    def relied(self: Committer, reached: Iterable[MetaPage], logged: Any) -> dict[int, int]:
        pages = [page for page in reached if page.type.spec.name != "ffs.node"]
        out: dict[int, int] = _relied_on(self, pages, logged)
        return out

    p.setattr(Committer, "_relied_on", relied)


def one_pointer_of_several_at_once(p: pytest.MonkeyPatch) -> None:
    """R5 is off for blocks with several owners: the count falls before the pointer is gone."""

    def remove(self: Ledger, page: MetaPage, block: int) -> None:
        several = self._tables.total(block) > 1
        (_one_at_once if several else _remove_one)(self, page, block)

    p.setattr(Ledger, "remove_one", remove)


def second_pointer_not_counted(p: pytest.MonkeyPatch) -> None:
    """R5 is off where a second pointer appears: the count is raised when it is durable."""
    settle: Any = Ledger.settle

    def share(self: Ledger, page: MetaPage, block: int) -> None:
        page.shared[block] = page.shared.get(block, 0) + 1
        self.tie(page.block, block)
        late.append(block)

    def settled(self: Ledger, due: Iterable[Due]) -> None:
        settle(self, due)
        for block in late:
            self._tables.raise_one(block)
        late.clear()

    late: list[int] = []
    p.setattr(Ledger, "share", share)
    p.setattr(Ledger, "settle", settled)


def settled_one_epoch_early(p: pytest.MonkeyPatch) -> None:
    """A commit frees also what was dropped since, and belongs to the next one."""

    def settle(self: Ledger, due: Iterable[Due]) -> None:
        real(self, due)
        for page in list(self._registry.pages.values()):
            if isinstance(page, MetaPage) and (page.removed or page.dropped):
                early = Due(page.removed, page.dropped)
                page.removed, page.dropped = [], []
                self._due.append(early)
                real(self, [early])

    real: Any = Ledger.settle
    p.setattr(Ledger, "settle", settle)


def recovery_does_not_flush(p: pytest.MonkeyPatch) -> None:
    """During recovery nothing is durable: not what it undoes, nor the older before the newer."""
    real: Any = vars(xn)["recover"]

    def recover(device: Any, *rest: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(type(device), "flush", lambda _device: None)
            return real(device, *rest)

    p.setattr(xn, "recover", recover)


def recovery_in_one_epoch(p: pytest.MonkeyPatch) -> None:
    """The older transaction and the newer are redone with one flush, in whatever order."""
    real: Any = recovery._Place.missing

    def missing(self: Any) -> Any:
        wanted: dict[int, bytes] = {}
        for images in real(self):
            wanted |= images
        yield wanted

    p.setattr(recovery._Place, "missing", missing)


def retyped_not_listed(p: pytest.MonkeyPatch) -> None:
    """R2 is off for reserved blocks that turn into data."""

    def relied(self: Committer, reached: Iterable[MetaPage], logged: Any) -> dict[int, int]:
        pages = list(reached)
        kept = [page.filled for page in pages]
        for page in pages:
            page.filled = set()
        out: dict[int, int] = _relied_on(self, pages, logged)
        for page, filled in zip(pages, kept, strict=True):
            page.filled = filled
        return out

    p.setattr(Committer, "_relied_on", relied)


#: A file with so many extents that some lie in a block of pointers.
_MANY = "; ".join(f"write foo {8192 * i} 4096" for i in range(13))

PARTLY = (
    Mutant(
        "not_on_rename_over",
        "R1 but on rename-over",
        run=not_on_rename_over,
        trial="replacing",
        first=25,
    ),
    Mutant(
        "not_on_truncate",
        "R1 but on truncate",
        run=not_on_truncate,
        trial="truncate foo 0; create bar; fsync bar",
    ),
    Mutant(
        "not_for_indirect_blocks",
        "R1 but for indirect blocks",
        run=not_for_indirect_blocks,
        trial=f"{_MANY}; sync; truncate foo 0; create bar; fsync bar",
    ),
    Mutant(
        "indirect_blocks_not_listed",
        "R2 but for indirect blocks",
        run=indirect_blocks_not_listed,
        trial=f"{_MANY}; fsync foo",
    ),
    Mutant(
        "one_pointer_of_several_at_once",
        "R1, R5 but for shared blocks",
        run=one_pointer_of_several_at_once,
        trial="sharing",
        first=2,
    ),
    Mutant(
        "second_pointer_not_counted",
        "R5 but for shared blocks",
        run=second_pointer_not_counted,
        first=7,
    ),
    Mutant("retyped_not_listed", "R2 but for unwritten extents", run=retyped_not_listed, first=16),
    Mutant("settled_one_epoch_early", "R1, one epoch off", run=settled_one_epoch_early, first=15),
    Mutant("recovery_does_not_flush", "flush, but in recovery", mount=recovery_does_not_flush),
    Mutant(
        "recovery_in_one_epoch",
        "order, but in recovery",
        mount=recovery_in_one_epoch,
        first=3,
        depth=2,
    ),
)
