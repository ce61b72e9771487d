"""Each rule of XN switched off, one at a time, from the outside: what the crash tests must see.

A mutant replaces methods of the kernel while a workload runs, while a disk is mounted again, or
both; or it changes what the disk did. Nothing in the kernel can be switched off. Here are the rules
as a whole; `mutants_partly.py` has those that fail in one situation, `mutants_strict.py` kernels
that are too careful, `mutants_device.py` disks that lie. `test_mutants.py` shows that each is
killed within a bounded number of states, and that without one nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from xnfs_trials.crash.states import Event

from xnfs.disk import xn
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.ledger import Ledger
from xnfs.disk.log import Log
from xnfs.disk.recovery import _Place, recover
from xnfs.disk.registry import MetaPage, Registry

Patch = Callable[[pytest.MonkeyPatch], None]
Swap = Callable[[Sequence[Event]], list[Event]]


@dataclass(frozen=True)
class Mutant:
    """`rule`: what is off. `run`: while the workload runs; `mount`: while disks are mounted again;
    `disk`: what the device did with its writes. `trial`: which workload shows it: a kind of random
    ones, of which `first` is tried first, or operations on FFS; `depth`: of how many cuts."""

    name: str
    rule: str
    run: Patch | None = None
    mount: Patch | None = None
    disk: Swap | None = None
    trial: str = "toy"
    first: int = 0
    depth: int = 1


_commit: Any = Committer._commit
_flush_log: Any = Committer._flush_log
_transact: Any = Committer._transact
_write_plain: Any = Committer._write_plain


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


# -- R1


def lower_at_once(p: pytest.MonkeyPatch) -> None:
    def remove_data(self: Ledger, page: MetaPage, start: int, count: int) -> None:
        for block in range(start, start + count):
            page.added.discard(block)
        self._tables.lower_run(start, count)

    p.setattr(Ledger, "remove_data", remove_data)


def lower_metadata_at_once(p: pytest.MonkeyPatch) -> None:
    def remove_one(self: Ledger, page: MetaPage, block: int) -> None:
        page.added.discard(block)
        if page.shared.get(block, 0) > 1:
            page.shared[block] -= 1
        else:
            page.shared.pop(block, None)
        self._lower(block)
        self.tie(page.block, block)

    p.setattr(Ledger, "remove_one", remove_one)


def settle_before_commit(p: pytest.MonkeyPatch) -> None:
    """What was dropped is free, and may be written, before the transaction is in the log."""

    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        pages = [x for b in members if isinstance(x := self._registry.get(b), MetaPage)]
        self._ledger.settle(self._take(pages, self._reached(pages)))
        _commit(self, members, plain)

    p.setattr(Committer, "_commit", run)


def dead_settle_at_once(p: pytest.MonkeyPatch) -> None:
    """A block that dies takes what waits for it along: it is free too early."""
    p.setattr(Ledger, "_heir", _nothing)


# -- R2


def fresh_after_parent(p: pytest.MonkeyPatch) -> None:
    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        _commit(self, members, set())
        _write_plain(self, plain & self._registry.plain)
        self._flush(patient=True)

    p.setattr(Committer, "_commit", run)


def data_after_parent(p: pytest.MonkeyPatch) -> None:
    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        data = {b for b in plain if not isinstance(self._registry.get(b), MetaPage)}
        _commit(self, members, plain - data)
        _write_plain(self, data & self._registry.plain)
        self._flush(patient=True)

    p.setattr(Committer, "_commit", run)


def not_cleared(p: pytest.MonkeyPatch) -> None:
    """New blocks show what their frame held before."""
    p.setattr(Registry, "clear", _nothing)


def retyped_not_written(p: pytest.MonkeyPatch) -> None:
    """Blocks that turn from unwritten into data count as old ones."""
    p.setattr(Ledger, "retype", _nothing)


# -- R3


def moves_not_tied(p: pytest.MonkeyPatch) -> None:
    tie: Any = Ledger.tie
    transfer: Any = Ledger.transfer

    def moved(self: Ledger, src: MetaPage, dst: MetaPage, *args: Any, **kwargs: Any) -> None:
        transfer(self, src, dst, *args, **kwargs)
        for a, b in ((src.block, dst.block), (dst.block, src.block)):
            self.ties.get(a, set()).discard(b)

    def tied(self: Ledger, a: int, b: int) -> None:
        pages = [self._registry.get(x) for x in (a, b)]
        if not all(isinstance(x, MetaPage) and not x.fresh for x in pages):
            tie(self, a, b)

    p.setattr(Ledger, "transfer", moved)
    p.setattr(Ledger, "tie", tied)


def component_is_one_block(p: pytest.MonkeyPatch) -> None:
    def component(self: Ledger, blocks: Iterable[int]) -> set[int]:
        return set(blocks)

    p.setattr(Ledger, "component", component)


def component_of_neighbours(p: pytest.MonkeyPatch) -> None:
    """The closure of ties stops after one step."""

    def component(self: Ledger, blocks: Iterable[int]) -> set[int]:
        first = set(blocks)
        return first.union(*(self.ties.get(b, set()) for b in first))

    p.setattr(Ledger, "component", component)


def move_gives_ownership_up(p: pytest.MonkeyPatch) -> None:
    """The new owner of a moved durable block believes that it is new: its removal frees it at
    once."""
    transfer: Any = Ledger.transfer

    def moved(
        self: Ledger, src: MetaPage, dst: MetaPage, start: int, count: int, *, meta: bool
    ) -> None:
        transfer(self, src, dst, start, count, meta=meta)
        dst.added.update(range(start, start + count))

    p.setattr(Ledger, "transfer", moved)


# -- R4 and R5


def _tables_left_out(p: pytest.MonkeyPatch, low: bool) -> None:
    """Transactions without the blocks of a table: the free map, or the counts."""

    def run(
        self: Committer, pages: Any, logged: Any, tables: Any, plain: Any, *, patient: bool
    ) -> None:
        start = self._tables._g.refs_start
        kept = [block for block in tables if (block < start) != low]
        _transact(self, pages, logged, kept, plain, patient=patient)
        for block in set(tables) - set(kept):
            self._device.write(block, [self._tables.encode(block)])
            self._tables.mark_written(block)

    p.setattr(Committer, "_transact", run)


def map_after_parent(p: pytest.MonkeyPatch) -> None:
    _tables_left_out(p, low=True)


def counts_after_parent(p: pytest.MonkeyPatch) -> None:
    _tables_left_out(p, low=False)


def tables_not_logged(p: pytest.MonkeyPatch) -> None:
    """Tables in place before the flush, as if they were data: recovery brings old ones back."""

    def run(
        self: Committer, pages: Any, logged: Any, tables: Any, plain: Any, *, patient: bool
    ) -> None:
        if self.seq % 3 == 0:
            for block in tables:
                self._unflushed = True
                self._device.write(block, [self._tables.encode(block)])
                self._tables.mark_written(block)
            tables = []
        _transact(self, pages, logged, tables, plain, patient=patient)

    p.setattr(Committer, "_transact", run)


def clean_mark_stays(p: pytest.MonkeyPatch) -> None:
    """The image says that it was unmounted cleanly while it is in use."""

    def writable(self: xn.Xn) -> None:
        self._clean = False

    p.setattr(xn.Xn, "_writable", writable)


# -- the log and the flush


def no_log(p: pytest.MonkeyPatch) -> None:
    p.setattr(Log, "write", _nothing)


def in_place_at_once(p: pytest.MonkeyPatch) -> None:
    """Attached metadata is written like fresh blocks: in place, without the log."""

    def gather(self: Committer, blocks: Iterable[int] | None) -> tuple[set[int], set[int]]:
        members, plain = _gather(self, blocks)
        attached = members & self._registry.attached
        self._registry.attached -= attached
        self._registry.plain |= attached
        return members, plain | attached

    _gather: Any = Committer._gather
    p.setattr(Committer, "_gather", gather)


def flush_off(p: pytest.MonkeyPatch) -> None:
    """A commit does not wait for the device."""

    def flush(self: Committer, *, patient: bool) -> None:
        self._unflushed = False
        self._written = {}
        self._listed = frozenset()

    p.setattr(Committer, "_flush", flush)


def placed_before_flush(p: pytest.MonkeyPatch) -> None:
    """The commit point comes before the flush: images go in place at once."""

    def early(self: Committer, images: Any, listed: Any, *, patient: bool) -> None:
        for image in images:
            self._device.write(image.block, [image.data])
        _flush_log(self, images, listed, patient=patient)

    p.setattr(Committer, "_flush_log", early)


def flush_before_writes(p: pytest.MonkeyPatch) -> None:
    """Submission taken for completion: the flush is issued before the log is written."""
    write: Any = Log.write

    def logged(self: Log, *transaction: Any) -> None:
        self._device.flush()
        write(self, *transaction)

    p.setattr(Log, "write", logged)
    flush_off(p)


def one_half(p: pytest.MonkeyPatch) -> None:
    """The log has one half: a transaction is written over the last one."""
    p.setattr(Log, "_base", lambda self, seq: self._start)


def nothing_listed(p: pytest.MonkeyPatch) -> None:
    p.setattr(Committer, "_relied_on", lambda *args: {})


def list_overwritten(p: pytest.MonkeyPatch) -> None:
    """What the newest transaction lists is overwritten before its images are durable in place."""
    p.setattr(Committer, "_guarded", lambda self, plain: plain & self._logged)


def numbers_for_nothing(p: pytest.MonkeyPatch) -> None:
    """A commit without images takes a number: the half of the log that must stay is overwritten."""
    real: Any = Committer.commit

    def run(self: Committer, blocks: Iterable[int] | None = None) -> None:
        before = self.seq
        real(self, blocks)
        if self.seq == before:
            self.seq += 1

    p.setattr(Committer, "commit", run)


def no_recovery(p: pytest.MonkeyPatch) -> None:
    p.setattr(Log, "newest_untrusted", lambda self, settled: [])


def redo_without_evidence(p: pytest.MonkeyPatch) -> None:
    p.setattr(_Place, "happened", lambda self: True)


def never_redo(p: pytest.MonkeyPatch) -> None:
    p.setattr(_Place, "happened", lambda self: False)


def only_newest_redone(p: pytest.MonkeyPatch) -> None:
    """The transaction before the newest is taken to be in place."""

    def missing(self: _Place) -> Any:
        yield from list(_missing(self))[1:]

    p.setattr(_Place, "missing", missing)


def redo_half(p: pytest.MonkeyPatch) -> None:
    def half(self: _Place) -> Any:
        for images in _missing(self):
            yield dict(list(images.items())[::2])

    p.setattr(_Place, "missing", half)


def older_transaction(p: pytest.MonkeyPatch) -> None:
    newest: Any = Log.newest_untrusted
    p.setattr(Log, "newest_untrusted", lambda self, settled: newest(self, settled)[-1:])


_missing: Any = _Place.missing


# -- newest versions


def versions_ahead(p: pytest.MonkeyPatch) -> None:
    """Every dirty page counts as written by the transaction at hand, also what is not in it."""

    def run(self: Committer, *args: Any, **kwargs: Any) -> None:
        for block in self._registry.attached:
            self._tables.versions.set(block, self.seq + 1)
        _transact(self, *args, **kwargs)

    p.setattr(Committer, "_transact", run)


def versions_of_the_undone(p: pytest.MonkeyPatch) -> None:
    """Recovery believes the list of a transaction that never happened."""

    def run(device: Any, seed: Any, log: Log, *args: Any) -> Any:
        found = log.newest_untrusted(args[-1])
        after = recover(device, seed, log, *args)
        own = {image.block: found[0].seq for image in found[0].images} if found else {}
        return replace(after, versions={**after.versions, **own})

    p.setattr("xnfs.disk.xn.recover", run)


# -- the collector


def collector_sees_no_change(p: pytest.MonkeyPatch) -> None:
    p.setattr(Collector, "saw", _nothing)


RULES = (
    Mutant("lower_at_once", "R1, data", run=lower_at_once, first=28),
    Mutant("lower_metadata_at_once", "R1, metadata", run=lower_metadata_at_once, first=30),
    Mutant("settle_before_commit", "R1, cached for durable", run=settle_before_commit),
    Mutant(
        "dead_settle_at_once",
        "R1, will-free list of a dead block",
        run=dead_settle_at_once,
        first=22,
    ),
    Mutant("fresh_after_parent", "R2", run=fresh_after_parent),
    Mutant("data_after_parent", "R2, data", run=data_after_parent),
    Mutant("not_cleared", "R2, new frames", run=not_cleared),
    Mutant("retyped_not_written", "R2, unwritten extents", run=retyped_not_written, first=16),
    Mutant("moves_not_tied", "R3", run=moves_not_tied, first=10),
    Mutant("component_is_one_block", "R2, R3: no closure", run=component_is_one_block),
    Mutant("component_of_neighbours", "R3: closure of one step", run=component_of_neighbours),
    Mutant("move_gives_ownership_up", "R1 after a move", run=move_gives_ownership_up, first=28),
    Mutant("map_after_parent", "R4", run=map_after_parent),
    Mutant("counts_after_parent", "R5", run=counts_after_parent),
    Mutant("tables_not_logged", "tables only through the log", run=tables_not_logged),
    Mutant("clean_mark_stays", "clean mark", run=clean_mark_stays),
    Mutant("no_log", "log", run=no_log),
    Mutant("in_place_at_once", "log of metadata", run=in_place_at_once),
    Mutant("flush_off", "flush", run=flush_off),
    Mutant("placed_before_flush", "commit point after the flush", run=placed_before_flush),
    Mutant("flush_before_writes", "submission for completion", run=flush_before_writes),
    Mutant("one_half", "halves of the log in turn", run=one_half),
    Mutant("nothing_listed", "list of what is relied on", run=nothing_listed),
    Mutant("list_overwritten", "list stays until placed", run=list_overwritten),
    Mutant("numbers_for_nothing", "halves of the log in turn", run=numbers_for_nothing),
    Mutant("no_recovery", "recovery", mount=no_recovery),
    Mutant("redo_without_evidence", "evidence rule", mount=redo_without_evidence),
    Mutant("never_redo", "redo", mount=never_redo),
    Mutant("only_newest_redone", "redo of the one before", mount=only_newest_redone, first=6),
    Mutant("redo_half", "redo of all images", mount=redo_half),
    Mutant("older_transaction", "newest transaction", mount=older_transaction),
    Mutant("versions_ahead", "newest versions are lower bounds", run=versions_ahead),
    Mutant("versions_of_the_undone", "versions of what happened", mount=versions_of_the_undone),
    Mutant(
        "collector_sees_no_change",
        "barrier",
        run=collector_sees_no_change,
        trial="collecting",
        first=5,
    ),
)
