"""FFS behind the `FileSystem` protocol: mkfs, mount, and every request, each answered or an errno.

Each public method is one request: it finds the inodes, lets a module do the work, and is the only
place where errors of the kernel become errnos (`answers`). On corruption the file system turns
read-only. What a request means to names is in `names`, to bytes in `data`.
"""

from __future__ import annotations

import errno
import stat
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Final, TypeVar, cast

from libfs.ffs import format as f
from libfs.ffs import types as t
from libfs.ffs.data import MAX_SIZE, FileData
from libfs.ffs.directory import Directories
from libfs.ffs.extents import ExtentMap
from libfs.ffs.inode import DT_DIR, DT_LNK, DT_REG, Vnode
from libfs.ffs.names import LINK_MAX, Names
from libfs.ffs.place import Placer
from libfs.ffs.volume import Batch, Volume
from libfs.ffs.xattrs import Xattrs
from libfs.posix.interface import Attr, Change, Dirent, FsError, Ino, New, StatFs, User
from xnfs import (
    AclRefused,
    Caller,
    CorruptionError,
    DeviceError,
    NoFrames,
    NoSpace,
    NotCached,
    NotFree,
    ReadOnly,
    Xn,
    XnError,
)

F = TypeVar("F", bound=Callable[..., Any])

#: How often `idle` makes everything durable, ns.
SYNC_EVERY: Final = 5_000_000_000
#: Metadata blocks that one step of the collector visits.
COLLECT_STEP: Final = 64

_ERRNOS: Final = (
    (NoSpace, errno.ENOSPC),
    (NotFree, errno.ENOSPC),
    (NoFrames, errno.ENOMEM),
    (ReadOnly, errno.EROFS),
    (DeviceError, errno.EIO),
    (CorruptionError, errno.EUCLEAN),
)


def answers(method: F) -> F:
    """The boundary of a request: errors of the kernel leave as `FsError`."""

    @wraps(method)
    def request(self: Ffs, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except XnError as error:
            raise self._answer(error) from error

    return cast(F, request)


class Ffs:
    """A mounted FFS (the protocol `FileSystem`)."""

    max_size = MAX_SIZE
    link_max = LINK_MAX

    def __init__(self, vol: Volume, root: int, uuid: bytes, *, grouping: bool) -> None:
        self.root = Ino(root)
        self.volume = vol
        place = Placer(vol, grouping=grouping)
        self._map = ExtentMap(vol, place)
        self._data = FileData(vol, self._map, place)
        self._dirs = Directories(vol, place)
        self._xattrs = Xattrs(vol, place)
        self._names = Names(vol, place, self._dirs, self._map, self._data, self._xattrs, uuid)
        self._synced = vol.now()

    # -- making and mounting

    @staticmethod
    def mkfs(
        xn: Xn,
        cap: bytes,
        name: str,
        *,
        uid: int = 0,
        gid: int = 0,
        mode: int = 0o755,
        flags: int = 0,
        uuid: bytes | None = None,
    ) -> None:
        """Make an empty file system and its root. Durable on return.

        `cap` is for the whole disk. Raises XnError (the name is taken, no space, ...).
        """
        who = Caller(cap)
        numbers = {spec.name: xn.install_type(who, spec) for spec in t.TYPES}
        info = xn.install_root(who, name, numbers[t.SUPER])
        identity = uuid or uuids.uuid4().bytes
        now = xn.now()
        block, _n = xn.find_free(info.block + 1, 1)
        if not block:
            raise NoSpace("no block for the root directory")
        head = f.SUPER.pack(
            f.SUPER_MAGIC, f.VERSION, flags, f.GROUP, now, identity, f.pointer(f.P_DIR, block)
        )
        key = int.from_bytes(uuids.uuid5(uuids.UUID(bytes=identity), name).bytes[:8], "little")
        root = Vnode(
            block,
            (
                *(stat.S_IFDIR | mode, f.I_INLINE, uid, gid, 2, 0, 0, now, now, now, now),
                *(now // 1000 & 0xFFFFFFFF, 0, 0, 0, key, 0, block, 0, f.INLINE_NAMES.heap),
            ),
        )
        xn.change(
            Caller(info.cap),
            [(info.block, [(f.SUPER_AT, head)])],
            alloc=[(numbers[t.DIR], block, 1)],
            inits={block: [(f.HEADER_AT, root.pack())]},
        )
        xn.sync(who)

    @staticmethod
    def mount(xn: Xn, cap: bytes, name: str, *, readonly: bool = False) -> Ffs:
        """Mount the root `name`. Raises XnError: no such root, CorruptionError."""
        info = xn.mount_root(Caller(cap), name)
        vol = Volume(xn, info.cap, info.block, readonly=readonly or xn.readonly)
        magic, version, flags, group, _created, uuid, pointer = f.SUPER.unpack_from(
            vol.block(info.block), f.SUPER_AT
        )
        for field, got, want in (
            ("magic", magic, f.SUPER_MAGIC),
            ("version", version, f.VERSION),
            ("flags", flags & ~f.F_GROUPING, 0),
            ("group size", group, f.GROUP),
            ("kind of the root", pointer >> f.KIND_SHIFT, f.P_DIR),
        ):
            if got != want:
                raise CorruptionError(info.block, field, got, want)
        root = pointer & f.BLOCK_MASK
        xn.pin(vol.who, info.block)  # every chain of parents ends in it
        vol.set_home(root, info.block, 0)
        vol.directory(root)
        return Ffs(vol, root, uuid, grouping=bool(flags & f.F_GROUPING))

    # -- errors

    def _answer(self, error: XnError) -> FsError:
        if isinstance(error, AclRefused):
            return FsError(error.errno)
        if isinstance(error, CorruptionError):
            self.volume.readonly = True
        number = next((n for kind, n in _ERRNOS if isinstance(error, kind)), errno.EIO)
        return FsError(number, str(error))

    @property
    def readonly(self) -> bool:
        """Whether changes are refused: mounted so, or since corruption was seen."""
        return self.volume.readonly

    # -- attributes

    def now(self) -> int:
        """The clock, ns."""
        return self.volume.now()

    @answers
    def access(self, user: User, ino: Ino, mask: int) -> None:
        """Ask the inode's acl; its answers are remembered until owner, mode or list change."""
        vol = self.volume
        v = vol.vnodes.get(ino) or vol.vnode(ino)
        key = (user.uid, user.gid, user.groups)
        granted = v.rights.get(key, 0)
        if granted >> mask & 1:
            return
        who = vol.caller(user)
        try:
            vol.xn.access(who, ino, mask)
        except NotCached:
            vol.ensure(ino)
            vol.xn.access(who, ino, mask)
        v.rights[key] = granted | 1 << mask

    @answers
    def getattr(self, ino: Ino) -> Attr:
        """Attributes. The object is shared: don't change it."""
        v = self.volume.vnodes.get(ino)
        if v is None:
            v = self.volume.vnode(ino)
        return v.attr or v.attributes()

    @answers
    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        """Raises: EPERM."""
        vol = self.volume
        v = vol.vnode(ino)
        fields = {
            name: value
            for name in ("mode", "uid", "gid", "atime", "mtime", "ctime")
            if (value := getattr(change, name)) is not None
        }
        if fields.keys() == {"atime"} and v.atime <= fields["atime"] <= vol.now():
            self._may_change()
            v.atime = fields["atime"]
            vol.later(v)
            return
        if v.dirty:
            vol.flush(v)
        batch = Batch(vol, vol.caller(user))
        batch.set(v, **fields)
        batch.commit()

    def _may_change(self) -> None:
        if self.volume.readonly:
            raise FsError(errno.EROFS)

    # -- names

    @answers
    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        """The inode of a name, or None."""
        vol = self.volume
        v = vol.vnodes.get(parent)
        if v is None or v.mode >> 12 != DT_DIR:
            v = vol.directory(parent)
        found = self._dirs.find(v, name)
        if found is None:
            return None
        ino = found[1]
        if ino not in vol.home:
            nb = self._dirs.holder(v, name)
            vol.set_home(ino, nb.block, found[0])
        return Ino(ino)

    @answers
    def parent(self, directory: Ino) -> Ino:
        """`..`; the root's is the root."""
        return Ino(self.volume.directory(directory).parent)

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie`."""
        entries = self._dirs.entries(self._directory(directory), cookie)
        while True:
            entry = self._next_entry(entries)
            if entry is None:
                return
            yield entry

    @answers
    def _directory(self, ino: Ino) -> Vnode:
        return self.volume.directory(ino)

    @answers
    def _next_entry(self, entries: Iterator[Dirent]) -> Dirent | None:
        return next(entries, None)

    @answers
    def entries(self, directory: Ino) -> int:
        """How many entries."""
        return self.volume.directory(directory).entries

    @answers
    def create(self, user: User, parent: Ino, name: bytes, new: New) -> Ino:
        """Raises: EEXIST, EACCES, ENOSPC."""
        return Ino(self._names.create(user, self.volume.directory(parent), name, new))

    @answers
    def make_anonymous(self, user: User, new: New) -> Ino:
        """An inode without a name."""
        self._may_change()
        return Ino(self._names.anonymous(user, new))

    @answers
    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> None:
        """Raises: EEXIST, EMLINK, EACCES."""
        vol = self.volume
        v = vol.vnode(ino)
        if v.is_dir:
            raise FsError(errno.EPERM)
        self._names.link(user, v, vol.directory(parent), name)

    @answers
    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        """Raises: ENOENT, ENOTEMPTY, EACCES, EPERM."""
        self._may_change()
        self._names.unlink(user, self.volume.directory(parent), name, keep=keep)

    @answers
    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        """Raises: ENOENT, EACCES, EPERM, ENOSPC."""
        self._may_change()
        source, target = self.volume.directory(src), self.volume.directory(dst)
        self._names.rename(user, source, name, target, new_name, keep=keep)

    @answers
    def exchange(self, user: User, a: Ino, a_name: bytes, b: Ino, b_name: bytes) -> None:
        """Raises: ENOENT, EACCES, EPERM."""
        first, second = self.volume.directory(a), self.volume.directory(b)
        self._names.exchange(user, first, a_name, second, b_name)

    @answers
    def forget(self, ino: Ino) -> None:
        """The last handle of an inode without a name is gone."""
        v = self.volume.vnode(ino)
        if not v.nlink and not self.volume.readonly:
            self._names.reclaim(v)

    # -- bytes

    def _file(self, ino: Ino) -> Vnode:
        v = self.volume.vnodes.get(ino) or self.volume.vnode(ino)
        kind = v.mode >> 12
        if kind != DT_REG:
            raise FsError(errno.EISDIR if kind == DT_DIR else errno.EINVAL)
        return v

    @answers
    def readlink(self, ino: Ino) -> bytes:
        """Raises: EINVAL."""
        v = self.volume.vnode(ino)
        if v.mode >> 12 != DT_LNK:
            raise FsError(errno.EINVAL)
        return self._data.read(v, 0, v.size)

    @answers
    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        """At most `size` bytes."""
        return self._data.read(self._file(ino), offset, size)

    @answers
    def write(
        self,
        user: User,
        ino: Ino,
        offset: int,
        data: bytes | memoryview,
        *,
        kill_suid: bool,
    ) -> int:
        """Raises: EFBIG, ENOSPC."""
        self._may_change()
        v = self._file(ino)
        mode = _without_set_id(v.mode) if kill_suid else v.mode
        return self._data.write(self.volume.caller(user), v, offset, data, mode)

    @answers
    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        """Raises: EFBIG, ENOSPC."""
        v = self._file(ino)
        mode = _without_set_id(v.mode) if kill_suid else v.mode
        self._data.truncate(self._writer(user, v), v, size, mode)

    @answers
    def allocate(self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool) -> None:
        """Raises: EFBIG, ENOSPC."""
        v = self._file(ino)
        who = self._writer(user, v)
        self._data.allocate(who, v, offset, length, keep_size=keep_size)

    @answers
    def zero_range(
        self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool
    ) -> None:
        """Raises: EFBIG, ENOSPC."""
        v = self._file(ino)
        who = self._writer(user, v)
        self._data.zero_range(who, v, offset, length, keep_size=keep_size)

    @answers
    def punch(self, user: User, ino: Ino, offset: int, length: int) -> None:
        """Make a hole."""
        v = self._file(ino)
        self._data.punch(self._writer(user, v), v, offset, length)

    def _writer(self, user: User, v: Vnode) -> Caller:
        """Who asks for a change of data, with nothing older waiting in the header."""
        self._may_change()
        if v.dirty:
            self.volume.flush(v)
        return self.volume.caller(user)

    @answers
    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        """Raises: ENXIO."""
        return self._data.seek(self._file(ino), offset, hole=hole)

    # -- extended attributes

    @answers
    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Raises: ENODATA."""
        return self._xattrs.get(self.volume.vnode(ino), name)

    @answers
    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
        """Raises: EEXIST, ENODATA, ENOSPC, EACCES."""
        vol = self.volume
        self._xattrs.set(vol.caller(user), vol.vnode(ino), name, value, flags)

    @answers
    def listxattr(self, ino: Ino) -> Sequence[bytes]:
        """All names."""
        return self._xattrs.list(self.volume.vnode(ino))

    @answers
    def removexattr(self, user: User, ino: Ino, name: bytes) -> None:
        """Raises: ENODATA, EACCES."""
        vol = self.volume
        self._xattrs.remove(vol.caller(user), vol.vnode(ino), name)

    # -- the whole

    @answers
    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """On return all of it survives any power cut."""
        vol = self.volume
        if inos is None:
            vol.sync_all()
            return
        vnodes = [vol.vnode(ino) for ino in inos]
        blocks: list[int] = []
        for v in vnodes:
            vol.flush(v)
            blocks.append(v.ino)
            blocks += [b for lo, hi in v.written for b in range(lo, hi)]
        vol.xn.sync(vol.who, blocks)
        for v in vnodes:
            v.written.clear()

    @answers
    def statfs(self) -> StatFs:
        """Blocks that wait for a commit do not count as free."""
        lo, hi = self.volume.xn.data_area
        free = self.volume.xn.free_blocks()
        return StatFs(hi - lo, free, free, hi - lo, free)

    @answers
    def idle(self) -> None:
        """Every 5 s what is dirty becomes durable; in between leaks are collected."""
        vol = self.volume
        if vol.readonly:
            return
        now = vol.now()
        if not 0 <= now - self._synced < SYNC_EVERY:
            self._synced = now
            if vol.dirty or any(vol.xn.dirty_count()):
                vol.sync_all()
        elif vol.xn.leaky:
            vol.xn.collect(vol.who, COLLECT_STEP)

    @answers
    def close(self) -> None:
        """Everything durable. The image stays open: it belongs to who opened it."""
        self.volume.sync_all()
        self.volume.readonly = True


def _without_set_id(mode: int) -> int:
    """`mode` after a change of the data: S_ISGID without S_IXGRP means something else and stays."""
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID
