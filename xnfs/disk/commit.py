"""Transactions: what is written together, and when it counts as durable.

    in place        fresh blocks, overwritten data
    into the log    attached metadata, the kernel's tables, and the digests of the blocks written
                    in place that the metadata relies on
    flush           <- the commit point
    in place        what is in the log; the next flush makes it durable there

Kept here: R2 (a fresh block is tied to the parent that names it, and is listed with it), R3 (both
ends of a move are tied), the first halves of R4 and R5 (tables in the same transaction). The second
halves, and R1, are `Ledger.settle` after the commit point. And what recovery relies on:

- while a transaction is the newest, nothing but its images is written where they belong; other
  blocks that are to go there go through the log;
- until they are durable there, no block of its list is overwritten in place, either.

Not here: which blocks to write and when (the libFS asks), what follows a crash (`recovery.py`).

Guarantees: when `commit` returns, everything asked for is durable; when it raises, writes have
stopped for good, because after a failed write or flush nobody knows what the device holds (a later
success would be a lie).

Source: DESIGN section 5; Ganger and Patt 1994.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Final

from xnfs.disk.blocktype import ZERO
from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import Seed, stamp_block
from xnfs.disk.ledger import Due, Ledger
from xnfs.disk.log import Image, Log
from xnfs.disk.order import Order
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables
from xnfs.errors import DeviceError, ReadOnly, XnError
from xnfs.runs import runs

#: Images written in place by one request, at most.
RUN: Final = 256


class Committer:
    """Writes blocks out, in order."""

    def __init__(
        self,
        device: BlockDevice,
        seed: Seed,
        log: Log,
        tables: Tables,
        registry: Registry,
        ledger: Ledger,
        order: Order,
        seq: int,
        logged: frozenset[int],
        lock: threading.Condition,
    ) -> None:
        self._device = device
        self._seed = seed
        self._log = log
        self._tables = tables
        self._registry = registry
        self._ledger = ledger
        self._order = order
        self.seq = seq
        self.failed: XnError | None = None
        self._lock = lock  # the one of all system calls; held by whoever calls a method here
        self._busy = False
        #: something was written that nobody may call durable yet
        self._unflushed = False
        #: images of the newest transaction were written in place since the last flush
        self._unplaced = False
        #: blocks with an image in the newest transaction
        self._newest = logged
        #: blocks that recovery may write: these, and those of the transaction before during the
        #: flush of the newest, and for good if that has no stamp to be known by
        self._logged = logged
        #: blocks listed in the same, until a flush has made the images durable in place
        self._listed: frozenset[int] = frozenset()
        #: block -> digest of what was written in place since the last flush; complete only while it
        #: has no more than `Log.entries`. None: by the transaction that is being written, so that
        #: the frame still has these bytes
        self._written: dict[int, int | None] = {}
        #: blocks whose place on the disk is behind their clean pages: not to be read from there
        self.in_flight: frozenset[int] = frozenset()
        self.transactions = 0

    @property
    def capacity(self) -> int:
        """How many attached metadata blocks one transaction can have."""
        return self._log.capacity

    @property
    def room(self) -> int:
        """How many more attached metadata blocks may become dirty before a commit must come."""
        return self._log.capacity - len(self._registry.attached)

    def commit(self, blocks: Iterable[int] | None = None) -> None:
        """Make the components of these blocks (None: everything) durable, with one flush.

        It takes more for what is too large for the log, and for blocks that a declared order puts
        before data. Nothing is flushed if nothing was written since the last time.
        Other system calls go on during the flushes, so the caller must not rely on anything that it
        saw before. One commit at a time. Raises DeviceError; then writes have stopped.
        """
        with self._alone():
            self._commit_all(blocks)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        while self._busy:
            self._lock.wait()
        self._busy = True
        try:
            self._check()
            yield
        finally:
            self._busy = False
            self._lock.notify_all()

    def _commit_all(self, blocks: Iterable[int] | None) -> None:
        stack: list[set[int] | None] = [None if blocks is None else set(blocks)]
        patient = True
        while stack:
            members, plain = self._gather(stack[-1])
            # What goes in place before the flush comes before what goes through the log.
            waits = self._order.before(members - plain)
            plain |= waits & self._registry.plain
            first = self._order.before(plain)
            first |= waits - members - plain - self._written.keys()
            if not first and self._fits(members, plain):
                self._commit(members, plain)
                stack.pop()
            elif not first:
                # What comes into being during one flush can't be kept out; during two it is.
                self._go_ahead(plain, patient=patient)
                patient = False
            elif all(first.isdisjoint(waiting or ()) for waiting in stack):
                stack.append(first)
            elif (one := {min(first)}) not in stack:
                stack.append(one)
            else:
                # Declared one way, owned the other way. Ownership keeps the disk whole, and nobody
                # may stop the syncs of others; what is in one transaction is in no order.
                self._order.void(members | plain, one)

    def write_back(self, blocks: Iterable[int]) -> None:
        """Write dirty data and fresh blocks in place, any order, no flush. Nothing is durable on
        return. The few that recovery may still need as they are on the disk stay dirty.
        """
        self._check()
        plain = self._registry.plain.intersection(blocks)
        if first := self._order.before(plain):
            self.commit(first)
            plain &= self._registry.plain
        with self.stops_on_failure(retry=True):
            plain -= self._guarded(plain)
            self._write_plain(plain)
            self._digest(plain)

    @contextmanager
    def stops_on_failure(self, *, retry: bool) -> Iterator[None]:
        """Stop all writes for good when the device fails.

        `retry`: nothing attached was touched yet, so a host disk that is merely full is no reason
        to stop: the blocks stay dirty, and the same call may succeed later.
        """
        try:
            yield
        except DeviceError as e:
            if not (retry and e.errno == errno.ENOSPC):
                self.failed = e
            raise

    def write_tables(self) -> None:
        """Make what has fallen due since the last commit durable in the tables, and everything in
        place: nothing of the log is needed any more."""
        with self._alone():
            while self._tables.dirty_blocks():
                self._go_ahead(set(), patient=False)
            if self._unplaced:
                self._unflushed = True
                with self.stops_on_failure(retry=False):
                    self._flush(patient=False)

    def empty_log(self) -> None:
        """Everything is in place and the superblock knows the last number: recovery would only undo
        what others do to the image. That this becomes durable does not matter.
        """
        with self.stops_on_failure(retry=False):
            self._log.erase(0)
            self._log.erase(1)

    def _check(self) -> None:
        if self.failed is not None:
            raise self.failed
        if self._device.readonly:
            raise ReadOnly("the image is open read-only")

    # -- what goes with what

    def _gather(self, blocks: Iterable[int] | None) -> tuple[set[int], set[int]]:
        """(metadata of the transaction, dirty plain blocks that it names or that were asked for)"""
        registry, ties = self._registry, self._ledger.ties
        if blocks is None:
            return registry.attached.union(ties), set(registry.plain)
        wanted = set(blocks)
        # Data is tied to nothing: only metadata, cached or not, can have others come along.
        members = self._ledger.component(
            (registry.metadata.keys() & wanted) | (ties.keys() & wanted)
        )
        plain = registry.plain & (members | wanted)
        for block in registry.metadata.keys() & members:
            page = registry.metadata[block]
            plain |= registry.plain & page.added
            plain |= registry.plain & page.filled
        return members, plain

    def _guarded(self, plain: set[int]) -> set[int]:
        """Those that must not be written in place."""
        return plain & self._logged | plain & self._listed

    def _fits(self, members: set[int], plain: set[int]) -> bool:
        """Is one half of the log enough for this, with a list of all that was written in place?"""
        images = len(self._guarded(plain))
        if attached := len(members & self._registry.attached):
            images += attached
            listed = len(plain) + len(self._written)
            if images + listed + self._tables.due_at_most(len(plain)) <= self._log.capacity:
                return True
            tables, versions = self._due(plain)
            images += len(tables)
            if images + listed + versions > self._log.entries:
                return False
        return images <= self._log.capacity

    def _go_ahead(self, plain: set[int], *, patient: bool) -> None:
        """Make durable what may be so at any time: plain blocks and tables. Then the rest fits."""
        logged = sorted(self._guarded(plain))[: self.capacity]
        # The map, which says where there are numbers, comes after them.
        tables = self._tables.dirty_blocks()[::-1][: self.capacity - len(logged)]
        self._transact([], logged, tables, plain, patient=patient)

    def _commit(self, members: set[int], plain: set[int]) -> None:
        metadata = self._registry.metadata
        pages = [metadata[block] for block in metadata.keys() & members]
        dirty = members & self._registry.attached
        logged = sorted(dirty | self._guarded(plain))
        # Without a new durable pointer the tables can wait.
        tables = self._due(plain)[0] if dirty else []
        self._transact(pages, logged, tables, plain, patient=True)

    def _due(self, plain: Iterable[int]) -> tuple[list[int], int]:
        """See `Tables.due`."""
        return self._tables.due(list(self._registry.metadata.keys() & plain))

    # -- writing

    def _transact(
        self,
        pages: Sequence[MetaPage],
        logged: Sequence[int],
        tables: Sequence[int],
        plain: set[int],
        *,
        patient: bool,
    ) -> None:
        """Write `plain` in place but for what must go through the log with `logged` and `tables`;
        flush; write that in place.

        `pages`: whose pointer changes are durable then. Only what goes to the log takes a number:
        the halves are used in turn, and the one with the last transaction must stay until this one
        is complete.
        """
        last = self.seq
        self.seq += bool(logged or tables)
        self.transactions += 1
        reached = self._reached(pages)
        with self.stops_on_failure(retry=True):
            try:
                self._write_plain(plain - self._guarded(plain))
                images = [self._image(block) for block in logged]
                # The map last: blocks of numbers may have it say that they hold some.
                images += [
                    Image(block, 0, self._tables.encode(block, self.seq))
                    for block in sorted(tables, reverse=True)
                ]
                listed = self._relied_on(reached, logged)
                if images:
                    self._unflushed = True
                    self._reserve(tables)
                    self._log.write(self.seq, images, listed, self._tables.versions.pending)
            except BaseException:
                self.seq = last
                self._digest(plain)  # while the frames have what was written
                raise
        due = self._take(pages, reached)
        self._logs(logged, tables)
        with self.stops_on_failure(retry=False):
            if images:
                self._flush_log(images, listed, patient=patient)
            else:
                self._flush(patient=patient)
            # Commit point: the transaction is durable, in the log.
            for run in _neighbours(images):
                self._unplaced = True
                self._device.write(run[0].block, [image.data for image in run])
        self.in_flight = frozenset()
        self._tables.placed()
        self._ledger.settle(due)

    def _reserve(self, tables: Iterable[int]) -> None:
        """Have the host find room for tables that are holes in its file. Until this transaction
        counts no map says that they hold anything, so they may be anything.
        """
        for block in self._tables.first_written.intersection(tables):
            self._device.write(block, [ZERO])

    def _flush_log(self, images: Sequence[Image], listed: dict[int, int], *, patient: bool) -> None:
        """Flush, and know meanwhile and afterwards what recovery may need or write."""
        last, self._newest = self._newest, frozenset(image.block for image in images)
        self.in_flight = self._newest
        self._logged |= self._newest
        self._listed |= frozenset(listed)
        self._flush(patient=patient)
        self._logged = self._newest
        if not any(image.type for image in images):
            self._logged |= last
        self._listed = frozenset(listed)

    def _reached(self, pages: Iterable[MetaPage]) -> list[MetaPage]:
        """Those of the pages that a durable pointer may name when this transaction is durable, and
        fresh ones that their pointers name."""
        metadata = self._registry.metadata
        out = [page for page in pages if not page.fresh]
        seen = {page.block for page in out}
        for page in out:
            for block in (metadata.keys() & page.added) | (metadata.keys() & page.shared.keys()):
                child = metadata[block]
                if child.fresh and block not in seen:
                    seen.add(block)
                    out.append(child)
        return out

    def _relied_on(self, reached: Iterable[MetaPage], logged: Iterable[int]) -> dict[int, int]:
        """Blocks written in place since the last flush without which this transaction must not be:
        new ones that it names, and those that a declared order puts before. With their digests.
        """
        written = self._written
        metadata = self._registry.metadata.keys() & logged
        if not metadata:
            return {}
        blocks = self._order.before(metadata) & written.keys()
        for page in reached:
            for new in (page.added, page.filled, page.shared.keys()):
                blocks |= written.keys() & new
        self._digest(blocks)
        return {block: digest for block in blocks if (digest := written[block]) is not None}

    def _take(self, pages: Iterable[MetaPage], reached: Iterable[MetaPage]) -> list[Due]:
        """What these pages add and drop goes to this transaction; what they add or drop from now on
        goes to the next. Fresh pages that were reached are attached.
        """
        take = self._ledger.take
        for page in reached:
            page.fresh = False
        return [take(p, reached=not p.fresh) for p in pages] + [
            take(p, reached=True) for p in reached
        ]

    def _logs(self, blocks: Sequence[int], tables: Iterable[int]) -> None:
        """These are in the log as they are now: clean."""
        self._registry.attached.difference_update(blocks)
        self._registry.plain.difference_update(blocks)
        self._order.written(blocks)
        for block in tables:
            self._tables.mark_written(block)
            if self._tables.has_version(block):
                self._tables.versions.set(block, self.seq)
        for block in blocks:
            if block in self._registry.metadata:
                self._tables.versions.set(block, self.seq)

    def _write_plain(self, plain: set[int]) -> None:
        """Write these in place. What fails half-way stays dirty as a whole, and so is written again
        before anything relies on it.
        """
        registry, written = self._registry, self._written
        for block in sorted(registry.metadata.keys() & plain):
            self._stamp(registry.metadata[block])
            self._tables.versions.set(block, self.seq)
        for start, count in runs(plain):
            registry.clear(start, count)
            self._unflushed = True
            self._device.write(start, registry.views(start, count))
        # One more than the log can list stands for all others; but what is here must be true.
        room = max(self._log.entries + 1 - len(written), 0)
        new = islice(plain.difference(written), room)
        written.update(dict.fromkeys(chain(written.keys() & plain, new)))
        registry.plain -= plain
        self._order.written(plain)

    def _digest(self, blocks: Iterable[int]) -> None:
        """Have the digests of those among these that are `_written`. Their frames must still have
        the bytes."""
        written, digest, view = self._written, self._seed.digest, self._registry.view
        for block in written.keys() & blocks:
            if written[block] is None:
                written[block] = digest(block, view(block))

    def _stamp(self, page: MetaPage) -> None:
        """Its stamp names this transaction."""
        assert page.type.stamp is not None  # metadata has one
        kind = page.type
        stamp_block(self._seed, page.block, page.view, page.type.stamp, kind.number, self.seq)

    def _image(self, block: int) -> Image:
        """The page as it must be in place."""
        page = self._registry.pages[block]
        if isinstance(page, MetaPage):
            self._stamp(page)
            return Image(block, page.type.number, bytes(page.view))
        self._registry.clear(block, 1)
        return Image(block, 0, bytes(self._registry.view(block)))

    def _flush(self, *, patient: bool) -> None:
        """Everything written so far is durable on return. `patient`: others may run meanwhile.

        What was written in place after the last transaction is durable: its list has done its work.
        """
        if not self._unflushed:
            return
        self._unflushed = self._unplaced = False
        self._written = {}
        self._order.flushing()
        if patient:
            self._lock.release()
        try:
            self._device.flush()
        finally:
            if patient:
                self._lock.acquire()
        self._listed = frozenset()
        self._order.flushed()


def _neighbours(images: Iterable[Image]) -> list[list[Image]]:
    """The images in runs of consecutive blocks, each of which is one request."""
    out: list[list[Image]] = []
    for image in sorted(images, key=lambda image: image.block):
        if out and out[-1][-1].block + 1 == image.block and len(out[-1]) < RUN:
            out[-1].append(image)
        else:
            out.append([image])
    return out
