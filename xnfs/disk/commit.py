"""Transactions: what is written together, in which epoch, and when it counts as durable.

    epoch 1   fresh blocks, overwritten data, the kernel's tables, the log     -> flush
    epoch 2   attached metadata, in place                                      -> flush

Kept here: R2 (a fresh block is tied to the parent that names it, and goes in epoch 1), R3 (both
ends of a move are tied), the first halves of R4 and R5 (tables in epoch 1). The second halves, and
R1, are `Ledger.settle` after the commit point. Not here: which blocks to write and when (the libFS
asks), what follows a crash (`recovery.py`).

Guarantees: when `commit` returns, everything asked for is durable; when it raises, writes have
stopped for good, because after a failed write or flush nobody knows what the device holds (a later
success would be a lie).

Source: DESIGN section 5; Ganger and Patt 1994.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import Seed, stamp_block
from xnfs.disk.ledger import Due, Ledger
from xnfs.disk.log import Image, Log
from xnfs.disk.order import Order
from xnfs.disk.registry import MetaPage, Registry, runs
from xnfs.disk.tables import Tables
from xnfs.errors import DeviceError, ReadOnly, XnError


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
        self._unflushed = False
        self._lock = lock  # the one of all system calls; held by whoever calls a method here
        self._busy = False
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
        """Make the components of these blocks (None: everything) durable. At most two flushes.

        Blocks that a declared order puts first get a commit of their own, before.
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
        while stack:
            members, plain = self._gather(stack[-1])
            first = self._order.before(plain)
            first |= self._order.before(members - plain) - members - plain
            if not first:
                self._commit(members, plain)
                stack.pop()
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
        return.
        """
        self._check()
        plain = self._registry.plain.intersection(blocks)
        if first := self._order.before(plain):
            self.commit(first)
            plain &= self._registry.plain
        with self.stops_on_failure(retry=True):
            self._write_plain(plain)

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
        """Make what has fallen due since the last commit durable in the tables."""
        with self._alone(), self.stops_on_failure(retry=False):
            self._write_tables()
            self._flush()
            self._write_tables()  # that a reference block is initialised may be said only now
            self._flush()

    def _check(self) -> None:
        if self.failed is not None:
            raise self.failed
        if self._device.readonly:
            raise ReadOnly("the image is open read-only")

    def _gather(self, blocks: Iterable[int] | None) -> tuple[set[int], set[int]]:
        """(metadata blocks of the transaction, dirty plain blocks to write in epoch 1)."""
        registry = self._registry
        if blocks is None:
            return set(registry.attached).union(self._ledger.ties), set(registry.plain)
        wanted = set(blocks)
        members = self._ledger.component(wanted)
        plain = registry.plain & (members | wanted)
        for block in members:
            page = registry.get(block)
            if isinstance(page, MetaPage) and (page.added or page.filled):
                plain |= registry.plain & (page.added | page.filled)
        return members, plain

    def _commit(self, members: set[int], plain: set[int]) -> None:
        registry = self._registry
        pages = [p for b in members if isinstance(p := registry.get(b), MetaPage)]
        dirty = sorted((p for p in pages if p.block in registry.attached), key=lambda p: p.block)
        last = self.seq
        # The halves of the log are used in turn, and the half that holds the last transaction must
        # stay until this one is complete: only what goes to the log takes a number.
        self.seq += bool(dirty)
        self.transactions += 1
        with self.stops_on_failure(retry=True):
            try:
                self._write_plain(plain)
                self._write_tables()
                images = [self._image(page) for page in dirty]
                if images:
                    self._unflushed = True
                    self._log.write(self.seq, images)
            except DeviceError:
                self.seq = last
                raise
        due = self._take(pages)
        registry.attached.difference_update(page.block for page in dirty)
        self.in_flight = frozenset(page.block for page in dirty)
        self._order.written(self.in_flight)
        with self.stops_on_failure(retry=False):
            self._flush()
            # From here the log and every fresh block are durable: the transaction can be completed
            # from what is on the disk, so writing in place may begin.
            self._order.written(self.in_flight)
            for image in images:
                self._unflushed = True
                self._device.write(image.block, [image.data])
            self._flush()
        # Commit point: the transaction is durable.
        self.in_flight = frozenset()
        self._ledger.settle(due)

    def _take(self, pages: list[MetaPage]) -> list[Due]:
        """What these pages add and drop goes to this transaction; what they add or drop from now on
        goes to the next. Fresh pages that a pointer of the transaction names may be named by a
        durable one at any moment: they are attached.
        """
        ledger, get = self._ledger, self._registry.get
        reached = [page for page in pages if not page.fresh]
        for page in reached:
            for block in (*page.added, *page.shared):
                child = get(block)
                if isinstance(child, MetaPage) and child.fresh:
                    child.fresh = False
                    reached.append(child)
        due = [ledger.take(page, reached=not page.fresh) for page in pages]
        return due + [ledger.take(page, reached=True) for page in reached]

    def _write_plain(self, plain: set[int]) -> None:
        registry = self._registry
        for start, count in runs(plain):
            registry.clear(start, count)
            for block in range(start, start + count):
                page = registry.pages[block]
                if page.type.stamp is not None:
                    stamp_block(
                        self._seed, block, page.view, page.type.stamp, page.type.number, self.seq
                    )
            self._unflushed = True
            self._device.write(start, registry.views(start, count))
        registry.plain -= plain
        self._order.written(plain)

    def _write_tables(self) -> None:
        for block in self._tables.dirty_blocks():
            self._unflushed = True
            self._device.write(block, [self._tables.encode(block)])
            self._tables.mark_written(block)

    def _image(self, page: MetaPage) -> Image:
        """The page as it must be in place; the stamp names this transaction."""
        kind = page.type
        assert kind.stamp is not None  # a MetaPage's type has one
        stamp_block(self._seed, page.block, page.view, kind.stamp, kind.number, self.seq)
        return Image(page.block, kind.number, bytes(page.view))

    def _flush(self) -> None:
        """Everything written so far is durable on return. The lock is released meanwhile."""
        if not self._unflushed:
            return
        self._unflushed = False
        self._order.flushing()
        self._lock.release()
        try:
            self._device.flush()
        finally:
            self._lock.acquire()
        self._tables.after_flush()
        self._order.flushed()
