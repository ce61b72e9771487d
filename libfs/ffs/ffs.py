"""FFS behind the `FileSystem` protocol: mkfs, mount, and every request, each answered or an errno.

Each public method is one request: it finds the inodes, lets a module do the work, and is the only
place where errors of the kernel become errnos (`answers`). On corruption the file system turns
read-only. What a request means to names is in `names`, to bytes in `data`.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from libfs.common.answering import answer, answers
from libfs.common.inodes import no_file
from libfs.ffs import between
from libfs.ffs import format as f
from libfs.ffs.data import MAX_SIZE, FileData
from libfs.ffs.directory import Directories
from libfs.ffs.extents import ExtentMap
from libfs.ffs.fill import Filler
from libfs.ffs.fill import Filling as Fill
from libfs.ffs.groups import Groups
from libfs.ffs.inode import DT_DIR, DT_LNK, DT_REG, Vnode
from libfs.ffs.names import LINK_MAX, Names
from libfs.ffs.place import Placer
from libfs.ffs.superblock import decode_super_untrusted, make
from libfs.ffs.syncing import Sync
from libfs.ffs.volume import Batch, Volume
from libfs.ffs.xattrs import Xattrs
from libfs.posix.interface import (
    Attr,
    Change,
    Dirent,
    Entry,
    Filling,
    FsError,
    Ino,
    New,
    Sink,
    StatFs,
    Syncing,
    User,
)
from xnfs import (
    Caller,
    CorruptionError,
    NotCached,
    Xn,
    XnError,
)

#: How often `idle` makes everything durable, ns.
SYNC_EVERY: Final = 5_000_000_000
#: Metadata blocks that one step of the collector visits.
COLLECT_STEP: Final = 64

_TIMES: Final = frozenset(("atime", "mtime", "ctime"))


class Ffs:
    """A mounted FFS (the protocol `FileSystem`)."""

    max_size = MAX_SIZE
    link_max = LINK_MAX

    def __init__(self, vol: Volume, root: int, uuid: bytes, *, grouping: bool) -> None:
        self.root = Ino(root)
        self.volume = vol
        place = Placer(vol)
        self._map = ExtentMap(vol, place)
        if grouping:
            vol.groups = Groups(vol, self._map)
        self._data = FileData(vol, self._map, place)
        self._dirs = Directories(vol, place)
        self._xattrs = Xattrs(vol, place)
        self._names = Names(vol, place, self._dirs, self._map, self._data, self._xattrs, uuid)
        self._filler = Filler(
            vol, place, self._dirs, self._map, self._data, self._xattrs, self._names
        )
        self._synced = vol.now()
        self._closed = False

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
        make(xn, cap, name, uid=uid, gid=gid, mode=mode, flags=flags, uuid=uuid)

    @staticmethod
    def mount(
        xn: Xn, cap: bytes, name: str, *, readonly: bool = False, grouping: bool | None = None
    ) -> Ffs:
        """Mount the root `name`. `grouping`: small files together (C-FFS) or not, whatever it was
        made for. Raises XnError: no such root, CorruptionError."""
        info = xn.mount_root(Caller(cap), name)
        vol = Volume(xn, info.cap, info.block, readonly=readonly or xn.readonly)
        head = decode_super_untrusted(info.block, vol.block(info.block))
        vol.set_home(head.root, info.block, 0)
        vol.directory(head.root)
        if grouping is None:
            grouping = bool(head.flags & f.F_GROUPING)
        return Ffs(vol, head.root, head.uuid, grouping=grouping)

    # -- errors

    def _answer(self, error: XnError) -> FsError:
        # A block that the kernel takes for whole and FFS can't read was written so, by whoever may
        # write it: that is the trouble of this object, and no reason to stop everybody.
        if isinstance(error, CorruptionError) and self.volume.xn.damaged:
            self.volume.readonly = True
        return answer(error)

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
        read = fields.keys() == {"atime"} and v.atime <= fields["atime"] <= vol.now()
        if read or (user.uid == 0 and fields.keys() <= _TIMES):
            # As after a write: what the superuser may do needs no acl, and a host kernel that
            # keeps times brings them after every change.
            self._may_change()
            for name, value in fields.items():
                setattr(v, name, value)
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
        nb = self._dirs.where(v, name)
        found = None if nb is None else nb.names.get(name)
        if nb is None or found is None:
            return None
        ino = found[1]
        if ino not in vol.home:
            vol.set_home(ino, nb.block, found[0])
        return Ino(ino)

    @answers
    def parent(self, directory: Ino) -> Ino:
        """`..`; the root's is the root."""
        return Ino(self.volume.directory(directory).parent)

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie`."""
        try:
            yield from self._dirs.entries(self.volume.directory(directory), cookie)
        except XnError as error:
            raise self._answer(error) from error

    def getattrs(
        self, directory: Ino, entries: Sequence[Dirent], *, read: bool
    ) -> list[Attr | None]:
        """Attributes of entries, read in few pieces."""
        vnodes = self.volume.vnodes
        if read:
            # A listing has noted where they lie.
            unknown = [entry.ino for entry in entries if entry.ino not in vnodes]
            self.volume.ahead.many(unknown)
            self.volume.ensure_many(unknown)
        found: list[Attr | None] = []
        for entry in entries:
            v = vnodes.get(entry.ino)
            attr = None
            if v is not None:
                attr = v.attr or v.attributes()
            elif read:
                with suppress(FsError):
                    attr = self.getattr(entry.ino)
            found.append(attr)
        return found

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
    def send(
        self, who: Caller, parent: Ino, name: bytes, to: Ffs, target: Ino, new_name: bytes
    ) -> None:
        """Move a file, not a directory, to another FFS of the same image, without copying it.

        See `between.send`. `who` holds both roots. Raises: EXDEV, EISDIR, EMLINK (it has other
        names), EBUSY (somebody holds it), EEXIST, ENOENT, ENOSPC.
        """
        self._may_change()
        to._may_change()
        source, sink = self._side(), to._side()
        between.send(who, source, parent, name, sink, target, new_name)

    def _side(self) -> between.Side:
        return between.Side(self.volume, self._dirs, self._names, self._map, self._xattrs)

    @answers
    def forget(self, ino: Ino) -> None:
        """The last handle of an inode without a name is gone."""
        v = self.volume.vnode(ino)
        if not v.nlink and not self.volume.readonly:
            self._names.reclaim(v)

    # -- bytes

    def _file(self, ino: Ino) -> Vnode:
        v = self.volume.vnodes.get(ino) or self.volume.vnode(ino)
        if v.mode >> 12 != DT_REG:
            raise no_file(v.mode)
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
    def lend(self, ino: Ino, offset: int, size: int, to: Sink) -> None:
        """As `read`, shown to `to` (`Lender`)."""
        self._data.lend(self._file(ino), offset, size, to)

    @answers
    def borrow(self, ino: Ino, offset: int, size: int) -> Sequence[memoryview]:
        """As `read`, in pieces that stay as they are (`Lender`)."""
        return self._data.borrow(self._file(ino), offset, size)

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

    # -- copies

    @answers
    def fill(self, user: User, directory: Ino, entries: Sequence[Entry]) -> Filling:
        """Raises: EMLINK, ENOTDIR."""
        self._may_change()
        fill = self._filler.fill(user, self.volume.directory(directory), entries)
        return _Filling(self, fill)

    @answers
    def will_read(self, inos: Sequence[Ino]) -> None:
        """A hint."""
        vol = self.volume
        unread = [ino for ino in inos if ino not in vol.vnodes]
        vol.ahead.hint((ino, 1) for ino in sorted(unread))
        vol.ahead.many(unread)

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
    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """Every earlier change of a name goes with it. Raises: EROFS if what is dirty can't become
        durable any more, because corruption was seen."""
        vol = self.volume
        if vol.readonly:
            if any(vol.xn.dirty_count()) and not self._closed:
                raise FsError(errno.EROFS)
            return None
        vnodes = None if inos is None else [vol.vnode(ino) for ino in inos]
        return _Syncing(self, Sync(vol, vnodes, data_only=data_only))

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """The three steps of it, one after the other."""
        syncing = self.begin_sync(inos, data_only=data_only)
        if syncing is not None:
            syncing.wait()
            syncing.done()

    @answers
    def statfs(self) -> StatFs:
        """Blocks that wait for a commit do not count as free."""
        lo, hi = self.volume.xn.data_area
        free = self.volume.xn.free_blocks()
        return StatFs(hi - lo, free, free, hi - lo, free)

    @answers
    def idle(self) -> Syncing | None:
        """Every 5 s what is dirty becomes durable; in between leaks are collected."""
        vol = self.volume
        if vol.readonly:
            return None
        now = vol.now()
        if not 0 <= now - self._synced < SYNC_EVERY:
            self._synced = now
            if vol.dirty or any(vol.xn.dirty_count()):
                return self.begin_sync(None)
        elif vol.xn.leaky:
            vol.xn.collect(vol.who, COLLECT_STEP)
        return None

    @answers
    def close(self) -> None:
        """Everything durable. The image stays open: it belongs to who opened it."""
        vol = self.volume
        if self._closed:
            return
        vol.sync_all()
        self._closed = vol.readonly = True
        vol.xn.unpin(vol.who, vol.super)


class _Syncing:
    """A sync under way, whose errors are answers too."""

    def __init__(self, fs: Ffs, sync: Sync) -> None:
        self._answer = fs._answer
        self._sync = sync
        self.done = sync.done

    @answers
    def wait(self) -> None:
        """Until it is durable."""
        self._sync.wait()


class _Filling:
    """A directory that is being filled, whose errors are answers too."""

    def __init__(self, fs: Ffs, fill: Fill) -> None:
        self._answer = fs._answer
        self._fill = fill

    @answers
    def step(self) -> bool:
        """See `Filling`."""
        return self._fill.step()


def _without_set_id(mode: int) -> int:
    """`mode` after a change of the data: S_ISGID without S_IXGRP means something else and stays."""
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID
