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
    """What was dropped is free when its transaction is in the log, and not yet flushed."""
    flush_log: Any = Committer._flush_log

    def early(self: Committer, *args: Any, **kwargs: Any) -> None:
        self._ledger.settle(list(self._ledger._due))
        flush_log(self, *args, **kwargs)

    def settle(self: Ledger, due: Iterable[Due]) -> None:
        real(self, [d for d in due if d in self._due])

    real: Any = Ledger.settle
    p.setattr(Ledger, "settle", settle)
    p.setattr(Committer, "_flush_log", early)


def guarded_one_epoch_short(p: pytest.MonkeyPatch) -> None:
    """The places of images are free to be overwritten from the next transaction's flush on."""
    flush_log: Any = Committer._flush_log

    def flush(self: Committer, images: Any, listed: Any, *, patient: bool) -> None:
        self._logged = frozenset()
        flush_log(self, images, listed, patient=patient)
        self._logged = frozenset()

    p.setattr(Committer, "_flush_log", flush)


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


def recovery_forgets_its_log(p: pytest.MonkeyPatch) -> None:
    """The next life writes in place what recovery may write again."""
    init: Any = Committer.__init__

    def begin(self: Committer, *args: Any) -> None:
        init(self, *args[:8], frozenset(), *args[9:])

    p.setattr(Committer, "__init__", begin)


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


PARTLY = (
    Mutant("not_on_rename_over", "R1 but on rename-over", run=not_on_rename_over),
    Mutant("not_on_truncate", "R1 but on truncate", run=not_on_truncate),
    Mutant("not_for_indirect_blocks", "R1 but for indirect blocks", run=not_for_indirect_blocks),
    Mutant("indirect_not_listed", "R2 but for indirect blocks", run=indirect_blocks_not_listed),
    Mutant("one_pointer_of_several", "R5, R1: of several", run=one_pointer_of_several_at_once),
    Mutant("second_pointer_late", "R5: of several", run=second_pointer_not_counted),
    Mutant("settled_one_epoch_early", "R1, one epoch early", run=settled_one_epoch_early),
    Mutant("guarded_one_epoch_short", "images stay, one epoch short", run=guarded_one_epoch_short),
    Mutant("recovery_does_not_flush", "flushes of recovery", mount=recovery_does_not_flush),
    Mutant("recovery_in_one_epoch", "order of recovery", mount=recovery_in_one_epoch),
    Mutant("recovery_forgets_its_log", "log of recovery", run=recovery_forgets_its_log),
    Mutant("retyped_not_listed", "R2 but for unwritten extents", run=retyped_not_listed),
)
