"""The boundary of XN: the lock around every system call, and the questions that each begins with.

`syscall` makes a method a system call: one call at a time, and corruption that it meets stops
writes. `Boundary` answers what every call asks first: may this caller name that block, may anything
be written now, is there room in the log for what would become dirty. The calls themselves are in
`catalogue_calls.py`, `change_calls.py` and `page_calls.py`, those of the whole image in `xn.py`,
which also puts the parts together.

Rights: a capability for ("disk", "root", NAME) gives access to the blocks of that root; READ to
bind and read, WRITE to change, ALLOC to take blocks. What a change may do inside the root is up to
the type's acl (`acl.py`), given the caller's uid, gid and groups.

Relies on `Xn.__init__` for its attributes. Guarantees: once the image is damaged or a write has
failed, `_writable` refuses; a page that `_page` returns is one that the caller may name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, Final, TypeVar, cast

from xnfs.capability import WRITE, Capabilities
from xnfs.disk.acl import Acls
from xnfs.disk.change import Changer
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.device import BlockDevice
from xnfs.disk.geometry import Geometry
from xnfs.disk.layout import CLEAN, DAMAGED, Seed, Superblock
from xnfs.disk.ledger import Ledger
from xnfs.disk.order import Order
from xnfs.disk.pages import PageIO
from xnfs.disk.records import Caller, Extent
from xnfs.disk.registry import MetaPage, Page, Registry
from xnfs.disk.reshape import Reshaper
from xnfs.disk.roots import KERNEL, Roots
from xnfs.disk.superblock import write_superblock
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import (
    CapabilityError,
    CorruptionError,
    DeviceError,
    NotCached,
    ReadOnly,
    Refused,
)

F = TypeVar("F", bound=Callable[..., Any])
#: the resource of calls that concern more than one root
DISK: Final = ("disk",)


def syscall(method: F) -> F:
    """The one lock boundary: one call at a time; corruption that it meets stops writes."""

    @wraps(method)
    def call(self: Boundary, *args: Any, **kwargs: Any) -> Any:
        with self._mutex:
            self._calls += 1
            try:
                return method(self, *args, **kwargs)
            except CorruptionError as e:
                self._corrupt(e)
                raise

    return cast(F, call)


class Boundary:
    """What all system calls share: the parts of an open image, the checks before any effect."""

    _lock: threading.Condition
    _mutex: threading.RLock  # of that condition: entering it costs a third
    _calls: int
    _clock: Callable[[], int]
    _caps: Capabilities
    # what the image is, and in what state
    _device: BlockDevice
    _sb: Superblock
    _geometry: Geometry
    _seed: Seed
    _data: tuple[int, int]
    readonly: bool
    damaged: bool
    _clean: bool
    _leaky: bool
    _closed: bool
    # the parts
    _types: TypeTable
    _roots: Roots
    _tables: Tables
    _registry: Registry
    _ledger: Ledger
    _order: Order
    _committer: Committer
    _acls: Acls
    _changer: Changer
    _reshaper: Reshaper
    _pages: PageIO
    _collector: Collector | None

    # -- rights

    def _rights(self, who: Caller, root: str) -> int:
        return self._caps.rights_for(who.cap, ("disk", "root", root))

    def _may(self, who: Caller, root: str, rights: int) -> None:
        if root == KERNEL:
            raise CapabilityError("that block is the kernel's own")
        self._caps.check(who.cap, ("disk", "root", root), rights)

    def _page(self, who: Caller, block: int, rights: int) -> Page:
        page = self._registry.pages.get(block)
        if page is None:
            raise NotCached(f"block {block} is not cached")
        self._may(who, page.root, rights)
        return page

    def _meta(self, who: Caller, block: int, rights: int) -> MetaPage:
        page = self._page(who, block, rights)
        if not isinstance(page, MetaPage):
            raise Refused(f"block {block} is plain data")
        if rights & WRITE and block in self._registry.locks:
            self._check_lock(who, block)
        return page

    def _locker(self, block: int) -> bytes | None:
        """The capability that has locked the block. A lock ends with its capability."""
        locks = self._registry.locks
        holder = locks.get(block)
        if holder is not None and not self._caps.alive(holder):
            del locks[block]
            return None
        return holder

    def _check_lock(self, who: Caller, block: int) -> None:
        if self._locker(block) not in (None, who.cap):
            raise Refused(f"block {block} is locked by another")

    # -- may anything be written

    def _writable(self) -> None:
        if self._closed or self.readonly:
            raise ReadOnly("the image is open read-only")
        if self.damaged:
            raise ReadOnly("writes have stopped: the image is damaged")
        if self._committer.failed is not None:
            raise ReadOnly(f"writes have stopped: {self._committer.failed}")
        if self._clean:
            self._set_state(self._sb.state & ~CLEAN)
            self._clean = False

    def _set_state(self, state: int) -> None:
        with self._committer.stops_on_failure(retry=True):
            new = replace(self._sb, state=state, types_used=self._types.used)
            self._sb = write_superblock(self._device, new)

    def _corrupt(self, error: CorruptionError) -> None:
        """Corruption stops writes, now and until fsck has looked at it."""
        if self.damaged:
            return
        self.damaged = True
        if self._collector is not None:
            self._collector.over = True
            self._collector = None
        if not self.readonly and not self._closed:
            with suppress(DeviceError):  # then writes have stopped for that reason
                self._set_state((self._sb.state | DAMAGED) & ~CLEAN)

    def _make_room(self, edits: int) -> None:
        """The log bounds how much attached metadata may be dirty at once.

        Comes first in a call: others may run while it commits.
        """
        if edits > self._committer.capacity:
            raise Refused(f"a change of {edits} blocks does not fit the log")
        while self._committer.room < edits:
            self._writable()
            self._committer.commit()

    # -- the collector's barrier

    def _saw(self, extents: Iterable[Extent]) -> None:
        if self._collector is not None:
            self._collector.saw(extents)
