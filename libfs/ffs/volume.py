"""A mounted volume as every other module sees it: blocks by number, inodes by number, one change at
a time. The one place where FFS meets XN's system calls for metadata.

- A block can be named to XN only through its parent, so the volume remembers for each metadata
  block where its pointer lies (`home`), and reads a chain of parents in when a block is needed
  again.
- A `Batch` is one atomic change under construction: header fields, names, slots, claims. It keeps
  memory and disk the same: if the kernel refuses, what was changed in memory is undone or
  forgotten.
- Answers to pressure: frames out -> evict and try again; no free block -> sync (blocks that wait
  for a commit become free) and try again.

Not here: what the blocks mean (`directory`, `extents`, `xattrs`), which block to take (`place`).
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from libfs.common.cache import PageCache
from libfs.ffs import format as f
from libfs.ffs import types as t
from libfs.ffs.ahead import ReadAhead
from libfs.ffs.inode import NOTHING, RIGHTS, Vnode, decode_untrusted
from libfs.ffs.syncing import Sync
from libfs.posix.interface import FsError, User
from xnfs import Caller, CorruptionError, CycleError, NoFrames, NotCached, Refused, Xn, XnError

T = TypeVar("T")
PART_BITS: Final = 10
#: Decoded inodes kept.
VNODES: Final = 20_000
#: Longest chain from the root to a block: a bound for a loop over what the disk says.
MAX_CHAIN: Final = 4096
_HEADER_END: Final = f.HEADER_AT + f.HEADER.size

KIND_TYPES: Final = {
    f.P_DATA: t.DATA,
    f.P_UNWRITTEN: t.UNWRITTEN,
    f.P_NODE: t.NODE,
    f.P_XATTR: t.XATTR,
    f.P_INODE: t.INODE,
    f.P_DIR: t.DIR,
    f.P_LEAF: t.LEAF,
    f.P_INDEX: t.INDEX,
}


class Decoded(Protocol):
    """A block in memory that knows what differs from its page."""

    block: int

    def diffs(self) -> list[tuple[int, bytes]]:
        """What changed since the last call."""


class Reader(Protocol):
    """What `groups` can do."""

    def inode(self, block: int) -> bool:
        """Have it read with its neighbours; whether it was."""

    def data(self, owner: int, block: int) -> bool:
        """The same for data of a small file."""


class Volume:
    """One mounted root. `decoded` holds name blocks, tables and nodes, by block number."""

    def __init__(self, xn: Xn, cap: bytes, root_block: int, *, readonly: bool) -> None:
        self.xn = xn
        self.cap = cap
        self.super = root_block
        self.readonly = readonly
        self.who = Caller(cap)
        xn.pin(self.who, root_block)  # every chain of parents ends in it
        self.cache = PageCache(xn, self.who, self._dropped)
        self.ahead = ReadAhead(xn, self.who)
        #: reads what lies together as one; None: each by itself
        self.groups: Reader | None = None
        self.decoded: dict[int, Any] = {}
        self.home: dict[int, int] = {}
        self.vnodes: OrderedDict[int, Vnode] = OrderedDict()
        self.dirty: set[Vnode] = set()
        #: number of the next sync to begin (`syncing`)
        self.epoch = 1
        #: directories whose names have changed and may not be durable: epoch of the last change
        self.renamed: dict[int, int] = {}
        self.homeless: set[int] = set()
        self.type = {kind: self._type_number(name) for kind, name in KIND_TYPES.items()}
        self._callers: dict[tuple[int, int, tuple[int, ...]], Caller] = {}

    def _type_number(self, name: str) -> int:
        number = self.xn.type_number(name)
        if number is None:
            raise CorruptionError(self.super, "type", name, "installed")
        return number

    def caller(self, user: User) -> Caller:
        """The kernel's view of a user."""
        key = (user.uid, user.gid, user.groups)
        caller = self._callers.get(key)
        if caller is None:
            if len(self._callers) > 1000:
                self._callers.clear()
            caller = self._callers[key] = Caller(self.cap, *key)
        return caller

    # -- blocks

    def set_home(self, block: int, parent: int, part: int) -> None:
        """The pointer to `block` lies in partition `part` of `parent`."""
        self.home[block] = parent << PART_BITS | part
        if self.homeless and block in self.homeless:
            self.homeless.discard(block)
            self.xn.unpin(self.who, block)

    def lose_home(self, block: int, parent: int, part: int) -> None:
        """A pointer to `block` has gone; unless another place is known, its page must stay."""
        if self.home.get(block) == parent << PART_BITS | part:
            del self.home[block]
            self.homeless.add(block)
            self.xn.pin(self.who, block)

    def gone(self, block: int) -> None:
        """The block is no more."""
        self.home.pop(block, None)
        self.decoded.pop(block, None)
        self.homeless.discard(block)
        v = self.vnodes.pop(block, None)
        if v is not None:
            v.dirty = False
            self.dirty.discard(v)

    def ensure(self, block: int) -> None:
        """Have a metadata block cached, reading its parents first as far as needed."""
        chain: list[tuple[int, int]] = []
        while not self.xn.cached(block):
            home = self.home.get(block)
            if home is None or len(chain) > MAX_CHAIN:
                raise FsError(errno.ESTALE)
            chain.append((home, block))
            block = home >> PART_BITS
        for home, child in reversed(chain):
            if self.groups is not None and self.groups.inode(child):
                continue
            self.ahead.lone(child)
            self.readin(home >> PART_BITS, home & (1 << PART_BITS) - 1, child, 1)

    def ensure_many(self, blocks: Iterable[int]) -> None:
        """As `ensure`, with one call for all whose parents are at hand; what that does not get is
        left to `ensure`."""
        wanted = []
        for block in blocks:
            home = self.home.get(block)
            if home is not None:
                with suppress(XnError, FsError):
                    self.ensure(home >> PART_BITS)
                    wanted.append((home >> PART_BITS, home & (1 << PART_BITS) - 1, block, 1))
        with suppress(XnError, FsError):
            self.xn.readin_all(self.who, wanted)
        for _parent, _part, block, _one in wanted:
            self.cache.touch(block)

    def readin(self, parent: int, part: int, start: int, count: int) -> None:
        """Bind and read children of `parent`, which must be cached."""
        self._children(self.xn.readin, parent, part, start, count)

    def bind(self, parent: int, part: int, start: int, count: int) -> None:
        """Bind data blocks that will be overwritten whole, unread."""
        self._children(self.xn.bind, parent, part, start, count)

    def _children(
        self, call: Callable[..., None], parent: int, part: int, start: int, count: int
    ) -> None:
        try:
            call(self.who, parent, part, start, count)
        except NoFrames:
            self.cache.touch(parent)
            self.cache.make_room(count)
            self.ensure(parent)  # in a small cache it went, too
            call(self.who, parent, part, start, count)
        self.cache.touch_run(start, count)

    def retry(self, frames: int, call: Callable[[], T]) -> T:
        """Do a system call that may need `frames` page frames."""
        try:
            return call()
        except NoFrames:
            self.cache.make_room(frames)
            return call()

    def block(self, block: int) -> bytes:
        """The bytes of a metadata block."""
        xn = self.xn
        try:
            raw = xn.read(self.who, block, 0, f.BLOCK)
        except NotCached:
            self.ensure(block)
            raw = xn.read(self.who, block, 0, f.BLOCK)
        self.cache.touch(block)
        return raw

    def _dropped(self, run: range) -> None:
        decoded = self.decoded
        if not decoded.keys().isdisjoint(run):
            for block in run:
                decoded.pop(block, None)

    # -- inodes

    def vnode(self, ino: int) -> Vnode:
        """The inode `ino`. Raises ESTALE if nobody knows where it lies."""
        v = self.vnodes.get(ino)
        if v is None:
            self.ensure(ino)
            head = self.xn.read(self.who, ino, 0, _HEADER_END)
            v = self.vnodes[ino] = decode_untrusted(ino, head)
            self.cache.touch(ino)
            if len(self.vnodes) > VNODES:
                self._forget_vnodes()
        return v

    def _forget_vnodes(self) -> None:
        """Drop the older half. Those that differ from their block or have no home stay."""
        self.flush_all()
        keep = self.homeless
        for ino in list(self.vnodes)[: VNODES // 2]:
            v = self.vnodes[ino]
            if ino not in keep and v.nlink and not v.written and ino in self.home:
                del self.vnodes[ino]

    def directory(self, ino: int) -> Vnode:
        """The directory `ino`. Raises ENOTDIR."""
        v = self.vnodes.get(ino) or self.vnode(ino)
        if v.mode >> 12 != 4:
            raise FsError(errno.ENOTDIR)
        return v

    def later(self, v: Vnode) -> None:
        """The header of `v` changed in memory and may be written later."""
        v.attr = None
        if not v.dirty:
            v.dirty = True
            self.dirty.add(v)

    def flush(self, v: Vnode) -> None:
        """Bring a header that is newer than its block into the block."""
        if v.dirty:
            batch = Batch(self, self.who)
            batch.set(v)
            batch.commit()

    def only_times(self, v: Vnode) -> bool:
        """Whether nothing but times of `v` would be lost with its header as it is on the disk."""
        known = self.xn.registered(v.ino)
        if known is None or known.dirty or known.fresh:
            return False
        (size,) = f.SIZE.unpack(self.xn.read(self.who, v.ino, f.SIZE_AT, f.SIZE.size))
        return bool(size == v.size)

    def order_tail(self, v: Vnode) -> None:
        """D3: a size that takes in more of a block is not durable before the bytes there are.

        A block that was never durable goes with its inode anyway; this is about older ones.
        """
        tail, v.tail = v.tail, 0
        known = self.xn.registered(v.ino)
        if known is not None and known.fresh:
            return
        try:
            self.xn.depend(self.who, tail, v.ino)
        except NotCached:
            if self.xn.cached(tail):
                self.ensure(v.ino)
                self.xn.depend(self.who, tail, v.ino)
            # Otherwise it is written, and the flush before any inode's turn takes it along.
        except (Refused, CycleError):
            self.xn.sync(self.who, [v.ino, tail])

    def flush_all(self) -> None:
        """As `flush`, for every inode."""
        for v in list(self.dirty):
            self.flush(v)

    # -- space

    def find_free(self, hint: int, count: int) -> tuple[int, int]:
        """Free blocks near `hint`: (start, 1 <= n <= count). Raises ENOSPC."""
        start, n = self.xn.find_free(hint, count)
        if not n:
            self.sync_all()
            start, n = self.xn.find_free(hint, count)
            if not n:
                raise FsError(errno.ENOSPC)
        return start, n

    def sync_all(self) -> None:
        """Everything durable."""
        if not self.readonly:
            sync = Sync(self, None, data_only=False)
            sync.wait()
            sync.done()

    def now(self) -> int:
        """The clock that the acls see."""
        return self.xn.now()


class Batch:
    """One change, atomic in memory and over a power cut.

    Containers (`NameBlock`, `Table`, `Slots`) and headers are changed in memory as the batch is
    built; `commit` asks the kernel. After a refusal the headers have their old values and the
    containers are forgotten, to be decoded again from their unchanged pages.
    """

    __slots__ = (
        *("_containers", "_heads", "_homes", "_watched", "_who"),
        *("alloc", "copies", "edits", "free", "inits", "share", "vol", "witnesses"),
    )

    def __init__(self, vol: Volume, who: Caller) -> None:
        self.vol = vol
        self._who = who
        self.edits: dict[int, list[tuple[int, bytes]]] = {}
        self._heads: dict[Vnode, dict[str, int]] = {}
        self._containers: list[Decoded] = []
        self._homes: list[tuple[int, int, int]] = []
        self._watched: list[Vnode] = []
        self.alloc: list[tuple[int, int, int]] = []
        self.free: list[tuple[int, int, int]] = []
        self.share: list[tuple[int, int, int]] = []
        self.inits: dict[int, list[tuple[int, bytes]]] = {}
        #: (new block, cached block, count): data whose first bytes are those of other data
        self.copies: list[tuple[int, int, int]] = []
        self.witnesses: dict[int, int] = {}

    # -- building

    def set(self, v: Vnode, **fields: int) -> None:
        """Give header fields new values; the header is written with this change."""
        saved = self._heads.get(v)
        if saved is None:
            saved = self._heads[v] = {}
        for name, value in fields.items():
            if name not in saved:
                saved[name] = getattr(v, name)
            setattr(v, name, value)

    def watch(self, v: Vnode) -> None:
        """What is remembered of the extents of `v` is wrong if this change fails."""
        self._watched.append(v)

    def edit(self, block: int, offset: int, data: bytes) -> None:
        """Bytes of a block that no container describes."""
        self.edits.setdefault(block, []).append((offset, data))

    def use(self, container: Decoded, witness: int = 0) -> None:
        """The container was or will be changed; its diffs are taken at the commit."""
        if container not in self._containers:
            self._containers.append(container)
        if witness and witness != container.block:
            self.witnesses[container.block] = witness

    def birth(self, kind: int, block: int, diff: list[tuple[int, bytes]], witness: int = 0) -> None:
        """Allocate a metadata block with its first bytes."""
        self.alloc.append((self.vol.type[kind], block, 1))
        self.inits[block] = diff
        if witness:
            self.witnesses[block] = witness

    def fill(self, block: int, data: bytes) -> None:
        """First bytes of a data block that this change allocates. Where losing them would lose what
        was durable or show half a call, they must come with it: a sync may run between two calls.
        """
        self.inits[block] = [(0, data)]

    def home(self, block: int, parent: int, part: int) -> None:
        """After the commit the pointer to `block` lies there."""
        self._homes.append((block, parent, part))

    # -- the change

    def commit(self) -> None:
        """Do it. Raises XnError, with memory as before."""
        self.prepare()
        try:
            self._change()
        except BaseException:
            self.abandon()
            raise
        self.done()

    def prepare(self) -> None:
        """Collect what the containers and headers have to say."""
        vol = self.vol
        edits = self.edits
        for v in self._heads:
            if v.is_dir:
                vol.renamed[v.ino] = vol.epoch
        for container in self._containers:
            if diffs := container.diffs():
                edits.setdefault(container.block, []).extend(diffs)
        for v in self._heads:
            if v.tail:
                vol.order_tail(v)
            target = self.inits if v.ino in self.inits else edits
            target.setdefault(v.ino, []).append((f.HEADER_AT, v.pack()))

    def done(self) -> None:
        """The kernel's pages say what the containers say."""
        vol = self.vol
        for v, saved in self._heads.items():
            v.attr = None
            if v.dirty:
                v.dirty = False
                vol.dirty.discard(v)
            if v.rights and not RIGHTS.isdisjoint(saved):
                v.rights.clear()
        touch = vol.cache.touch
        for block in self.edits:
            touch(block)
        for block in self.inits:
            touch(block)
        for home in self._homes:
            vol.set_home(*home)

    def _change(self) -> None:
        if self.vol.readonly:
            raise FsError(errno.EROFS)
        for turn in range(4):
            try:
                self._call()
                return
            except NotCached:
                if turn == 3:
                    raise
                self.ensure()
            except NoFrames:
                if turn == 3:
                    raise
                self.vol.cache.make_room(sum(n for _t, _s, n in self.alloc))

    def ensure(self) -> None:
        """Have everything cached that the kernel must see."""
        for block in {*self.edits, *self.witnesses.values(), *self._blocks_freed()}:
            if block not in self.inits:
                self.vol.ensure(block)

    def _call(self) -> None:
        self.vol.xn.change(
            self._who,
            list(self.edits.items()),
            alloc=self.alloc,
            free=self.free,
            share=self.share,
            inits=self.inits,
            copies=self.copies,
            witnesses=self.witnesses,
        )

    def _blocks_freed(self) -> Iterable[int]:
        """Metadata blocks that lose an owner: the kernel must see that they own nothing."""
        plain = (self.vol.type[f.P_DATA], self.vol.type[f.P_UNWRITTEN])
        extents = (*self.free, *self.share)
        return [start for kind, start, _n in extents if kind not in plain]

    def abandon(self) -> None:
        """It is not to be, or was refused: memory as before."""
        for v, saved in self._heads.items():
            for name, value in saved.items():
                setattr(v, name, value)
        for v in self._watched:
            v.slots = None
            v.last = NOTHING
        decoded = self.vol.decoded
        for container in self._containers:
            decoded.pop(container.block, None)
        for block in self.inits:
            decoded.pop(block, None)
