"""LFS behind the `FileSystem` protocol: mkfs, mount, and every request, each answered or an errno.

Each public method is one request: it finds the inodes, lets a module do the work, and is the only
place where errors of the kernel become errnos (`answers`). On corruption the file system turns
read-only. What a request means to names is in `namespace`, to bytes in `data`; what becomes of it
on the disk, in `flushing` and `checkpoint`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from libfs.common import attributes as xa
from libfs.common.answering import answer, answers
from libfs.common.inodes import no_file
from libfs.lfs import format as f
from libfs.lfs import types as t
from libfs.lfs.checkpoint import Sync, make_durable
from libfs.lfs.cleaner import POLICIES
from libfs.lfs.data import MAX_SIZE, FileData
from libfs.lfs.inode import DT_DIR, DT_LNK, DT_REG, Vnode
from libfs.lfs.mounting import make, take_up
from libfs.lfs.namespace import Namespace
from libfs.lfs.volume import Volume
from libfs.posix import acl
from libfs.posix.interface import (
    ACL_ACCESS,
    Attr,
    Change,
    Dirent,
    FsError,
    Ino,
    New,
    Sink,
    StatFs,
    Syncing,
    User,
)
from libfs.posix.perms import without_setid
from xnfs import (
    CorruptionError,
    Xn,
    XnError,
)

#: How often `idle` makes everything durable, ns.
SYNC_EVERY: Final = 5_000_000_000
#: Metadata blocks that one step of the collector visits.
COLLECT_STEP: Final = 64
LINK_MAX: Final = 65000


class Lfs:
    """A mounted LFS (the protocol `FileSystem`)."""

    max_size = MAX_SIZE
    link_max = LINK_MAX
    root = Ino(f.ROOT_INO)

    def __init__(self, vol: Volume) -> None:
        self.volume = vol
        self._names = Namespace(vol)
        self._data = FileData(vol)
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
        uuid: bytes | None = None,
    ) -> None:
        """Make an empty file system and its root. Durable on return.

        `cap` is for the whole disk. Raises XnError (the name is taken, no space, ...).
        """
        make(xn, cap, name, uid=uid, gid=gid, mode=mode, uuid=uuid)

    @staticmethod
    def mount(
        xn: Xn,
        cap: bytes,
        name: str,
        *,
        readonly: bool = False,
        snapshot: str | None = None,
        cleaner: str = POLICIES[0],
    ) -> Lfs:
        """Mount the root `name`, or a snapshot of it, read-only. `cleaner`: one of POLICIES.

        Raises XnError: no such root, CorruptionError; FsError: ENOENT, no such snapshot.
        """
        vol = take_up(xn, cap, name, readonly=readonly, snapshot=snapshot)
        vol.cleaner.policy = cleaner
        return Lfs(vol)

    @staticmethod
    def blocks_of(xn: Xn, name: str, ino: int) -> list[tuple[str, int, int]]:
        """(type, first block, count) of all that an inode has, as the log has it. Raises XnError,
        FsError: ESTALE."""
        vol = take_up(xn, xn.admin, name, readonly=True)
        v = vol.vnode(ino)
        found = [(t.INODES, vol.imap.get(ino) & f.AT_MASK, 1)]
        found += [(t.MAP, at & f.AT_MASK, 1) for _level, _index, at in v.tree.nodes()]
        if v.xattr_at:
            found.append((t.XATTR, v.xattr_at & f.AT_MASK, 1))
        kind = t.NAMES if v.is_dir else t.DATA
        for _i, at in v.tree.items():
            last, start, count = found[-1]
            block = at & f.AT_MASK
            if at == f.RESERVED:
                continue
            if (last, start + count) == (kind, block):
                found[-1] = (kind, start, count + 1)
            else:
                found.append((kind, block, 1))
        return found

    # -- errors

    def _answer(self, error: XnError) -> FsError:
        if isinstance(error, CorruptionError):
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
        """Raises: EACCES. Answers are remembered until owner, mode or list change."""
        v = self.volume.vnodes.get(ino) or self.volume.vnode(ino)
        granted = v.rights.get(user, 0)
        if granted >> mask & 1:
            return
        if user.uid == 0:
            allowed = not (mask & 1 and not v.mode & 0o111 and v.mode >> 12 != DT_DIR)
        else:
            value = self.volume.xattrs(v).get(ACL_ACCESS)
            found = None if value is None else acl.parse_stored_untrusted(value)
            allowed = acl.permits(found, v.mode, v.uid, v.gid, user, mask)
        if not allowed:
            raise FsError(errno.EACCES)
        v.rights[user] = granted | 1 << mask

    @answers
    def getattr(self, ino: Ino) -> Attr:
        """Attributes. The object is shared: don't change it."""
        v = self.volume.vnodes.get(ino) or self.volume.vnode(ino)
        return v.attr or v.attributes()

    @answers
    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        """Raises: EROFS, ENOSPC."""
        vol = self.volume
        v = vol.vnode(ino)
        vol.want(1, delete=True)
        for name in Change.__slots__:
            value = getattr(change, name)
            if value is not None:
                setattr(v, name, value)
                if name in ("mode", "uid", "gid"):
                    v.rights.clear()
        vol.changed(v)

    def _may_change(self) -> None:
        if self.volume.readonly:
            raise FsError(errno.EROFS)

    # -- names

    @answers
    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        """The inode of a name, or None."""
        entry = self._names.find(self.volume.directory(parent), name)
        return None if entry is None else Ino(entry[0])

    @answers
    def parent(self, directory: Ino) -> Ino:
        """`..`; the root's is the root."""
        return Ino(self.volume.directory(directory).parent)

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie`."""
        try:
            yield from self._names.entries(self.volume.directory(directory), cookie)
        except XnError as error:
            raise self._answer(error) from error

    def getattrs(
        self, directory: Ino, entries: Sequence[Dirent], *, read: bool
    ) -> list[Attr | None]:
        """Attributes of entries."""
        vnodes = self.volume.vnodes
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
        """Raises: EEXIST, ENOSPC."""
        _check_attributes(new)
        return Ino(self._names.create(self.volume.directory(parent), name, new).ino)

    @answers
    def make_anonymous(self, user: User, new: New) -> Ino:
        """An inode without a name."""
        _check_attributes(new)
        self.volume.want(2, 1)
        return Ino(self._names.new(new, 0).ino)

    @answers
    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> None:
        """Raises: EEXIST, EPERM, ENOSPC."""
        v = self.volume.vnode(ino)
        if v.is_dir:
            raise FsError(errno.EPERM)
        self._names.link(v, self.volume.directory(parent), name)

    @answers
    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        """Raises: ENOENT, ENOTEMPTY."""
        self._may_change()
        self._names.unlink(self.volume.directory(parent), name, keep=keep)

    @answers
    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        """Raises: ENOENT, ENOSPC."""
        self._may_change()
        source, target = self.volume.directory(src), self.volume.directory(dst)
        self._names.rename(source, name, target, new_name, keep=keep)

    @answers
    def exchange(self, user: User, a: Ino, a_name: bytes, b: Ino, b_name: bytes) -> None:
        """Raises: ENOENT, ENOSPC."""
        self._may_change()
        first, second = self.volume.directory(a), self.volume.directory(b)
        self._names.exchange(first, a_name, second, b_name)

    @answers
    def forget(self, ino: Ino) -> None:
        """The last handle of an inode without a name is gone."""
        v = self.volume.vnode(ino)
        if not v.nlink:
            self._names.forget(v)

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
        """See `interface.Lender`."""
        self._data.lend(self._file(ino), offset, size, to)

    @answers
    def borrow(self, ino: Ino, offset: int, size: int) -> Sequence[memoryview]:
        """See `interface.Lender`."""
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
        return self._data.write(v, offset, data, _mode(v, kill_suid=kill_suid))

    @answers
    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        """Raises: EFBIG, ENOSPC."""
        self._may_change()
        v = self._file(ino)
        self._data.truncate(v, size, _mode(v, kill_suid=kill_suid))

    @answers
    def allocate(self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool) -> None:
        """Raises: EFBIG, ENOSPC."""
        self._may_change()
        self._data.allocate(self._file(ino), offset, length, keep_size=keep_size)

    @answers
    def zero_range(
        self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool
    ) -> None:
        """Raises: EFBIG, ENOSPC."""
        self._may_change()
        self._data.zero_range(self._file(ino), offset, length, keep_size=keep_size)

    @answers
    def punch(self, user: User, ino: Ino, offset: int, length: int) -> None:
        """Make a hole."""
        self._may_change()
        self._data.punch(self._file(ino), offset, length)

    @answers
    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        """Raises: ENXIO."""
        return self._data.seek(self._file(ino), offset, hole=hole)

    # -- extended attributes

    @answers
    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Raises: ENODATA."""
        xa.split_name(name)
        value = self.volume.xattrs(self.volume.vnode(ino)).get(name)
        if value is None:
            raise FsError(errno.ENODATA)
        return value

    @answers
    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
        """Raises: EEXIST, ENODATA, ENOSPC."""
        v = self.volume.vnode(ino)
        found = self.volume.xattrs(v)
        xa.split_name(name)
        xa.check_flags(flags, name in found)
        _check_space({**found, name: value})
        self.volume.want(2, 1)
        found[name] = value
        self._attributes_changed(v)

    @answers
    def listxattr(self, ino: Ino) -> Sequence[bytes]:
        """All names."""
        return list(self.volume.xattrs(self.volume.vnode(ino)))

    @answers
    def removexattr(self, user: User, ino: Ino, name: bytes) -> None:
        """Raises: ENODATA."""
        v = self.volume.vnode(ino)
        found = self.volume.xattrs(v)
        xa.split_name(name)
        if name not in found:
            raise FsError(errno.ENODATA)
        self.volume.want(2, delete=True)
        del found[name]
        self._attributes_changed(v)

    def _attributes_changed(self, v: Vnode) -> None:
        v.xattrs_dirty = True
        v.rights.clear()
        v.ctime = self.volume.now()
        self.volume.changed(v)

    # -- snapshots

    def snapshots(self) -> list[tuple[str, int]]:
        """(name, time in ns), oldest first."""
        return [(each.name, each.time) for each in self.volume.snapshots.all]

    @answers
    def snapshot(self, name: str) -> None:
        """Keep everything as it is now; durably. Raises: EEXIST, EINVAL, ENOSPC, EROFS."""
        self.volume.snapshots.create(name)

    @answers
    def delete_snapshot(self, name: str) -> None:
        """Durable on return. Raises: ENOENT, EROFS."""
        self.volume.snapshots.delete(name)

    @answers
    def rollback(self, name: str) -> None:
        """Become what the snapshot is. Nobody has a file open. Raises: ENOENT, EROFS."""
        self.volume.snapshots.rollback(name)

    # -- the whole

    @answers
    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """Everything goes with it; and now and then it is a checkpoint, for a mount that is never
        idle. Raises: EROFS if what is dirty can't become durable any more, because corruption was
        seen."""
        vol = self.volume
        if vol.readonly:
            if (vol.dirty or vol.gone) and not self._closed:
                raise FsError(errno.EROFS)
            return None
        return self._sync(checkpoint=vol.checkpoint.due)

    def _sync(self, *, checkpoint: bool = False) -> Syncing | None:
        sync = Sync(self.volume, checkpoint=checkpoint)
        return _Syncing(self, sync) if sync.needed else None

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """The three steps of it, one after the other."""
        _finish(self.begin_sync(inos, data_only=data_only))

    @answers
    def statfs(self) -> StatFs:
        """What is dead in the log counts as free."""
        vol = self.volume
        lo, hi = vol.xn.data_area
        capacity = vol.segments.capacity()
        free = int(max(capacity - vol.segments.live / f.BLOCK - vol.growth, 0))
        available = int(min(max(vol.available(), 0), free))
        return StatFs(hi - lo, free, available, vol.next_ino + free, free)

    @answers
    def idle(self) -> Syncing | None:
        """Write back, make checkpoints, clean, collect leaks, in small steps."""
        vol = self.volume
        if vol.readonly:
            return None
        now = vol.now()
        if now - self._synced >= SYNC_EVERY:
            self._synced = now
            if vol.cleaner.idle() or vol.checkpoint.due:
                return self._sync(checkpoint=True)
            if vol.dirty or vol.gone or vol.log.anchors:
                return self._sync()
        if vol.xn.leaky:
            vol.xn.collect(vol.who, COLLECT_STEP)
        return None

    @answers
    def close(self) -> None:
        """A checkpoint; nothing usable afterwards."""
        vol = self.volume
        if not vol.readonly and not self._closed:
            if vol.news:
                make_durable(vol, checkpoint=True)
            make_durable(vol)
        self._closed = True
        vol.readonly = True


def _mode(v: Vnode, *, kill_suid: bool) -> int:
    return without_setid(v.mode) if kill_suid else v.mode


def _check_attributes(new: New) -> None:
    _check_space(dict(new.xattrs))


def _check_space(found: xa.Attributes) -> None:
    """Raises: ENOSPC if they don't fit a block."""
    if sum(len(xa.record(name, value)) for name, value in found.items()) > f.XATTR_MAX:
        raise FsError(errno.ENOSPC)


def _finish(syncing: Syncing | None) -> None:
    if syncing is not None:
        syncing.wait()
        syncing.done()


class _Syncing:
    """A sync, as the POSIX layer sees it (`interface.Syncing`)."""

    def __init__(self, fs: Lfs, sync: Sync) -> None:
        self._fs = fs
        self._sync = sync

    def _answer(self, error: XnError) -> FsError:
        return self._fs._answer(error)

    @answers
    def wait(self) -> None:
        """Until it is durable."""
        self._sync.wait()

    @answers
    def done(self) -> None:
        """Note that it is durable."""
        self._sync.done()
