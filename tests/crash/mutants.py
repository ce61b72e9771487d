"""Each rule of XN switched off, one at a time, from the outside: what the crash tests must see.

A mutant replaces methods of the kernel while a workload runs, while a disk is mounted again, or
both; or it changes what the disk did. Nothing in the kernel can be switched off. `test_mutants.py`
shows that each mutant is killed within a bounded number of states, and that without one nothing
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from xnfs_trials.crash.states import Event, Flush

from xnfs.disk import commit, recovery, xn
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.ledger import Ledger
from xnfs.disk.log import Log, Transaction
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import INITIALISED, Tables

Patch = Callable[[pytest.MonkeyPatch], None]
Swap = Callable[[Sequence[Event]], list[Event]]


@dataclass(frozen=True)
class Mutant:
    """`rule`: what is off. `run`: while the workload runs; `mount`: while disks are mounted again;
    `disk`: what the device did with its writes. `trial`: which workload shows it."""

    name: str
    rule: str
    run: Patch | None = None
    mount: Patch | None = None
    disk: Swap | None = None
    trial: str = "toy"


_commit: Any = Committer._commit
_flush: Any = Committer._flush
_write_tables: Any = Committer._write_tables
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
        self._ledger.settle(self._take(pages))
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
        self._flush()

    p.setattr(Committer, "_commit", run)


def data_after_parent(p: pytest.MonkeyPatch) -> None:
    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        data = {b for b in plain if not isinstance(self._registry.get(b), MetaPage)}
        _commit(self, members, plain - data)
        _write_plain(self, data & self._registry.plain)
        self._flush()

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


def map_after_parent(p: pytest.MonkeyPatch) -> None:
    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        self._write_tables = _nothing  # type: ignore[method-assign]
        _commit(self, members, plain)
        del self._write_tables
        _write_tables(self)
        self._flush()

    p.setattr(Committer, "_commit", run)


def counts_never_written(p: pytest.MonkeyPatch) -> None:
    def tables(self: Committer) -> None:
        dirty = self._tables.dirty_blocks()
        low = self._tables._g.refs_start
        for block in dirty:
            if block < low:
                self._unflushed = True
                self._device.write(block, [self._tables.encode(block)])
                self._tables.mark_written(block)

    p.setattr(Committer, "_write_tables", tables)


def initialised_too_early(p: pytest.MonkeyPatch) -> None:
    mark: Any = Tables.mark_written

    def marked(self: Tables, block: int) -> None:
        mark(self, block)
        for table in self._fresh_refs:
            self._flags[table // 2] |= INITIALISED << table % 2
            self._stale.add(self._map_sector(table // 2))

    def dirty(self: Tables) -> list[int]:
        return sorted({b for b, _ in self._stale} | self._unwritten, reverse=True)

    p.setattr(Tables, "mark_written", marked)
    p.setattr(Tables, "dirty_blocks", dirty)


def clean_mark_stays(p: pytest.MonkeyPatch) -> None:
    """The image says that it was unmounted cleanly while it is in use."""

    def writable(self: xn.Xn) -> None:
        self._clean = False

    p.setattr(xn.Xn, "_writable", writable)


# -- the log and the epochs


def no_log(p: pytest.MonkeyPatch) -> None:
    p.setattr(Log, "write", _nothing)


def in_place_at_once(p: pytest.MonkeyPatch) -> None:
    """Attached metadata is written like fresh blocks: in epoch 1, without the log."""

    def gather(self: Committer, blocks: Iterable[int] | None) -> tuple[set[int], set[int]]:
        members, plain = _gather(self, blocks)
        attached = members & self._registry.attached
        self._registry.attached -= attached
        self._registry.plain |= attached
        return members, plain | attached

    _gather: Any = Committer._gather
    p.setattr(Committer, "_gather", gather)


def _flush_off(p: pytest.MonkeyPatch, which: int) -> None:
    """Within a commit, flush number `which` does nothing."""
    count = [0]

    def run(self: Committer, members: set[int], plain: set[int]) -> None:
        count[0] = 0
        _commit(self, members, plain)

    def flush(self: Committer) -> None:
        count[0] += 1
        if count[0] == which:
            self._unflushed = False
        else:
            _flush(self)

    p.setattr(Committer, "_commit", run)
    p.setattr(Committer, "_flush", flush)


def first_flush_off(p: pytest.MonkeyPatch) -> None:
    _flush_off(p, 1)


def second_flush_off(p: pytest.MonkeyPatch) -> None:
    _flush_off(p, 2)


def flush_before_writes(p: pytest.MonkeyPatch) -> None:
    """Submission taken for completion: the flush of epoch 1 is issued before the log is written."""
    write: Any = Log.write

    def logged(self: Log, seq: int, images: Any) -> None:
        self._device.flush()
        write(self, seq, images)

    p.setattr(Log, "write", logged)
    _flush_off(p, 1)


def numbers_for_nothing(p: pytest.MonkeyPatch) -> None:
    """A commit without images takes a number: the half of the log that must stay is overwritten."""
    real: Any = Committer.commit

    def run(self: Committer, blocks: Iterable[int] | None = None) -> None:
        before = self.seq
        real(self, blocks)
        if self.seq == before:
            self.seq += 1

    p.setattr(Committer, "commit", run)


def stamps_without_number(p: pytest.MonkeyPatch) -> None:
    stamp: Any = vars(commit)["stamp_block"]

    def stamped(seed: Any, block: int, view: Any, offset: int, kind: int, seq: int) -> None:
        stamp(seed, block, view, offset, kind, 0)

    p.setattr(commit, "stamp_block", stamped)


def no_recovery(p: pytest.MonkeyPatch) -> None:
    p.setattr(Log, "newest_untrusted", _nothing)


def redo_without_evidence(p: pytest.MonkeyPatch) -> None:
    p.setattr(recovery, "happened", lambda *args: True)


def never_redo(p: pytest.MonkeyPatch) -> None:
    p.setattr(recovery, "happened", lambda *args: False)


def torn_is_no_evidence(p: pytest.MonkeyPatch) -> None:
    real: Any = vars(recovery)["happened"]

    def happened(device: Any, seed: Any, found: Transaction, stamps: Any) -> bool:
        page = bytearray(4096)
        for image in found.images:
            device.read(image.block, [memoryview(page)])
            one = Transaction(found.seq, (image,))
            if real(device, seed, one, stamps) and page[8:16] == found.seq.to_bytes(8, "little"):
                return True
        return False

    p.setattr(recovery, "happened", happened)


def redo_half(p: pytest.MonkeyPatch) -> None:
    missing: Any = recovery._missing

    def half(device: Any, found: Transaction) -> dict[int, bytes]:
        images: dict[int, bytes] = missing(device, found)
        return dict(list(images.items())[::2])

    p.setattr(recovery, "_missing", half)


def older_transaction(p: pytest.MonkeyPatch) -> None:
    def newest(self: Log) -> Transaction | None:
        found = [t for t in (self.read_untrusted(0), self.read_untrusted(1)) if t is not None]
        return min(found, key=lambda t: t.seq, default=None)

    p.setattr(Log, "newest_untrusted", newest)


# -- the collector


def collector_sees_no_change(p: pytest.MonkeyPatch) -> None:
    p.setattr(Collector, "saw", _nothing)


# -- the device


def flush_does_nothing(p: pytest.MonkeyPatch) -> None:
    p.setattr(RecordingDevice, "flush", _nothing)


def last_write_late(events: Sequence[Event]) -> list[Event]:
    """A flush lets the write before it slip."""
    out = list(events)
    for i in range(1, len(out)):
        if isinstance(out[i], Flush) and not isinstance(out[i - 1], Flush):
            out[i - 1], out[i] = out[i], out[i - 1]
    return out


def lost_write(events: Sequence[Event]) -> list[Event]:
    """Every seventh write never happens."""
    return [e for i, e in enumerate(events) if isinstance(e, Flush) or i % 7]


MUTANTS = (
    Mutant("lower_at_once", "R1, data", run=lower_at_once),
    Mutant("lower_metadata_at_once", "R1, metadata", run=lower_metadata_at_once),
    Mutant("settle_before_commit", "R1, cached for durable", run=settle_before_commit),
    Mutant("dead_settle_at_once", "R1, will-free list of a dead block", run=dead_settle_at_once),
    Mutant("fresh_after_parent", "R2", run=fresh_after_parent),
    Mutant("data_after_parent", "R2, data", run=data_after_parent),
    Mutant("not_cleared", "R2, new frames", run=not_cleared),
    Mutant("retyped_not_written", "R2, unwritten extents", run=retyped_not_written),
    Mutant("moves_not_tied", "R3", run=moves_not_tied),
    Mutant("component_is_one_block", "R2, R3: no closure", run=component_is_one_block),
    Mutant("component_of_neighbours", "R3: closure of one step", run=component_of_neighbours),
    Mutant("move_gives_ownership_up", "R1 after a move", run=move_gives_ownership_up),
    Mutant("map_after_parent", "R4", run=map_after_parent),
    Mutant("counts_never_written", "R5", run=counts_never_written),
    Mutant("initialised_too_early", "flag of reference blocks", run=initialised_too_early),
    Mutant("clean_mark_stays", "clean mark", run=clean_mark_stays),
    Mutant("no_log", "log", run=no_log),
    Mutant("in_place_at_once", "log and epoch 2", run=in_place_at_once),
    Mutant("first_flush_off", "flush of epoch 1", run=first_flush_off),
    Mutant("second_flush_off", "flush of epoch 2", run=second_flush_off),
    Mutant("flush_before_writes", "submission for completion", run=flush_before_writes),
    Mutant("numbers_for_nothing", "halves of the log in turn", run=numbers_for_nothing),
    Mutant("stamps_without_number", "number in the stamp", run=stamps_without_number),
    Mutant("no_recovery", "recovery", mount=no_recovery),
    Mutant("redo_without_evidence", "evidence rule", mount=redo_without_evidence),
    Mutant("never_redo", "redo", mount=never_redo),
    Mutant("torn_is_no_evidence", "torn blocks", mount=torn_is_no_evidence),
    Mutant("redo_half", "redo of all images", mount=redo_half),
    Mutant("older_transaction", "newest transaction", mount=older_transaction),
    Mutant("collector_sees_no_change", "barrier", run=collector_sees_no_change, trial="collecting"),
    Mutant("flush_does_nothing", "device", run=flush_does_nothing),
    Mutant("last_write_late", "device", disk=last_write_late),
    Mutant("lost_write", "device", disk=lost_write),
)
