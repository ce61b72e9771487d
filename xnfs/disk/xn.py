"""XN: one open image, with all system calls of the disk.

Here the parts are put together and taken apart, and here are the calls that concern the image as a
whole: durability, leaks, counters, closing. The other calls are inherited, one room each:

    catalogue_calls.py   types, roots, free map, capabilities
    change_calls.py      who owns what: change, alloc, free, move, relocate, …, temporary roots
    page_calls.py        bytes of cached blocks, pins, locks
    syscalls.py          the lock around each call; rights; may anything be written

Every public method checks the caller's capability, takes the lock, does one thing through the
modules below it, and returns plain data. Nothing here or below prefers one block, page or caller to
another.

    change.py   is this change of pointers exactly what is claimed?   flow.py   the arithmetic
    acl.py      does the file system's own rule agree?   reshape.py   objects that move or are held
    ledger.py   who owns what, now and durably (R1, R4, R5)
    commit.py   what is written with what, and when it is durable (R2, R3)
    pages.py    bytes in and out of the registry
    collect.py  leaks;   recovery.py  what follows a crash;   roots.py  names of file systems

Source: Kaashoek et al. 1997, section 4 and table 1.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from xnfs.capability import ALL, WRITE, Capabilities
from xnfs.disk.acl import Acls
from xnfs.disk.catalogue_calls import CatalogueCalls
from xnfs.disk.change import Changer
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import CLEAN, DAMAGED, Seed
from xnfs.disk.ledger import Ledger
from xnfs.disk.log import Log
from xnfs.disk.order import Order
from xnfs.disk.pages import PageIO
from xnfs.disk.records import Caller, CollectStatus
from xnfs.disk.recovery import Overlay, Recovered, recover
from xnfs.disk.registry import Registry
from xnfs.disk.reshape import Reshaper
from xnfs.disk.roots import Roots
from xnfs.disk.superblock import read_copies_untrusted
from xnfs.disk.syscalls import DISK, syscall
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import DeviceError, Refused
from xnfs.memory.frames import FramePool

#: The calls that `batch` can make: those that never wait for the device's cache.
BATCHED: Final = frozenset(
    "access alloc alloc_held bind change depend drop evict free hold lock map move pin prefetch"
    " read readin readin_all relocate swap unbind unlock unpin update write_raw writeback".split()
)


class Xn(CatalogueCalls):
    """One open image."""

    def __init__(
        self,
        device: BlockDevice,
        *,
        frames: FramePool,
        readonly: bool = False,
        clock: Callable[[], int] = time.time_ns,
        capabilities: Capabilities | None = None,
    ) -> None:
        """Open an image: recovery included, in time that does not depend on its size.

        `frames`: where cached blocks lie. `clock`: ns since 1970, shown to acls.
        Raises BadImage, VersionError, CorruptionError, DeviceError; the device then is the caller's
        to close.
        """
        self._mutex = threading.RLock()
        self._lock = threading.Condition(self._mutex)
        self._calls = 0
        self._clock = clock
        sb, self.bad_superblocks = read_copies_untrusted(device)
        self._sb = sb
        g = self._geometry = sb.geometry
        self._seed = Seed(sb.uuid)
        self._data = (g.data_start, g.data_end)
        self.readonly = readonly or device.readonly or sb.must_be_readonly
        self.damaged = bool(sb.state & DAMAGED)
        self._clean = bool(sb.state & CLEAN)
        self._leaky = not self._clean
        self._closed = False
        log = Log(device, self._seed, g)
        self._assemble(frames, log, self._recover(device, log))
        if self.bad_superblocks and not self.readonly:
            # A disk may well take a write where it could not read. If not, writes have stopped.
            with suppress(DeviceError):
                self._set_state(sb.state)
        self._caps = capabilities or Capabilities()
        #: capability for the whole disk, for whoever opened the image
        self.admin = self._caps.mint(DISK, ALL, "admin")

    def _recover(self, device: BlockDevice, log: Log) -> Recovered:
        """Finish what a cut interrupted, in memory only if the image is read-only. When the image
        was marked clean everything was in place: the log is not looked at.
        """
        self._types = TypeTable(device, self._geometry, self._seed, self._sb.types_used)
        if self._clean:
            self._device, self.recovered = device, "nothing"
            return Recovered(device, self._sb.seq, frozenset(), "nothing")
        target = Overlay(device, {}) if self.readonly else device
        after = recover(target, self._seed, log, self._types.stamps(), self._geometry, self._sb.seq)
        self._device, self.recovered = after.device, after.done
        return after

    def _assemble(self, frames: FramePool, log: Log, after: Recovered) -> None:
        device, seed, types = self._device, self._seed, self._types
        tables = self._tables = Tables.load(device, self._geometry, seed, versions=after.versions)
        registry = self._registry = Registry(frames)
        ledger = self._ledger = Ledger(tables, registry)
        self._order = Order(registry)
        self._committer = Committer(
            device, seed, log, tables, registry, ledger, self._order,
            max(after.seq, self._sb.seq), after.logged, self._lock,
        )  # fmt: skip
        self._acls = Acls(self._clock)
        self._changer = Changer(types, registry, ledger, tables, self._data, self._acls, self._saw)
        self._reshaper = Reshaper(
            types, registry, ledger, tables, self._data, self._acls, self._saw
        )
        self._pages = PageIO(device, seed, types, registry, ledger, tables)
        self._roots = Roots(device, seed, self._geometry, types, registry, tables)
        self._collector = None

    # -- the image

    @property
    def blocks(self) -> int:
        """Size of the image in blocks."""
        return self._geometry.blocks

    @property
    def data_area(self) -> tuple[int, int]:
        """The blocks [lo, hi) that file systems can own."""
        return self._data

    @property
    def uuid(self) -> bytes:
        """Of the image."""
        return self._sb.uuid

    @property
    def label(self) -> str:
        """Of the image."""
        return self._sb.label

    def now(self) -> int:
        """The clock that acls see, ns since 1970."""
        return self._clock()

    @syscall
    def stats(self) -> dict[str, int]:
        """Counters since the image was opened."""
        return {
            "calls": self._calls,
            "transactions": self._committer.transactions,
            "pages": len(self._registry.pages),
            "dirty": len(self._registry.plain),
            "attached_dirty": len(self._registry.attached),
            "free_blocks": self._tables.free_blocks,
            "held": len(self._ledger.held),
            "log_capacity": self._committer.capacity,
        }

    # -- durability

    @syscall
    def sync(self, who: Caller, blocks: Iterable[int] | None = None) -> None:
        """Make blocks durable, with all that must go with them (None: everything). One flush,
        unless there is more than the log can take.

        Anybody may sync anything. Raises DeviceError; from then on writes have stopped, and this
        keeps failing.
        """
        if self.readonly or self._closed:
            return
        self._committer.commit(blocks)

    @syscall
    def writeback(self, who: Caller, blocks: Iterable[int]) -> None:
        """Write dirty data and fresh blocks among these, without a flush: not durable on return.
        The few that the newest transaction vouches for, or has images of, stay dirty.
        """
        if not self.readonly:
            self._committer.write_back(blocks)

    @syscall
    def depend(self, who: Caller, before: int, after: int) -> None:
        """No power cut shows `after` without `before`. Raises CycleError."""
        self._page(who, before, WRITE)
        self._page(who, after, WRITE)
        self._order.declare(before, after)

    @syscall
    def dirty_count(self) -> tuple[int, int]:
        """(dirty data and fresh blocks, dirty attached metadata blocks)."""
        return len(self._registry.plain), len(self._registry.attached)

    @syscall
    def batch(self, who: Caller, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Many calls, one crossing: (name, arguments after the caller), made in order.

        Returns their results. Raises what the first that fails raises; those before it stand, those
        after it are not made. Raises Refused for a name that is not in BATCHED, before any is made.
        """
        calls = [(name, tuple(arguments)) for name, arguments in calls]
        for name, _arguments in calls:
            if name not in BATCHED:
                raise Refused(f"{name} can't be part of a batch")
        return [getattr(self, name)(who, *arguments) for name, arguments in calls]

    # -- leaks

    @syscall
    def collect(self, who: Caller, budget: int = 64) -> CollectStatus:
        """Go on with the collection of leaks: visit up to `budget` metadata blocks.

        Starts one if none is under way. When `done`, the blocks are free; raises CorruptionError
        with nothing freed.
        """
        self._writable()
        if self._collector is None:
            roots = [(e.type, e.block, 1) for e in self._roots.entries()]
            self._collector = Collector(
                self._device, self._seed, self._types, self._registry, self._ledger,
                self._tables, roots, self._data, self._committer.commit,
            )  # fmt: skip
        collector = self._collector
        try:
            status = collector.step(budget)
        except BaseException:
            self._give_up(collector)  # it has not seen everything
            raise
        if status.done and self._collector is collector:
            self._collector, self._leaky = None, False
        return status

    def _give_up(self, collector: Collector) -> None:
        collector.over = True
        if self._collector is collector:
            self._collector = None

    @property
    def leaky(self) -> bool:
        """True if the image was not unmounted cleanly and no collection has finished since."""
        return self._leaky

    # -- closing

    @syscall
    def close(self) -> None:
        """Make everything durable, mark the image clean if it has no leaks, and close the device.

        Raises DeviceError; the device is closed all the same.
        """
        if self._closed:
            return
        try:
            self._finish()
        finally:
            self._closed = True
            self._registry.drop(list(self._registry.pages))
            self._device.close()

    def _finish(self) -> None:
        if self.readonly:
            return
        self._committer.commit()
        self._committer.write_tables()
        state = self._sb.state
        if not self._leaky and not self._ledger.held and not self.damaged:
            state |= CLEAN
        behind = self._committer.seq > self._sb.seq or self._types.used > self._sb.types_used
        if state != self._sb.state or behind:
            self._sb = replace(self._sb, seq=self._committer.seq)
            self._set_state(state)
            self._committer.empty_log()
