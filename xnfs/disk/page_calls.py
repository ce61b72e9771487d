"""System calls on cached blocks: binding, reading, writing raw bytes, pins and locks, eviction.

Each call checks that the caller may name the blocks and hands over to `pages.py`, which moves the
bytes and knows what may be dropped. Which pages to keep is the caller's choice. Changes of pointers
are in `change_calls.py`; what becomes durable when, behind `sync` in `xn.py`.

Relies on `syscalls.py` for the lock and for rights. Guarantees: nobody reads, writes or drops a
page of a root that his capability does not name, nor writes one that another has locked; only bytes
that own nothing are written here.

Source: Kaashoek et al. 1997, section 4.3 (buffer cache registry).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

from xnfs.capability import READ, WRITE
from xnfs.disk.arguments import plain_bytes, plain_children
from xnfs.disk.records import BLOCK, Caller, Registered
from xnfs.disk.registry import MetaPage
from xnfs.disk.syscalls import Boundary, syscall
from xnfs.errors import Refused

T = TypeVar("T")


class PageCalls(Boundary):
    """Bytes of cached blocks, and the registry's entries for them."""

    # -- binding

    @syscall
    def readin(self, who: Caller, parent: int, part: int, start: int, count: int) -> None:
        """Bind children of `parent`'s partition and read those that are not cached.

        Raises Refused (not its children), CorruptionError, NoFrames, DeviceError.
        """
        self._pages.read_in(self._meta(who, parent, READ), part, start, count)

    @syscall
    def readin_all(self, who: Caller, wanted: Iterable[tuple[int, int, int, int]]) -> None:
        """As `readin` of each (parent, part, start, count), with one request for each run of
        neighbours among all that are not cached. All or none: raises as `readin`.
        """
        children = plain_children(wanted)
        pages = {p: self._meta(who, p, READ) for p in {parent for parent, *_rest in children}}
        self._pages.read_all((pages[p], part, start, n) for p, part, start, n in children)

    @syscall
    def bind(self, who: Caller, parent: int, part: int, start: int, count: int) -> None:
        """Bind data blocks that are about to be overwritten whole, without reading them."""
        self._pages.bind(self._meta(who, parent, WRITE), part, start, count)

    def unbind(self, who: Caller, block: int) -> None:
        """Give a clean page back."""
        self.evict(who, [block])

    @syscall
    def prefetch(self, who: Caller, start: int, count: int, *, wait: bool = True) -> None:
        """Have the device fetch blocks before their parent is known. Nothing becomes readable.

        Without `wait` the device is only told, if it is one that can be: so many pieces can be on
        their way at once.
        """
        if not 0 <= start <= start + count <= self._geometry.blocks or count > 1024:
            raise Refused("prefetch of at most 1024 blocks inside the image")
        self._pages.prefetch(start, count, wait=wait)

    @syscall
    def evict(self, who: Caller, blocks: Iterable[int]) -> int:
        """Drop the clean, unpinned pages among these that the caller may read. Returns how many
        frames came free: as many, but for pages that share one.
        """
        registry, flying = self._registry, self._committer.in_flight
        named = registry.pages.keys() & blocks
        roots = {page.root for page in set(map(registry.pages.__getitem__, named))}
        hidden = {root for root in roots if not self._rights(who, root) & READ}
        idle = named.difference(self._ledger.ties) - flying
        if hidden:
            idle = {block for block in idle if registry.pages[block].root not in hidden}
        for block in registry.locks.keys() & idle:
            self._locker(block)  # a lock whose capability is gone holds nothing
        return self._pages.evict(idle)

    # -- bytes

    @syscall
    def read(self, who: Caller, start: int, offset: int, size: int) -> bytes:
        """Bytes of consecutive cached blocks, from `offset` after the start of block `start`."""
        if size <= 0 or offset < 0:
            return b""
        first, count = self._run(who, start, offset, size, READ)
        return self._pages.read(first, count, offset % BLOCK, size)

    @syscall
    def lend(
        self,
        who: Caller,
        start: int,
        offset: int,
        size: int,
        to: Callable[[Sequence[memoryview]], T],
    ) -> T:
        """As `read`, but the bytes are shown to `to` where they lie, and not copied; gives what it
        returns. For who hands them on at once, to a socket or a host kernel.

        No other call is served meanwhile, and what was shown can't be looked at afterwards, since
        the frames may soon hold another's blocks.
        """
        if size <= 0 or offset < 0:
            return to([])
        first, count = self._run(who, start, offset, size, READ)
        shown = self._pages.views(first, count, offset % BLOCK, size)
        views = [view.toreadonly() for view in shown]
        try:
            return to(views)
        finally:
            for view in views:
                view.release()

    @syscall
    def map(self, who: Caller, block: int) -> memoryview:
        """A cached page, as it is now. A copy: the frame may soon hold another's block."""
        self._page(who, block, READ)
        return memoryview(self._pages.read(block, 1, 0, BLOCK))

    @syscall
    def write_raw(self, who: Caller, start: int, offset: int, data: bytes | memoryview) -> None:
        """Write bytes that own nothing: data blocks, or the raw range of one metadata block.

        Data may span consecutive bound blocks. Not durable until `sync`. Raises NotCached, Refused;
        NoFrames if a page shares its frame and there is none for it alone.
        """
        self._writable()
        data = plain_bytes(data)
        if not len(data) or offset < 0:
            return
        first, count = self._run(who, start, offset, len(data), WRITE)
        page = self._registry.get(first)
        if not isinstance(page, MetaPage):
            self._pages.write(first, count, offset % BLOCK, data)
            return
        if count > 1 or not page.type.is_raw(offset % BLOCK, len(data)):
            raise Refused(f"bytes outside the raw range of block {page.block}")
        self._write_meta(who, page, offset % BLOCK, data)

    def _write_meta(self, who: Caller, page: MetaPage, at: int, data: bytes | memoryview) -> None:
        if page.block not in self._registry.attached and self._committer.room < 1:
            self._make_room(1)
            page = self._meta(who, page.block, WRITE)  # others may have run meanwhile
        page.view[at : at + len(data)] = data
        self._registry.mark_dirty(page)

    def _run(self, who: Caller, start: int, offset: int, size: int, rights: int) -> tuple[int, int]:
        """The blocks (first, count) of a range of bytes, counted from the start of block `start`.
        All are cached, the caller has these rights over the root of each, and nobody else has
        locked what he would write. Raises NotCached, CapabilityError, Refused.
        """
        first = start + offset // BLOCK
        count = (offset % BLOCK + size - 1) // BLOCK + 1
        if count == 1:
            self._page(who, first, rights)
        else:
            for root in {page.root for page in self._registry.of_run(first, count)}:
                self._may(who, root, rights)
        if rights & WRITE and (locks := self._registry.locks):
            for block in locks.keys() & range(first, first + count):
                self._check_lock(who, block)
        return first, count

    # -- the registry's entries

    @syscall
    def cached(self, block: int) -> bool:
        """True if the block's bytes are in the registry."""
        return block in self._registry.pages and block not in self._registry.unfilled

    @syscall
    def registered(self, block: int) -> Registered | None:
        """What the registry knows of a block."""
        page = self._registry.get(block)
        if page is None:
            return None
        dirty, fresh = self._registry.is_dirty(block), page.meta and cast(MetaPage, page).fresh
        state = "volatile" if fresh else "reachable" if dirty else "persistent"
        return Registered(
            block, page.type.number, block + page.shift, page.parent, dirty, fresh,
            self._registry.pins.get(block, 0), self._locker(block) is not None, state,
        )  # fmt: skip

    @syscall
    def pin(self, who: Caller, block: int) -> None:
        """Keep a page from being evicted. Counted."""
        self._page(who, block, READ)
        pins = self._registry.pins
        pins[block] = pins.get(block, 0) + 1

    @syscall
    def unpin(self, who: Caller, block: int) -> None:
        """Undo one `pin`."""
        self._page(who, block, READ)
        pins = self._registry.pins
        if block not in pins:
            raise Refused(f"block {block} is not pinned")
        pins[block] -= 1
        if not pins[block]:
            del pins[block]

    @syscall
    def lock(self, who: Caller, block: int) -> None:
        """Keep other capabilities from changing a page, until `unlock` or until this capability is
        revoked. Raises Refused if another has it.
        """
        self._page(who, block, WRITE)
        self._check_lock(who, block)
        self._registry.locks[block] = who.cap

    @syscall
    def unlock(self, who: Caller, block: int) -> None:
        """Undo `lock`. Raises Refused if another has it."""
        self._page(who, block, WRITE)
        if self._locker(block) != who.cap:
            raise Refused(f"block {block} is not locked by this capability")
        del self._registry.locks[block]
