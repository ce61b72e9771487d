"""NoteFs at work: a mounted file system, to be read from top to bottom.

What XN does for it: no block is lent twice or shown to somebody else, a pointer is never on the
disk before what it names, a change is there whole or not at all after a power cut, leaks are
collected, fsck checks it. What is left to do here is to say what a change *is* (`_commit`), and
what must be durable before what (`_put`).

Nodes stay in memory once they were looked up; data blocks go when frames run out. Refused as not
supported: extended attributes, preallocation, holes by request, files without a name, exchange.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from examples.notefs.format import DATA, NODE, SLOTS, TYPES, Node, decode_untrusted, diff
from libfs.posix.interface import Attr, Change, Dirent, FsError, Ino, New, StatFs, User
from libfs.posix.perms import without_setid
from xnfs import (
    BLOCK,
    Caller,
    CorruptionError,
    Extent,
    NoFrames,
    NoSpace,
    ReadOnly,
    Refused,
    Xn,
    XnError,
)

T = TypeVar("T")
_ERRNOS = {
    NoSpace: errno.ENOSPC,
    NoFrames: errno.ENOMEM,
    ReadOnly: errno.EROFS,
    CorruptionError: errno.EUCLEAN,
}


@contextmanager
def answers() -> Iterator[None]:
    """Errors of the kernel leave as errnos."""
    try:
        yield
    except XnError as error:
        number = getattr(error, "errno", None)  # an acl and a device bring their own
        raise FsError(number or _ERRNOS.get(type(error), errno.EIO), str(error)) from error


class NoteFs:
    """A mounted NoteFs. Implements `libfs.posix.interface.FileSystem`; the docstrings are there."""

    max_size = SLOTS * BLOCK
    link_max = 1000

    def __init__(self, xn: Xn, cap: bytes, root: int, *, readonly: bool) -> None:
        self.xn, self.cap, self.root, self.readonly = xn, cap, Ino(root), readonly
        self.who = Caller(cap)
        self.data, self.node = (_number(xn, spec.name) for spec in TYPES)
        self.nodes: dict[Ino, Node] = {}
        self._load(self.root)
        self.parents = {self.root: self.root}
        self.bound: set[int] = set()  # data blocks in the cache

    @staticmethod
    def mkfs(xn: Xn, cap: bytes, name: str) -> None:
        """Make an empty one under a name. Durable on return. Raises XnError."""
        who = Caller(cap)
        _data, node = [xn.install_type(who, spec) for spec in TYPES]
        info = xn.install_root(who, name, node)
        root = Node(stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, xn.now())
        xn.update(Caller(info.cap), info.block, diff(bytes(BLOCK), root.pack()))
        xn.sync(who)

    @classmethod
    def mount(cls, xn: Xn, cap: bytes, name: str, *, readonly: bool = False) -> NoteFs:
        """Raises XnError."""
        info = xn.mount_root(Caller(cap), name)
        return cls(xn, info.cap, info.block, readonly=readonly or xn.readonly)

    # -- nodes: found, changed

    def _load(self, ino: Ino) -> None:
        """Decode a cached node, and have it stay in the cache."""
        self.nodes[ino] = decode_untrusted(ino, self.xn.read(self.who, ino, 0, BLOCK))
        self.xn.pin(self.who, ino)

    def _node(self, ino: Ino, *, directory: bool = False) -> Node:
        if ino not in self.nodes:
            raise FsError(errno.ESTALE)
        if directory and not self.nodes[ino].is_dir:
            raise FsError(errno.ENOTDIR)
        return self.nodes[ino]

    def _edit(self, *inos: Ino) -> dict[Ino, Node]:
        """Copies, to be changed and given to `_commit`."""
        if self.readonly:
            raise FsError(errno.EROFS)
        return {ino: self._node(ino).copy() for ino in inos}

    def _commit(
        self,
        user: User,
        nodes: dict[Ino, Node],
        *,
        alloc: Sequence[Extent] = (),
        free: Sequence[Extent] = (),
        share: Sequence[Extent] = (),
    ) -> None:
        """One change, atomic in memory and over a power cut. XN compares what is claimed here with
        what `OWNS` says of the old and the new bytes, and asks `ACL`."""
        packed = {ino: (self.nodes.get(ino), node.pack()) for ino, node in nodes.items()}
        edits = [(ino, diff(old.pack(), new)) for ino, (old, new) in packed.items() if old]
        inits = {int(ino): diff(bytes(BLOCK), new) for ino, (old, new) in packed.items() if not old}
        who = Caller(self.cap, *user)
        self._try(
            lambda: self.xn.change(who, edits, alloc=alloc, free=free, share=share, inits=inits)
        )
        self.bound.difference_update(block for _kind, block, _n in free)
        self.bound.update(block for kind, block, _n in alloc if kind == self.data)
        for ino in inits:
            self.xn.pin(self.who, ino)
        for ino, node in nodes.items():
            self.nodes[ino] = node
            if self.xn.registered(ino) is None:  # it lost its last name
                del self.nodes[ino]

    def _try(self, call: Callable[[], T]) -> T:
        """A system call that needs page frames: when there are none, data go out of the cache."""
        with answers():
            try:
                return call()
            except NoFrames:
                self.xn.sync(self.who)
                self.xn.evict(self.who, self.bound)
                self.bound.clear()
                return call()

    def _find(self, near: int, count: int) -> list[int]:
        """Free blocks. Those that were freed are free for all when that is durable (R1)."""
        if self.xn.free_blocks() < count:
            self.sync(None)
            if self.xn.free_blocks() < count:
                raise FsError(errno.ENOSPC)
        found: list[int] = []
        for _ in range(count):
            near, _n = self.xn.find_free(near + 1, 1)
            found.append(near)
        return found

    # -- attributes

    def now(self) -> int:
        return self.xn.now()

    def access(self, user: User, ino: Ino, mask: int) -> None:
        self._node(ino)
        with answers():
            self.xn.access(Caller(self.cap, *user), ino, mask)

    def getattr(self, ino: Ino) -> Attr:
        n = self._node(ino)
        size, blocks = (BLOCK, 8) if n.is_dir else (n.size, 8 * sum(map(bool, n.slots)))
        times = n.atime, n.mtime, n.ctime, n.crtime
        return Attr(ino, n.mode, n.nlink, n.uid, n.gid, n.rdev, size, blocks, *times, 0)

    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        edit = self._edit(ino)
        for name in Change.__slots__:
            if (value := getattr(change, name)) is not None:
                setattr(edit[ino], name, value)
        self._commit(user, edit)

    # -- names

    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        directory = self._node(parent, directory=True)
        slot = directory.names.get(name)
        if slot is None:
            return None
        ino = Ino(directory.at(slot))
        if ino not in self.nodes:
            self._try(lambda: self.xn.readin(self.who, parent, slot, ino, 1))
            with answers():
                self._load(ino)
        self.parents[ino] = parent  # means something for directories, which have one
        return ino

    def parent(self, directory: Ino) -> Ino:
        self._node(directory, directory=True)
        return self.parents[directory]

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        names = self._node(directory, directory=True).names
        for slot, name in sorted((slot, name) for name, slot in names.items() if slot >= cookie):
            if (ino := self.lookup(directory, name)) is not None:
                yield Dirent(name, ino, self.nodes[ino].mode >> 12, slot + 1)

    def getattrs(
        self, directory: Ino, entries: Sequence[Dirent], *, read: bool
    ) -> list[Attr | None]:
        return [self.getattr(entry.ino) for entry in entries]  # readdir has looked them up

    def entries(self, directory: Ino) -> int:
        return len(self._node(directory, directory=True).names)

    def create(self, user: User, parent: Ino, name: bytes, new: New) -> Ino:
        edit = self._edit(parent)
        block, *text = self._find(parent, 2 if new.target else 1)
        child = Node(new.mode, 0, new.uid, new.gid, new.rdev, len(new.target), self.now())
        child.nlink = int(child.is_dir)
        ino = Ino(block)
        self._enter(edit[parent], name, ino, child)
        child.ctime = child.crtime
        for at in text:
            child.point(0, DATA, at)
        alloc = [(self.node, block, 1), *((self.data, at, 1) for at in text)]
        self._commit(user, {**edit, ino: child}, alloc=alloc)
        for at in text:
            self.xn.write_raw(self.who, at, 0, new.target)
        self.parents[ino] = parent
        return ino

    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> None:
        edit = self._edit(parent, ino)
        self._enter(edit[parent], name, ino, edit[ino])
        self._commit(user, edit, share=[(self.node, ino, 1)])

    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        ino = self._named(parent, name)
        edit = self._edit(parent, ino)
        self._leave(edit[parent], name, edit[ino])
        self._commit(user, edit, free=self._lost(ino, edit[ino], keep=keep))

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        ino, victim = self._named(src, name), self.lookup(dst, new_name)
        edit = self._edit(src, dst, ino, *([] if victim is None else [victim]))
        free: list[Extent] = []
        slot = None
        if victim is not None:
            slot = self._leave(edit[dst], new_name, edit[victim])
            free = self._lost(victim, edit[victim], keep=keep)
        self._leave(edit[src], name, edit[ino])
        self._enter(edit[dst], new_name, ino, edit[ino], slot)
        self._commit(user, edit, free=free)
        self.parents[ino] = dst

    def forget(self, ino: Ino) -> None:
        if self._node(ino).nlink == 0 and not self.readonly:
            edit = self._edit(ino)
            self._commit(User(0, 0), edit, free=self._cut(edit[ino], 0))
            with answers():
                self.xn.drop(self.who, ino)
            del self.nodes[ino]

    def _named(self, parent: Ino, name: bytes) -> Ino:
        if (ino := self.lookup(parent, name)) is None:
            raise FsError(errno.ENOENT)
        return ino

    def _enter(
        self, directory: Node, name: bytes, ino: Ino, node: Node, slot: int | None = None
    ) -> None:
        """In these copies, give `node` a name."""
        if name in directory.names:
            raise FsError(errno.EEXIST)
        if slot is None and 0 not in directory.slots:
            raise FsError(errno.ENOSPC, "the directory is full")
        slot = directory.slots.index(0) if slot is None else slot
        directory.point(slot, NODE, ino)
        directory.names[name] = slot
        node.nlink += 1
        directory.nlink += node.is_dir
        directory.mtime = directory.ctime = node.ctime = self.now()

    def _leave(self, directory: Node, name: bytes, node: Node) -> int:
        """In these copies, take a name away; the slot that it had."""
        slot = directory.names.pop(name)
        directory.slots[slot] = 0
        node.nlink -= 1
        directory.nlink -= node.is_dir
        directory.mtime = directory.ctime = node.ctime = self.now()
        return slot

    def _lost(self, ino: Ino, node: Node, *, keep: bool) -> list[Extent]:
        """What is freed with a name of `node`. The last one takes the data along, unless somebody
        has the file open: then XN holds the node for us, until `forget` or a power cut."""
        free: list[Extent] = [(self.node, ino, 1)]
        if node.names:
            raise FsError(errno.ENOTEMPTY)
        node.nlink -= node.is_dir
        if not node.nlink and keep:
            self.xn.hold(self.who, ino)
        elif not node.nlink:
            free += self._cut(node, 0)
        return free

    # -- bytes

    def readlink(self, ino: Ino) -> bytes:
        if not stat.S_ISLNK(self._node(ino).mode):
            raise FsError(errno.EINVAL)
        return self.read(ino, 0, BLOCK)

    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        node = self._node(ino)
        out = []
        for index, start, end in _pieces(offset, min(offset + size, node.size)):
            block = self._bind(ino, node, index)
            hole = bytes(end - start)
            out.append(self.xn.read(self.who, block, start % BLOCK, len(hole)) if block else hole)
        return b"".join(out)

    def write(
        self, user: User, ino: Ino, offset: int, data: bytes | memoryview, *, kill_suid: bool
    ) -> int:
        edit = self._edit(ino)
        node = edit[ino]
        pieces = list(_pieces(offset, offset + len(data)))
        holes = [index for index, _start, _end in pieces if not node.slots[index]]
        found = self._find(node.at(0) or ino, len(holes))
        if offset > node.size:
            self._clear_tail(ino, node)
        for index, start, end in pieces:
            if index not in holes:
                self._put(ino, node, index, start % BLOCK, data[start - offset : end - offset])
        for index, block in zip(holes, found, strict=True):
            node.point(index, DATA, block)
        node.size = max(node.size, offset + len(data))
        self._touch(node, kill_suid=kill_suid)
        self._commit(user, edit, alloc=[(self.data, block, 1) for block in found])
        for index, start, end in pieces:
            if index in holes:  # they are zero, and XN knows that they are new
                piece = data[start - offset : end - offset]
                self.xn.write_raw(self.who, node.at(index), start % BLOCK, piece)
        return len(data)

    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        edit = self._edit(ino)
        node = edit[ino]
        if size > node.size:
            self._clear_tail(ino, node)
        free = self._cut(node, -(-size // BLOCK))
        node.size = size
        self._touch(node, kill_suid=kill_suid)
        self._commit(user, edit, free=free)

    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        size = self._node(ino).size
        if offset >= size:
            raise FsError(errno.ENXIO)
        return size if hole else offset  # all of it counts as data

    def _bind(self, ino: Ino, node: Node, index: int) -> int:
        """Have a data block in the cache; its number, 0 for a hole."""
        if block := node.at(index):
            self._try(lambda: self.xn.readin(self.who, ino, index, block, 1))
            self.bound.add(block)
        return block

    def _put(self, ino: Ino, node: Node, index: int, low: int, data: bytes | memoryview) -> None:
        """Bytes into a block that the file has already. What the node says of them (size, mtime)
        may be durable only after them: an order that no pointer tells, so we do."""
        if block := self._bind(ino, node, index):
            with answers():
                self.xn.write_raw(self.who, block, low, data)
                self._order(block, ino)

    def _order(self, block: int, ino: Ino) -> None:
        try:
            self.xn.depend(self.who, block, ino)
        except Refused:  # too many are declared
            self.xn.sync(self.who, [block])

    def _clear_tail(self, ino: Ino, node: Node) -> None:
        """The file is to grow: what lies behind its end, from longer days, must not be seen."""
        index, low = divmod(node.size, BLOCK)
        if low:
            self._put(ino, node, index, low, bytes(BLOCK - low))

    def _cut(self, node: Node, first: int) -> list[Extent]:
        """In this copy, let go of the data from slot `first` on; what is freed."""
        free = [(self.data, node.at(i), 1) for i in range(first, SLOTS) if node.slots[i]]
        node.slots[first:] = [0] * (SLOTS - first)
        return free

    def _touch(self, node: Node, *, kill_suid: bool) -> None:
        node.mtime = node.ctime = self.now()
        if kill_suid:
            node.mode = without_setid(node.mode)

    # -- the whole

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """All of it at once: then nothing is left to wait for, and others come after it."""
        self.sync(inos, data_only=data_only)

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """XN takes along what goes with a node: its name, its new blocks, what `_order` said."""
        with answers():
            self.xn.sync(self.who, inos)

    def statfs(self) -> StatFs:
        lo, hi = self.xn.data_area
        free = self.xn.free_blocks()
        return StatFs(hi - lo, free, free, hi - lo, free)

    def idle(self) -> None:
        with answers():
            if any(self.xn.dirty_count()):
                self.xn.sync(self.who)
            elif self.xn.leaky and not self.readonly:
                self.xn.collect(self.who, 64)

    def close(self) -> None:
        self.sync(None)
        self.readonly = True

    def _refuse(self, *_args: object, **_keywords: object) -> NoReturn:
        raise FsError(errno.EOPNOTSUPP)

    make_anonymous = exchange = allocate = zero_range = punch = _refuse
    getxattr = setxattr = removexattr = _refuse

    def listxattr(self, ino: Ino) -> Sequence[bytes]:
        return ()


def _number(xn: Xn, name: str) -> int:
    number = xn.type_number(name)
    if number is None:
        raise Refused(f"type {name} is not installed in this image")
    return number


def _pieces(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A range of bytes by block: (which, first byte, last byte + 1)."""
    while start < end:
        index = start // BLOCK
        stop = min(end, (index + 1) * BLOCK)
        yield index, start, stop
        start = stop
