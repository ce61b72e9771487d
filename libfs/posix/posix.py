"""The POSIX layer's front: every call of it, each under the one lock.

Does: lock, then hand over to the module that knows. Does not: decide anything itself.
Relies on being the only caller of its file system. Guarantees: calls are atomic towards each
other (a sync lets others in while it waits for the device), raise only `FsError` (and what the
file system lets escape), and return plain records.

All is by inode number and handle, never by path: walking paths is the caller's (a host kernel, a
tool). Nothing is durable on return except after `fsync`, `fsyncdir`, `fsync_inodes`, `sync`, or
with the options and open flags that say so. Times are ns, sizes and offsets bytes, names bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import Condition
from threading import Lock as Mutex

from libfs.posix import attributes, copying, data, names, opening, passing, rename, xattrs
from libfs.posix.copying import How
from libfs.posix.core import Core
from libfs.posix.handles import Fh
from libfs.posix.interface import (
    Attr,
    Change,
    Dirent,
    FileSystem,
    FsError,
    Ino,
    Sink,
    StatFs,
    Syncing,
    User,
)
from libfs.posix.locks import Granted, Lock
from libfs.posix.options import Options


class Posix:
    """One mounted file system, as POSIX wants it. Thread-safe."""

    def __init__(self, fs: FileSystem, *, options: Options | None = None) -> None:
        self._core = Core(fs, options or Options())
        mutex = Mutex()
        self._lock: AbstractContextManager[object] = mutex
        self._syncs = 0  # under way
        self._no_syncs = Condition(mutex)
        self.root = fs.root
        passing.find_left(self._core)

    # -- for what concerns two file systems at once (`between`)

    def locked(self) -> AbstractContextManager[object]:
        """The one lock."""
        return self._lock

    @property
    def core(self) -> Core:
        """To be used with the lock held."""
        return self._core

    # -- names: `names`, `rename`

    def lookup(self, user: User, parent: Ino, name: bytes) -> Attr:
        """The attributes of `name`, also of `.` and `..`. See `names.find` for errors."""
        with self._lock:
            return names.lookup(self._core, user, parent, name)

    def mknod(
        self, user: User, parent: Ino, name: bytes, mode: int, rdev: int = 0, umask: int = 0
    ) -> Attr:
        """See `names.mknod`."""
        with self._lock:
            return names.mknod(self._core, user, parent, name, mode, rdev, umask)

    def mkdir(self, user: User, parent: Ino, name: bytes, mode: int, umask: int = 0) -> Attr:
        """See `names.mkdir`."""
        with self._lock:
            return names.mkdir(self._core, user, parent, name, mode, umask)

    def symlink(self, user: User, parent: Ino, name: bytes, target: bytes) -> Attr:
        """See `names.symlink`."""
        with self._lock:
            return names.symlink(self._core, user, parent, name, target)

    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> Attr:
        """See `names.link`."""
        with self._lock:
            return names.link(self._core, user, ino, parent, name)

    def unlink(self, user: User, parent: Ino, name: bytes) -> None:
        """See `names.unlink`."""
        with self._lock:
            names.unlink(self._core, user, parent, name)

    def rmdir(self, user: User, parent: Ino, name: bytes) -> None:
        """See `names.rmdir`."""
        with self._lock:
            names.rmdir(self._core, user, parent, name)

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, flags: int = 0
    ) -> None:
        """See `rename.rename`."""
        with self._lock:
            rename.rename(self._core, user, src, name, dst, new_name, flags)

    def remember(self, ino: Ino) -> None:
        """Count a lookup that the caller's kernel will forget later. See `handles`."""
        with self._lock:
            self._core.handles.remember(ino)

    def forget(self, ino: Ino, count: int = 1) -> None:
        """Take back `count` lookups; an inode without a name may be freed now."""
        with self._lock:
            self._core.handles.forget(ino, count)

    # -- attributes: `attributes`, `xattrs`

    def getattr(self, user: User, ino: Ino) -> Attr:
        """Anybody who has the number may. Raises: ESTALE if it is not in use."""
        with self._lock:
            return self._core.fs.getattr(ino)

    def setattr(
        self,
        user: User,
        ino: Ino,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
        ctime: int | None = None,
        fh: Fh | None = None,
    ) -> Attr:
        """chmod, chown, truncate, utimens in one; None = leave alone, `timestamps.NOW` = now.

        `ctime` is for a host kernel that keeps times of its own; None = now. With `fh` the size is
        set as by ftruncate. See `attributes.change` for errors.
        """
        wanted = Change(mode, uid, gid, atime, mtime, ctime)
        with self._lock:
            return attributes.change(self._core, user, ino, wanted, size, fh)

    def set_times(self, ino: Ino, mtime: int, ctime: int) -> Attr:
        """Times that a host kernel has kept by itself; nobody's rights are asked for."""
        with self._lock:
            return attributes.set_times(self._core, ino, mtime, ctime)

    def access(self, user: User, ino: Ino, mask: int) -> None:
        """See `attributes.access`."""
        with self._lock:
            attributes.access(self._core, user, ino, mask)

    def readlink(self, user: User, ino: Ino) -> bytes:
        """See `attributes.readlink`."""
        with self._lock:
            return attributes.readlink(self._core, user, ino)

    def getxattr(self, user: User, ino: Ino, name: bytes) -> bytes:
        """See `xattrs.get`. Whether it fits the caller's buffer is the caller's to see."""
        with self._lock:
            return xattrs.get(self._core, user, ino, name)

    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int = 0) -> None:
        """See `xattrs.put`."""
        with self._lock:
            xattrs.put(self._core, user, ino, name, value, flags)

    def listxattr(self, user: User, ino: Ino) -> list[bytes]:
        """See `xattrs.names`."""
        with self._lock:
            return xattrs.names(self._core, user, ino)

    def removexattr(self, user: User, ino: Ino, name: bytes) -> None:
        """See `xattrs.remove`."""
        with self._lock:
            xattrs.remove(self._core, user, ino, name)

    # -- opening: `opening`

    def open(self, user: User, ino: Ino, flags: int) -> Fh:
        """See `opening.open_inode`."""
        with self._lock:
            return opening.open_inode(self._core, user, ino, flags)

    def create(
        self, user: User, parent: Ino, name: bytes, mode: int, flags: int, umask: int = 0
    ) -> tuple[Attr, Fh]:
        """See `opening.create`."""
        with self._lock:
            return opening.create(self._core, user, parent, name, mode, flags, umask)

    def tmpfile(
        self, user: User, parent: Ino, mode: int, flags: int, umask: int = 0
    ) -> tuple[Attr, Fh]:
        """See `opening.tmpfile`."""
        with self._lock:
            return opening.tmpfile(self._core, user, parent, mode, flags, umask)

    def flush(self, fh: Fh, owner: int) -> None:
        """See `opening.flush`."""
        with self._lock:
            opening.flush(self._core, fh, owner)

    def release(self, fh: Fh) -> None:
        """See `opening.release`."""
        with self._lock:
            opening.release(self._core, fh)

    def opendir(self, user: User, ino: Ino, flags: int = 0) -> Fh:
        """See `opening.opendir`."""
        with self._lock:
            return opening.opendir(self._core, user, ino, flags)

    def readdir(self, fh: Fh, cookie: int = 0, count: int = 256) -> list[Dirent]:
        """See `opening.readdir`. Go on with the `next` of the last one."""
        with self._lock:
            return opening.readdir(self._core, fh, cookie, count)

    def readdirplus(
        self, fh: Fh, cookie: int, count: int, wanted: Callable[[], bool]
    ) -> tuple[list[Dirent], list[Attr | None]]:
        """As `readdir`, with attributes where there are any. See `opening.readdirplus`."""
        with self._lock:
            return opening.readdirplus(self._core, fh, cookie, count, wanted)

    def releasedir(self, fh: Fh) -> None:
        """See `opening.release`."""
        with self._lock:
            opening.release(self._core, fh)

    # -- bytes: `data`

    def read(self, fh: Fh, offset: int, size: int) -> bytes:
        """See `data.read`."""
        with self._lock:
            return data.read(self._core, fh, offset, size)

    def lend(self, fh: Fh, offset: int, size: int, to: Sink) -> None:
        """See `data.lend`. `to` is called with the lock held, so it must not call back."""
        with self._lock:
            data.lend(self._core, fh, offset, size, to)

    def borrow(self, fh: Fh, offset: int, size: int) -> Sequence[memoryview]:
        """See `data.borrow`."""
        with self._lock:
            return data.borrow(self._core, fh, offset, size)

    def write(self, fh: Fh, offset: int, content: bytes | memoryview) -> int:
        """See `data.write`."""
        with self._lock:
            return data.write(self._core, fh, offset, content)

    def truncate(self, user: User, ino: Ino, size: int, fh: Fh | None = None) -> None:
        """truncate(2), or with `fh` ftruncate(2)."""
        self.setattr(user, ino, size=size, fh=fh)

    def fallocate(self, fh: Fh, mode: int, offset: int, length: int) -> None:
        """See `data.fallocate`."""
        with self._lock:
            data.fallocate(self._core, fh, mode, offset, length)

    def lseek(self, fh: Fh, offset: int, whence: int) -> int:
        """See `data.lseek`."""
        with self._lock:
            return data.lseek(self._core, fh, offset, whence)

    def copy_file_range(self, fh_in: Fh, off_in: int, fh_out: Fh, off_out: int, size: int) -> int:
        """See `data.copy`."""
        with self._lock:
            return data.copy(self._core, fh_in, off_in, fh_out, off_out, size)

    def copy_tree(
        self,
        user: User,
        source: Ino,
        parent: Ino,
        name: bytes,
        how: How,
        *,
        pause: Callable[[], None] = lambda: None,
        settle: Callable[[Sequence[Ino]], None] = lambda _inos: None,
    ) -> None:
        """Copy a file or a directory with all below it. See `copying`.

        Others are let in between the steps, and `pause` is called; before files are read, `settle`
        is, with their numbers. Both may raise, which ends the copy as an error does.
        """
        with self._lock:
            copy = copying.Copying(self._core, user, source, parent, name, how)
        try:
            while True:
                if copy.sources:
                    settle(copy.sources)
                    copy.sources = []
                with self._lock:
                    if copy.step():
                        return
                pause()
        except BaseException as error:
            undone = False
            while not undone:  # no `break` in a `with`: mypyc has none
                with self._lock:
                    undone = copy.undo()
            if copy.left and isinstance(error, FsError):
                text = f"{error.strerror}; what was copied could not be removed"
                raise FsError(error.errno or errno.EIO, text) from error
            raise

    # -- durability: the lock is free while the device works

    def fsync(self, fh: Fh, *, datasync: bool = False) -> None:
        """On return bytes, metadata and a name of the inode survive any power cut (`datasync`:
        bytes and what is needed to read them). Raises: EBADF."""
        core = self._core
        self._sync(lambda: core.begin_sync([core.handles.get(fh).ino], data_only=datasync))

    def fsyncdir(self, fh: Fh, *, datasync: bool = False) -> None:
        """As `fsync`: the entries of the directory. Raises: EBADF, ENOTDIR."""
        core = self._core
        self._sync(lambda: core.begin_sync([opening.directory(core, fh).ino], data_only=datasync))

    def fsync_inodes(self, inos: Sequence[Ino], *, datasync: bool = False) -> None:
        """As `fsync`, by number, of several for the price of one."""
        self._sync(lambda: self._core.begin_sync(inos, data_only=datasync))

    def sync(self) -> None:
        """Everything is durable on return."""
        self._sync(lambda: self._core.begin_sync(None))

    def _sync(self, begin: Callable[[], Syncing | None]) -> None:
        """Begin with the lock held, wait without it, note the end with it.

        Whoever raises or waits here does so for itself alone: of two syncs of one inode each waits
        for what was written before it began, and each learns of an error.
        """
        with self._lock:
            syncing = begin()
            if syncing is None:
                return
            self._syncs += 1
        durable = False
        try:
            syncing.wait()
            durable = True
        finally:
            with self._lock:
                self._syncs -= 1
                if not self._syncs:
                    self._no_syncs.notify_all()
                if durable:
                    syncing.done()

    # -- locks: `locks`

    def getlk(self, fh: Fh, lock: Lock) -> Lock | None:
        """See `LockTable.test`. Raises: EBADF."""
        with self._lock:
            return self._core.locks.test(self._core.handles.get(fh), lock)

    def setlk(self, fh: Fh, lock: Lock, granted: Granted | None = None) -> bool:
        """See `LockTable.set`. Does not block: `granted` is called when a queued lock is had."""
        with self._lock:
            return self._core.locks.set(self._core.handles.get(fh), lock, granted)

    def flock(self, fh: Fh, operation: int, granted: Granted | None = None) -> bool:
        """See `LockTable.flock`. Does not block: `granted` is called when a queued lock is had."""
        with self._lock:
            return self._core.locks.flock(self._core.handles.get(fh), fh, operation, granted)

    def cancel_lock(self, granted: Granted) -> bool:
        """See `LockTable.cancel`."""
        with self._lock:
            return self._core.locks.cancel(granted)

    # -- the whole

    def statfs(self) -> StatFs:
        """Space and inodes left."""
        with self._lock:
            return self._core.fs.statfs()

    def remount(self, *, readonly: bool) -> None:
        """Refuse changes from now on, with everything so far durable; or allow them again.

        Raises: EROFS if the file system itself can't be written.
        """
        with self._lock:
            self._core.remount(readonly=readonly)

    def idle(self) -> None:
        """Call it when there is nothing else to do; it does a small step of background work."""
        if self._core.left:
            with self._lock:
                passing.remove_left(self._core)
        self._sync(self._core.fs.idle)

    def close(self) -> None:
        """Close all handles, free what has no name, make everything durable, stop.

        Syncs under way come to their end before; whoever owns the image may close it after.
        """
        with self._lock:
            while self._syncs:
                self._no_syncs.wait()
            self._end()

    def _end(self) -> None:
        self._core.handles.close()
        self._core.fs.close()
