"""XN: the system calls of the disk.

This is the boundary: every public method checks the caller's capability, takes the lock, does one
thing through the modules below it, and returns plain data. Nothing here or below prefers one block,
page or caller to another.

    change.py   is this change of pointers exactly what is claimed, and does the acl agree?
    ledger.py   who owns what, now and durably (R1, R4, R5)
    commit.py   what is written with what, and when it is durable (R2, R3)
    pages.py    bytes in and out of the registry
    collect.py  leaks;   recovery.py  what follows a crash;   roots.py  names of file systems

Rights: a capability for ("disk", "root", NAME) gives access to the blocks of that root; READ to
bind and read, WRITE to change, ALLOC to take blocks. What a change may do inside the root is up to
the type's acl, given the caller's uid, gid and groups.

Source: Kaashoek et al. 1997, section 4 and table 1.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from xnfs.capability import ADMIN, ALL, ALLOC, READ, WRITE, Capabilities
from xnfs.disk.arguments import plain_bytes, plain_diff, plain_extents
from xnfs.disk.blocktype import ZERO
from xnfs.disk.change import Changer, Edit
from xnfs.disk.collect import Collector
from xnfs.disk.commit import Committer
from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import CLEAN, DAMAGED, FIRST_TYPE, Seed
from xnfs.disk.ledger import Ledger
from xnfs.disk.log import Log
from xnfs.disk.order import Order
from xnfs.disk.pages import PageIO
from xnfs.disk.records import (
    BLOCK,
    OP_ACCESS,
    Caller,
    CollectStatus,
    Diff,
    Extent,
    Registered,
    RootEntry,
    RootInfo,
    TypeSpec,
)
from xnfs.disk.recovery import Overlay, recover
from xnfs.disk.registry import MetaPage, Page, Registry
from xnfs.disk.roots import KERNEL, Roots
from xnfs.disk.superblock import read_superblock_untrusted, write_superblock
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import (
    CapabilityError,
    CorruptionError,
    DeviceError,
    NoSpace,
    NotCached,
    NotEmpty,
    ReadOnly,
    Refused,
)
from xnfs.memory.frames import FramePool

F = TypeVar("F", bound=Callable[..., Any])
DISK = ("disk",)


def syscall(method: F) -> F:
    """The one lock boundary: one call at a time; corruption that it meets stops writes."""

    @wraps(method)
    def call(self: Xn, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._calls += 1
            try:
                return method(self, *args, **kwargs)
            except CorruptionError as e:
                self._corrupt(e)
                raise

    return cast(F, call)


class Xn:
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
        self._lock = threading.Condition(threading.RLock())
        self._calls = 0
        self._clock = clock
        self._sb = read_superblock_untrusted(device)
        self.readonly = readonly or device.readonly or self._sb.must_be_readonly
        g = self._geometry = self._sb.geometry
        seed = Seed(self._sb.uuid)
        log = Log(device, seed, g)
        self._types = TypeTable(device, g, seed)
        data = (g.data_start, g.data_end)
        target = Overlay(device, {}) if self.readonly else device
        stamps = self._types.stamps()
        place = (g.roots_start, g.data_end)
        device, seq, self.recovered = recover(target, seed, log, stamps, place)
        self._device = device
        self._tables = Tables.load(device, g, seed)
        self._registry = Registry(frames, "xn")
        self._ledger = Ledger(self._tables, self._registry)
        self._order = Order(self._registry)
        self._committer = Committer(
            device,
            seed,
            log,
            self._tables,
            self._registry,
            self._ledger,
            self._order,
            max(seq, self._sb.seq),
            self._lock,
        )
        self._changer = Changer(
            self._types, self._registry, self._ledger, self._tables, data, clock, self._saw
        )
        self._pages = PageIO(device, seed, self._types, self._registry, self._ledger, self._tables)
        self._caps = capabilities or Capabilities()
        #: capability for the whole disk, for whoever opened the image
        self.admin = self._caps.mint(DISK, ALL, "admin")
        self._roots = Roots(device, seed, g, self._types, self._registry)
        self._collector: Collector | None = None
        self._seed = seed
        self._clean = bool(self._sb.state & CLEAN)
        self._leaky = not self._clean
        self.damaged = bool(self._sb.state & DAMAGED)
        self._data = data
        self._closed = False

    # -- rights

    def _may(self, who: Caller, root: str, rights: int) -> None:
        if root == KERNEL:
            raise CapabilityError("that block is the kernel's own")
        self._caps.check(who.cap, ("disk", "root", root), rights)

    def _page(self, who: Caller, block: int, rights: int) -> Page:
        page = self._registry.get(block)
        if page is None:
            raise NotCached(f"block {block} is not cached")
        self._may(who, page.root, rights)
        return page

    def _meta(self, who: Caller, block: int, rights: int) -> MetaPage:
        page = self._page(who, block, rights)
        if not isinstance(page, MetaPage):
            raise Refused(f"block {block} is plain data")
        if rights & WRITE and page.lock not in (None, who.cap):
            raise Refused(f"block {block} is locked by another")
        return page

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
            self._sb = write_superblock(self._device, replace(self._sb, state=state))

    def _corrupt(self, error: CorruptionError) -> None:
        """Corruption stops writes, now and until fsck has looked at it."""
        if self.damaged:
            return
        self.damaged = True
        self._collector = None
        if not self.readonly and not self._closed:
            with suppress(DeviceError):  # then writes have stopped for that reason
                self._set_state((self._sb.state | DAMAGED) & ~CLEAN)

    # -- catalogues

    @syscall
    def install_type(self, who: Caller, spec: TypeSpec) -> int:
        """Install a type, proved sound; the same again gives the same number. Durable on return.

        Raises Refused (which rule, or which line of which UDF), NoSpace.
        """
        self._caps.check(who.cap, DISK, ALLOC)
        number = self._types.number(spec.name)
        if number is None:
            self._writable()
        with self._committer.stops_on_failure(retry=True):
            return self._types.install(spec)

    @syscall
    def type_number(self, name: str) -> int | None:
        """The number of an installed type."""
        return self._types.number(name)

    @syscall
    def types(self) -> tuple[tuple[int, TypeSpec], ...]:
        """All types installed on this image."""
        return tuple((t.number, t.spec) for t in self._types)

    @syscall
    def roots(self) -> tuple[RootEntry, ...]:
        """All roots of this image."""
        return self._roots.entries()

    @syscall
    def install_root(self, who: Caller, name: str, type_number: int, *, hint: int = 0) -> RootInfo:
        """Create a root: its first block is allocated, zero. Durable after `sync`.

        Raises Refused (name in use, no type of metadata), UnknownType, NoSpace.
        """
        self._caps.check(who.cap, DISK, ADMIN | READ)
        self._writable()
        if self._types.get(type_number).stamp is None or type_number < FIRST_TYPE:
            raise Refused(f"type {type_number} can't be a root's")
        self._make_room(1)
        page, diff_for = self._roots.free_slot(name, type_number, self._clock())
        start, n = self._tables.find_free(hint, 1)
        if not n:
            raise NoSpace("no free block")
        claim = [(type_number, start, 1)]
        self._changer.change(who, [(page, diff_for(start))], claim, (), (), {}, {})
        self._adopt(start, name)
        return self._info(who, name, start, type_number)

    @syscall
    def mount_root(self, who: Caller, name: str) -> RootInfo:
        """Bind a root's first block. The capability gives what the caller's gives, but for ADMIN.

        Raises Refused if there is no such root, CorruptionError.
        """
        self._may(who, name, READ)
        page, part, start, kind = self._roots.find(name)
        self._pages.read_in(page, part, start, 1)
        self._adopt(start, name)
        return self._info(who, name, start, kind)

    @syscall
    def remove_root(self, who: Caller, name: str) -> None:
        """Forget a root and everything below it. Durable after `sync`; its blocks are leaks,
        collected as such.

        Its pages are dropped from the registry, its capabilities revoked. Raises Refused if there
        is no such root.
        """
        self._caps.check(who.cap, DISK, ADMIN)
        self._writable()
        self._committer.commit()
        page, diff = self._roots.clear_slot(name)
        self._changer.abandon(page, diff)
        for block in [b for b, p in self._registry.pages.items() if p.root == name]:
            self._ledger.abandon(block)
        self._caps.revoke_below(("disk", "root", name))
        self._leaky = True
        self._committer.commit()

    def _adopt(self, block: int, name: str) -> None:
        self._registry.pages[block].root = name

    def _info(self, who: Caller, name: str, block: int, kind: int) -> RootInfo:
        rights = self._rights(who, name) & ~ADMIN
        cap = self._caps.narrow(who.cap, ("disk", "root", name), rights)
        return RootInfo(name, block, kind, cap)

    # -- free space, exposed

    @syscall
    def find_free(self, hint: int, count: int) -> tuple[int, int]:
        """The first run of `count` free blocks from `hint` on, else the longest one seen: (start,
        n).
        """
        return self._tables.find_free(hint, count)

    @syscall
    def free_blocks(self) -> int:
        """How many blocks are free. Blocks that wait for a commit are not."""
        return self._tables.free_blocks

    @syscall
    def group_free(self, group: int) -> int:
        """Free blocks among group*4032 … group*4032+4031."""
        return self._tables.group_free(group)

    @property
    def blocks(self) -> int:
        """Size of the image in blocks."""
        return self._geometry.blocks

    def now(self) -> int:
        """The clock that acls see, ns since 1970."""
        return self._clock()

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

    # -- changes of metadata

    @syscall
    def change(
        self,
        who: Caller,
        edits: Sequence[tuple[int, Diff]],
        *,
        alloc: Sequence[Extent] = (),
        free: Sequence[Extent] = (),
        share: Sequence[Extent] = (),
        inits: Mapping[int, Diff] | None = None,
        witness: int = 0,
        witnesses: Mapping[int, int] | None = None,
    ) -> None:
        """Edit metadata blocks, atomically: in memory now, on the disk in one transaction.

        Pointers added minus removed must equal `alloc + share - free` exactly. `inits`: first bytes
        of allocated metadata blocks. `witness`: the block shown to every acl; `witnesses`: by
        edited block. Not durable until `sync`. Raises Refused, NotFree, NotEmpty, NotCached,
        NoFrames, AclRefused, CapabilityError; then nothing has changed.
        """
        edits = list(edits)
        self._make_room(len(edits))
        self._writable()
        pages = [(self._meta(who, block, WRITE), plain_diff(diff)) for block, diff in edits]
        alloc, free, share = plain_extents(alloc), plain_extents(free), plain_extents(share)
        if not pages:
            raise Refused("a change edits at least one block")
        root = pages[0][0].root
        if any(page.root != root for page, _ in pages):
            raise Refused("a change stays within one root")
        if alloc:
            self._may(who, root, ALLOC)
        first = {block: plain_diff(diff) for block, diff in (inits or {}).items()}
        for _t, start, count in (*alloc, *free, *share):
            if count < 1 or start < self._data[0] or start + count > self._data[1]:
                raise Refused(f"claim [{start}, {start + count}) is not in the data area")
        shown = {block: self._meta(who, w, READ) for block, w in (witnesses or {}).items()}
        if witness:
            shown[0] = self._meta(who, witness, READ)
        self._changer.change(who, pages, alloc, free, share, first, shown)

    def _make_room(self, edits: int) -> None:
        """The log bounds how much attached metadata may be dirty at once.

        Comes first in a call: others may run while it commits.
        """
        if edits > self._committer.capacity:
            raise Refused(f"a change of {edits} blocks does not fit the log")
        while self._committer.room < edits:
            self._writable()
            self._committer.commit()

    def alloc(
        self,
        who: Caller,
        parent: int,
        diff: Diff,
        claim: Sequence[Extent],
        *,
        init: Diff = (),
        witness: int = 0,
    ) -> None:
        """O' = O + claim: `parent` becomes the first owner of free blocks, which are zero."""
        inits = {claim[0][1]: init} if init and claim else {}
        self.change(who, [(parent, diff)], alloc=claim, inits=inits, witness=witness)

    def free(
        self, who: Caller, parent: int, diff: Diff, claim: Sequence[Extent], *, witness: int = 0
    ) -> None:
        """O' = O - claim. The blocks are free when no durable pointer can name them (R1)."""
        self.change(who, [(parent, diff)], free=claim, witness=witness)

    def update(self, who: Caller, block: int, diff: Diff, *, witness: int = 0) -> None:
        """O' = O."""
        self.change(who, [(block, diff)], witness=witness)

    def move(
        self,
        who: Caller,
        src: int,
        src_diff: Diff,
        dst: int,
        dst_diff: Diff,
        *,
        witness: int = 0,
    ) -> None:
        """Pointers go from `src` to `dst`; the sum stays (R3)."""
        self.change(who, [(src, src_diff), (dst, dst_diff)], witness=witness)

    swap = move

    @syscall
    def relocate(
        self, who: Caller, parent: int, diff: Diff, old: int, new: int, *, witness: int = 0
    ) -> None:
        """The same metadata object at a new address: `parent`'s pointer goes from `old` to `new`,
        children stay.

        `old` is free once its last durable copy can't be reached (R1). Raises as `change`.
        """
        self._make_room(1)
        self._writable()
        page = self._meta(who, parent, WRITE)
        moved = self._meta(who, old, WRITE)
        self._may(who, page.root, ALLOC)
        if moved.root != page.root:
            raise Refused("a change stays within one root")
        shown = {0: self._meta(who, witness, READ)} if witness else {}
        self._changer.relocate(who, page, plain_diff(diff), moved, new, shown)

    # -- the temporary root

    @syscall
    def hold(self, who: Caller, block: int) -> None:
        """Keep a metadata block alive in memory after its last owner has gone. Not over a crash."""
        page = self._meta(who, block, WRITE)
        self._ledger.held.add(block)
        self._saw([(page.type.number, block, 1)])

    @syscall
    def alloc_held(self, who: Caller, root_block: int, extent: Extent, *, init: Diff) -> None:
        """A metadata block that only the temporary root owns. `root_block`: any cached block of the
        root.
        """
        self._writable()
        page = self._meta(who, root_block, WRITE)
        self._may(who, page.root, ALLOC)
        (claim,) = plain_extents([extent])
        self._changer.alloc_held(who, page, claim, plain_diff(init))

    @syscall
    def drop(self, who: Caller, block: int) -> None:
        """Let go of a held block. If nothing else owns it, it is freed; then it must own nothing
        (NotEmpty).
        """
        self._writable()
        page = self._meta(who, block, WRITE)
        if block not in self._ledger.held:
            raise Refused(f"block {block} is not held")
        if self._ledger.owners(block) == 0:
            if not page.type.owns_nothing(bytes(page.view)):
                raise NotEmpty(f"block {block} still owns blocks")
            self._changer.bury_held(page)
        self._ledger.let_go(block)

    @syscall
    def refs(self, block: int) -> int:
        """How many pointers in memory name the block."""
        return self._ledger.owners(block)

    # -- bytes

    @syscall
    def readin(self, who: Caller, parent: int, part: int, start: int, count: int) -> None:
        """Bind children of `parent`'s partition and read those that are not cached.

        Raises Refused (not its children), CorruptionError, NoFrames, DeviceError.
        """
        self._pages.read_in(self._meta(who, parent, READ), part, start, count)

    @syscall
    def bind(self, who: Caller, parent: int, part: int, start: int, count: int) -> None:
        """Bind data blocks that are about to be overwritten whole, without reading them."""
        self._pages.bind(self._meta(who, parent, WRITE), part, start, count)

    def unbind(self, who: Caller, block: int) -> None:
        """Give a clean page back."""
        self.evict(who, [block])

    @syscall
    def prefetch(self, who: Caller, start: int, count: int) -> None:
        """Have the device fetch blocks before their parent is known. Nothing becomes readable."""
        if not 0 <= start <= start + count <= self.blocks or count > 1024:
            raise Refused("prefetch of at most 1024 blocks inside the image")
        self._pages.prefetch(start, count)

    @syscall
    def read(self, who: Caller, start: int, offset: int, size: int) -> bytes:
        """Bytes of consecutive cached blocks, from `offset` after the start of block `start`."""
        if size <= 0 or offset < 0:
            return b""
        first, last = start + offset // BLOCK, start + (offset + size - 1) // BLOCK
        self._same_root(who, first, last, READ)
        return self._pages.read(start, offset, size)

    @syscall
    def map(self, who: Caller, block: int) -> memoryview:
        """A cached page, as it is now. A copy: the frame may soon hold another's block."""
        self._page(who, block, READ)
        return memoryview(self._pages.read(block, 0, BLOCK))

    @syscall
    def cached(self, block: int) -> bool:
        """True if the block's bytes are in the registry."""
        page = self._registry.get(block)
        return page is not None and page.valid

    @syscall
    def write_raw(self, who: Caller, start: int, offset: int, data: bytes | memoryview) -> None:
        """Write bytes that own nothing: data blocks, or the raw range of one metadata block.

        Data may span consecutive bound blocks. Not durable until `sync`. Raises NotCached, Refused.
        """
        self._writable()
        data = plain_bytes(data)
        if not len(data) or offset < 0:
            return
        first, last = start + offset // BLOCK, start + (offset + len(data) - 1) // BLOCK
        self._same_root(who, first, last, WRITE)
        page = self._registry.pages[first]
        if not isinstance(page, MetaPage):
            self._pages.write(start, offset, data)
            return
        if first != last or not page.type.is_raw(offset % BLOCK, len(data)):
            raise Refused(f"bytes outside the raw range of block {first}")
        if first not in self._registry.attached and self._committer.room < 1:
            self._make_room(1)
            page = self._meta(who, first, WRITE)
        at = offset % BLOCK
        page.view[at : at + len(data)] = data
        self._registry.mark_dirty(page)

    def _same_root(self, who: Caller, first: int, last: int, rights: int) -> None:
        """The caller has these rights over the root of every page of the run."""
        pages = self._registry.pages
        known = None
        for block in range(first, last + 1):
            page = pages.get(block)
            if page is None:
                raise NotCached(f"block {block} is not cached")
            if page.root != known:
                known = page.root
                self._may(who, known, rights)
            if rights & WRITE and page.lock not in (None, who.cap):
                raise Refused(f"block {block} is locked by another")

    @syscall
    def access(self, who: Caller, block: int, mask: int, *, witness: int = 0) -> None:
        """Ask the block's acl for read 4, write 2, search 1. Raises AclRefused with its errno."""
        page = self._meta(who, block, READ)
        shown = self._meta(who, witness, READ) if witness else None
        old = bytes(page.view)
        edit = Edit(block, page.type, page, (), old, bytearray(old))
        seen = (shown.block, shown.view) if shown else (0, ZERO)
        self._changer.ask(who, page.type, OP_ACCESS, mask & 7, edit, seen)

    # -- durability

    @syscall
    def sync(self, who: Caller, blocks: Iterable[int] | None = None) -> None:
        """Make blocks durable, with all that must go with them (None: everything). At most two
        flushes.

        Anybody may sync anything. Raises DeviceError; from then on writes have stopped, and this
        keeps failing.
        """
        if self.readonly or self._closed:
            return
        self._committer.commit(blocks)

    @syscall
    def writeback(self, who: Caller, blocks: Iterable[int]) -> None:
        """Write dirty data and fresh blocks among these, without a flush: not durable on return."""
        if not self.readonly:
            self._committer.write_back(blocks)

    @syscall
    def depend(self, who: Caller, before: int, after: int) -> None:
        """`after` is not written before `before` is durable. Raises CycleError."""
        self._page(who, before, WRITE)
        self._page(who, after, WRITE)
        self._order.declare(before, after)

    @syscall
    def dirty_count(self) -> tuple[int, int]:
        """(dirty data and fresh blocks, dirty attached metadata blocks)."""
        return len(self._registry.plain), len(self._registry.attached)

    # -- the registry

    @syscall
    def evict(self, who: Caller, blocks: Iterable[int]) -> int:
        """Drop the clean, unpinned pages among these that the caller may read. Returns how many."""
        get = self._registry.get
        mine = [b for b in blocks if (p := get(b)) and self._rights(who, p.root) & READ]
        ties, flying = self._ledger.ties, self._committer.in_flight
        return self._pages.evict(mine, lambda block: block in ties or block in flying)

    def _rights(self, who: Caller, root: str) -> int:
        return self._caps.rights_for(who.cap, ("disk", "root", root))

    @syscall
    def pin(self, who: Caller, block: int) -> None:
        """Keep a page from being evicted. Counted."""
        self._page(who, block, READ).pins += 1

    @syscall
    def unpin(self, who: Caller, block: int) -> None:
        """Undo one `pin`."""
        page = self._page(who, block, READ)
        if not page.pins:
            raise Refused(f"block {block} is not pinned")
        page.pins -= 1

    @syscall
    def lock(self, who: Caller, block: int) -> None:
        """Keep other capabilities from changing a page. Raises Refused if another has it."""
        page = self._page(who, block, WRITE)
        if page.lock not in (None, who.cap):
            raise Refused(f"block {block} is locked by another")
        page.lock = who.cap

    @syscall
    def unlock(self, who: Caller, block: int) -> None:
        """Undo `lock`. Raises Refused if another has it."""
        page = self._page(who, block, WRITE)
        if page.lock != who.cap:
            raise Refused(f"block {block} is not locked by this capability")
        page.lock = None

    @syscall
    def registered(self, block: int) -> Registered | None:
        """What the registry knows of a block."""
        page = self._registry.get(block)
        if page is None:
            return None
        dirty, fresh = self._registry.is_dirty(block), page.meta and cast(MetaPage, page).fresh
        state = "volatile" if fresh else "reachable" if dirty else "persistent"
        return Registered(
            block, page.type.number, page.frame, page.parent, dirty, fresh, page.pins,
            page.lock is not None, state,
        )  # fmt: skip

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
        collector, self._collector = self._collector, None
        status = collector.step(budget)
        if status.done:
            self._leaky = False
        else:
            self._collector = collector  # one that has failed has not seen everything
        return status

    def _saw(self, extents: Iterable[Extent]) -> None:
        if self._collector is not None:
            self._collector.saw(extents)

    @property
    def leaky(self) -> bool:
        """True if the image was not unmounted cleanly and no collection has finished since."""
        return self._leaky

    # -- the whole

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

    @syscall
    def narrow(self, who: Caller, root: str, rights: int) -> bytes:
        """A capability for less: one root, fewer rights."""
        return self._caps.narrow(who.cap, ("disk", "root", root), rights)

    @syscall
    def grant(self, who: Caller, holder: str) -> bytes:
        """The caller's capability for another holder."""
        return self._caps.grant(who.cap, holder)

    @syscall
    def revoke(self, who: Caller, cap: bytes) -> None:
        """End a capability that the caller gave away, and all that derive from it."""
        if cap != who.cap and not self._caps.derives(cap, who.cap):
            raise CapabilityError("only who gave a capability can revoke it")
        self._caps.revoke(cap)

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
        if state != self._sb.state or self._committer.seq > self._sb.seq:
            self._sb = replace(self._sb, seq=self._committer.seq)
            self._set_state(state)
