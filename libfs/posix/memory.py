"""A file system in ordinary dicts: the smallest one that keeps the whole contract of `interface`.

It is the model that the conformance suite compares other file systems with, and the example to
start a new one from. Obvious before fast: one dict of nodes, one dict of pages a file, one dict of
names a directory. Nothing survives `close`, so nothing here is about order or durability.
Inode numbers are never used twice.
"""

from __future__ import annotations

import errno
import itertools
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from libfs.posix import acl
from libfs.posix.interface import (
    ACL_ACCESS,
    XATTR_CREATE,
    XATTR_REPLACE,
    Attr,
    Change,
    Dirent,
    FsError,
    Ino,
    New,
    StatFs,
    Syncing,
    User,
)
from libfs.posix.perms import without_setid

PAGE = 4096
_ZEROS = bytes(PAGE)
_XATTR_SPACE = 65536  # for all names and values of an inode


@dataclass(slots=True)
class _Node:
    """One inode. `entries` maps a name to its inode and cookie; `pages` has no holes in it."""

    ino: Ino
    mode: int
    uid: int
    gid: int
    rdev: int
    crtime: int
    parent: Ino  # means something in directories only
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    nlink: int = 1
    size: int = 0
    target: bytes = b""
    pages: dict[int, bytearray] = field(default_factory=dict)
    entries: dict[bytes, tuple[Ino, int]] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class MemoryFs:
    """Implements `interface.FileSystem`; the docstrings are there."""

    def __init__(self, *, clock: Callable[[], int] = time.time_ns, link_max: int = 65000) -> None:
        self.readonly = False
        self.max_size = (1 << 63) - 1
        self.link_max = link_max
        self.now = clock
        self._nodes: dict[Ino, _Node] = {}
        self._inos = itertools.count(1)
        self._cookies = itertools.count(1)
        self.root = self._add(New(stat.S_IFDIR | 0o755, 0, 0)).ino
        self._nodes[self.root].parent = self.root
        self._nodes[self.root].nlink = 2

    # -- inodes

    def _node(self, ino: Ino) -> _Node:
        try:
            return self._nodes[ino]
        except KeyError:
            raise FsError(errno.ESTALE) from None

    def _directory(self, ino: Ino) -> _Node:
        node = self._node(ino)
        if not stat.S_ISDIR(node.mode):
            raise FsError(errno.ENOTDIR)
        return node

    def _add(self, new: New) -> _Node:
        now = self.now()
        ino = Ino(next(self._inos))
        node = _Node(ino, new.mode, new.uid, new.gid, new.rdev, now, ino, now, now, now)
        node.target, node.size = new.target, len(new.target)
        node.xattrs.update(new.xattrs)
        self._nodes[ino] = node
        return node

    def access(self, user: User, ino: Ino, mask: int) -> None:
        node = self._node(ino)
        mode = node.mode
        if user.uid == 0:
            if mask & 1 and not mode & 0o111 and not stat.S_ISDIR(mode):
                raise FsError(errno.EACCES)
            return
        value = node.xattrs.get(ACL_ACCESS)
        access = None if value is None else acl.parse_stored_untrusted(value)
        if not acl.permits(access, mode, node.uid, node.gid, user, mask):
            raise FsError(errno.EACCES)

    def getattr(self, ino: Ino) -> Attr:
        n = self._node(ino)
        times = (n.atime, n.mtime, n.ctime, n.crtime)
        blocks = len(n.pages) * PAGE // 512
        return Attr(ino, n.mode, n.nlink, n.uid, n.gid, n.rdev, n.size, blocks, *times, 0)

    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        node = self._node(ino)
        for name in Change.__slots__:
            value = getattr(change, name)
            if value is not None:
                setattr(node, name, value)

    # -- names

    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        entry = self._directory(parent).entries.get(name)
        return None if entry is None else entry[0]

    def parent(self, directory: Ino) -> Ino:
        return self._directory(directory).parent

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        # Cookies only grow, and a dict keeps its order, so they are in order.
        for name, (ino, at) in list(self._directory(directory).entries.items()):
            if at > cookie:
                yield Dirent(name, ino, self._node(ino).mode >> 12, at)

    def getattrs(
        self, directory: Ino, entries: Sequence[Dirent], *, read: bool
    ) -> list[Attr | None]:
        return [self.getattr(entry.ino) for entry in entries]

    def entries(self, directory: Ino) -> int:
        return len(self._directory(directory).entries)

    def create(self, user: User, parent: Ino, name: bytes, new: New) -> Ino:
        directory = self._directory(parent)
        if name in directory.entries:
            raise FsError(errno.EEXIST)
        node = self._add(new)
        if stat.S_ISDIR(new.mode):
            node.nlink = 2
            directory.nlink += 1
            node.parent = parent
        self._enter(directory, name, node.ino)
        return node.ino

    def make_anonymous(self, user: User, new: New) -> Ino:
        node = self._add(new)
        node.nlink = 0
        return node.ino

    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> None:
        directory, node = self._directory(parent), self._node(ino)
        if name in directory.entries:
            raise FsError(errno.EEXIST)
        node.nlink += 1
        node.ctime = self.now()
        self._enter(directory, name, ino)

    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        directory = self._directory(parent)
        if name not in directory.entries:
            raise FsError(errno.ENOENT)
        if self._node(directory.entries[name][0]).entries:
            raise FsError(errno.ENOTEMPTY)
        ino, _ = directory.entries.pop(name)
        directory.mtime = directory.ctime = self.now()
        self._drop(directory, ino, keep=keep)

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        source, target = self._directory(src), self._directory(dst)
        if name not in source.entries:
            raise FsError(errno.ENOENT)
        ino, _ = source.entries.pop(name)
        source.mtime = source.ctime = self.now()
        replaced = target.entries.get(new_name)
        self._enter(target, new_name, ino)
        self._moved(source, target, ino)
        if replaced is not None:
            self._drop(target, replaced[0], keep=keep)

    def exchange(self, user: User, a: Ino, a_name: bytes, b: Ino, b_name: bytes) -> None:
        first, second = self._directory(a), self._directory(b)
        if a_name not in first.entries or b_name not in second.entries:
            raise FsError(errno.ENOENT)
        ino, other = first.entries[a_name][0], second.entries[b_name][0]
        self._enter(first, a_name, other)
        self._enter(second, b_name, ino)
        self._moved(first, second, ino)
        self._moved(second, first, other)

    def forget(self, ino: Ino) -> None:
        del self._nodes[ino]

    def _enter(self, directory: _Node, name: bytes, ino: Ino) -> None:
        """Let `name` be `ino`. A name that was there keeps its cookie: readers see it once."""
        old = directory.entries.get(name)
        directory.entries[name] = (ino, next(self._cookies) if old is None else old[1])
        directory.mtime = directory.ctime = self.now()

    def _moved(self, source: _Node, target: _Node, ino: Ino) -> None:
        node = self._node(ino)
        node.ctime = self.now()
        if stat.S_ISDIR(node.mode):
            node.parent = target.ino
            source.nlink -= 1
            target.nlink += 1

    def _drop(self, directory: _Node, ino: Ino, *, keep: bool) -> None:
        """`ino` lost a name in `directory`."""
        node = self._node(ino)
        node.ctime = self.now()
        if stat.S_ISDIR(node.mode):
            directory.nlink -= 1
            node.nlink = 0
        else:
            node.nlink -= 1
        if node.nlink == 0 and not keep:
            del self._nodes[ino]

    # -- bytes

    def readlink(self, ino: Ino) -> bytes:
        return self._node(ino).target

    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        node = self._node(ino)
        end = min(offset + size, node.size)
        parts = [
            bytes(node.pages.get(page, _ZEROS)[low:high]) for page, low, high in _pages(offset, end)
        ]
        return b"".join(parts)

    def write(
        self, user: User, ino: Ino, offset: int, data: bytes | memoryview, *, kill_suid: bool
    ) -> int:
        node = self._node(ino)
        at = 0
        for page, low, high in _pages(offset, offset + len(data)):
            content = node.pages.setdefault(page, bytearray(PAGE))
            content[low:high] = data[at : at + high - low]
            at += high - low
        node.size = max(node.size, offset + len(data))
        self._changed(node, kill_suid=kill_suid)
        return len(data)

    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        node = self._node(ino)
        if size < node.size:
            self._clear(node, size, node.size)
        node.size = size
        for page in [page for page in node.pages if page * PAGE >= size]:
            del node.pages[page]
        self._changed(node, kill_suid=kill_suid)

    def allocate(self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool) -> None:
        node = self._node(ino)
        for page, _, _ in _pages(offset, offset + length):
            node.pages.setdefault(page, bytearray(PAGE))
        if not keep_size:
            node.size = max(node.size, offset + length)
        self._changed(node, kill_suid=False)

    def zero_range(
        self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool
    ) -> None:
        self._clear(self._node(ino), offset, offset + length)
        self.allocate(user, ino, offset, length, keep_size=keep_size)

    def punch(self, user: User, ino: Ino, offset: int, length: int) -> None:
        node = self._node(ino)
        self._clear(node, offset, offset + length)
        self._changed(node, kill_suid=False)

    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        node = self._node(ino)
        if offset >= node.size:
            raise FsError(errno.ENXIO)
        pages = sorted(page for page in node.pages if (page + 1) * PAGE > offset)
        if not hole:
            if not pages or pages[0] * PAGE >= node.size:
                raise FsError(errno.ENXIO)
            return max(offset, pages[0] * PAGE)
        for page in pages:
            if page * PAGE > offset:
                break
            offset = (page + 1) * PAGE
        return min(offset, node.size)

    def _clear(self, node: _Node, start: int, end: int) -> None:
        """Make a range read as zeros; whole pages become holes."""
        for page in list(node.pages):
            low, high = max(start - page * PAGE, 0), min(end - page * PAGE, PAGE)
            if low == 0 and high == PAGE:
                del node.pages[page]
            elif low < high:
                node.pages[page][low:high] = bytes(high - low)

    def _changed(self, node: _Node, *, kill_suid: bool) -> None:
        node.mtime = node.ctime = self.now()
        if kill_suid:
            node.mode = without_setid(node.mode)

    # -- extended attributes

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        try:
            return self._node(ino).xattrs[name]
        except KeyError:
            raise FsError(errno.ENODATA) from None

    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
        node = self._node(ino)
        if name in node.xattrs and flags & XATTR_CREATE:
            raise FsError(errno.EEXIST)
        if name not in node.xattrs and flags & XATTR_REPLACE:
            raise FsError(errno.ENODATA)
        others = sum(len(k) + len(v) for k, v in node.xattrs.items() if k != name)
        if others + len(name) + len(value) > _XATTR_SPACE:
            raise FsError(errno.ENOSPC)
        node.xattrs[name] = value
        node.ctime = self.now()

    def listxattr(self, ino: Ino) -> Sequence[bytes]:
        return list(self._node(ino).xattrs)

    def removexattr(self, user: User, ino: Ino, name: bytes) -> None:
        node = self._node(ino)
        if node.xattrs.pop(name, None) is None:
            raise FsError(errno.ENODATA)
        node.ctime = self.now()

    # -- the whole

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        return None

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        pass

    def statfs(self) -> StatFs:
        return StatFs(1 << 20, 1 << 19, 1 << 19, 1 << 20, (1 << 20) - len(self._nodes))

    def idle(self) -> Syncing | None:
        return None

    def close(self) -> None:
        self._nodes.clear()


def _pages(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The pages of a range: number, and first and last offset in the page."""
    while start < end:
        page, low = divmod(start, PAGE)
        high = min(PAGE, end - page * PAGE)
        yield page, low, high
        start = page * PAGE + high
