"""Requests of a path-based transport, carried out on the POSIX layer.

Does: turn paths into inodes (`paths.py`), tell the path memory what changed, decide how far the
host kernel may cache a file's bytes, and remove open files that libfuse wants hidden.
Does not: speak C (`fuse.py`) or decide permissions (`libfs.posix`, and the file system's acl).
Relies on: one request at a time (libfuse runs its loop in one thread), apart from `idle`.

Hard links. libfuse's path layer gives every *name* an inode of its own in the host kernel, so two
names of one file are cached apart. Attributes are therefore not cached at all (attr_timeout=0);
names are, for as long as the kernel likes, since a name is changed only through itself. A file's
bytes stay cached from one open to the next (keep_cache) unless the file was ever seen with a second
name, and are then not cached at all (direct_io).

Locks. `flock` and `lock` are left to the host kernel on purpose: it sees all callers, and a request
that waits for a lock would stop the one thread that could release it.
"""

from __future__ import annotations

import errno
import logging
import stat
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from libfs.paths import Paths
from libfs.posix import Posix
from libfs.posix.handles import Fh
from libfs.posix.interface import Attr, FsError, Ino, StatFs, User

log = logging.getLogger("xnfs")

#: setxattr of this on the root asks for something of the mount itself (`mount -o remount`).
CONTROL: Final = b"system.xnfs"
_CAPABILITY: Final = b"security.capability"
_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_WRITE_SEARCH: Final = 3
_NOBODY: Final = User(65534, 65534)  # anybody who has an inode number may ask for its attributes


@dataclass
class _Removal:
    """An open file that libfuse asked to hide, and that is not removed yet."""

    user: User
    path: bytes
    since: float = field(default_factory=time.monotonic)


class Requests:
    """See the module. Methods raise FsError, or what the file system raises."""

    #: A removal this old is not followed by the rename that it may belong to.
    SETTLED: Final = 0.5
    #: Files known to have no capabilities.
    REMEMBERED: Final = 1 << 16

    def __init__(self, posix: Posix) -> None:
        self.posix = posix
        self.paths = Paths(posix.root, self._lookup)
        self._found: Attr | None = None
        self.removal: _Removal | None = None
        self._linked: set[Ino] = set()
        self._uncapable: set[Ino] = set()
        self._open: dict[Fh, Ino] = {}
        self._roots: set[Fh] = set()  # open handles of the root directory
        self._settling = threading.Lock()

    # -- attributes

    def getattr(self, user: User, path: bytes) -> Attr:
        """Attributes of a name."""
        self._found = None
        return self._seen(self._fresh(self.paths.inode(user, path)))

    def _fresh(self, ino: Ino) -> Attr:
        """A lookup that was just made has brought the attributes along."""
        found = self._found
        return found if found is not None and found.ino == ino else self._attr(ino)

    def _lookup(self, user: User, parent: Ino, name: bytes) -> Ino:
        self._found = self.posix.lookup(user, parent, name)
        return self._found.ino

    def _attr(self, ino: Ino) -> Attr:
        return self.posix.getattr(_NOBODY, ino)

    def fgetattr(self, fh: Fh) -> Attr:
        """Attributes of an open file."""
        return self._seen(self._attr(self._open[fh]))

    def _seen(self, attr: Attr) -> Attr:
        if attr.nlink > 1 and not stat.S_ISDIR(attr.mode):
            self._linked.add(attr.ino)
        return attr

    def chmod(self, user: User, path: bytes, mode: int) -> None:
        """chmod(2), and what the host kernel makes of a write to a set-id file.

        Before such a write by somebody else the kernel asks us, as the writer, for a chmod that
        drops the set-id bits. The write itself drops them (POSIX layer), so that request is granted
        and ignored.
        """
        ino = self.paths.inode(user, path)
        try:
            self.posix.setattr(user, ino, mode=mode & 0o7777)
        except FsError as error:
            old = self._attr(ino).mode & 0o7777
            dropped = old & ~(mode & 0o7777)
            if error.errno != errno.EPERM or old == mode & 0o7777 or dropped & ~_SET_IDS:
                raise
            self.posix.access(user, ino, 2)
        self._permissions_changed(ino)

    def chown(self, user: User, path: bytes, uid: int | None, gid: int | None) -> None:
        """chown(2)."""
        ino = self.paths.inode(user, path)
        self.posix.setattr(user, ino, uid=uid, gid=gid)
        self._permissions_changed(ino)

    def utimens(self, user: User, path: bytes, atime: int | None, mtime: int | None) -> None:
        """Set times, ns; None = leave alone, `NOW` = now."""
        self.posix.setattr(user, self.paths.inode(user, path), atime=atime, mtime=mtime)

    def truncate(self, user: User, path: bytes, size: int) -> None:
        """truncate(2)."""
        self.posix.setattr(user, self.paths.inode(user, path), size=size)

    def ftruncate(self, user: User, fh: Fh, size: int) -> None:
        """ftruncate(2)."""
        self.posix.setattr(user, self._open[fh], size=size, fh=fh)

    def access(self, user: User, path: bytes, mask: int) -> None:
        """access(2), chdir(2)."""
        self.posix.access(user, self.paths.inode(user, path), mask)

    def _permissions_changed(self, ino: Ino) -> None:
        if stat.S_ISDIR(self._attr(ino).mode):
            self.paths.permissions_changed()

    # -- names

    def readlink(self, user: User, path: bytes) -> bytes:
        """Target of a symbolic link."""
        return self.posix.readlink(user, self.paths.inode(user, path))

    def mknod(self, user: User, path: bytes, mode: int, umask: int, rdev: int) -> None:
        """mknod(2); regular files too."""
        parent, name = self.paths.parent(user, path)
        self.posix.mknod(user, parent, name, mode, rdev, umask)

    def mkdir(self, user: User, path: bytes, mode: int, umask: int) -> None:
        """mkdir(2)."""
        parent, name = self.paths.parent(user, path)
        self.posix.mkdir(user, parent, name, mode, umask)

    def symlink(self, user: User, target: bytes, path: bytes) -> None:
        """symlink(2)."""
        parent, name = self.paths.parent(user, path)
        self.posix.symlink(user, parent, name, target)

    def link(self, user: User, old: bytes, new: bytes) -> None:
        """link(2)."""
        ino = self.paths.inode(user, old)
        parent, name = self.paths.parent(user, new)
        self.posix.link(user, ino, parent, name)
        self._linked.add(ino)

    def unlink(self, user: User, path: bytes) -> None:
        """unlink(2); or libfuse forgetting a hidden file after its last close."""
        if self.paths.unhide(path):
            return
        parent, name = self.paths.parent(user, path)
        self.posix.unlink(user, parent, name)
        self.paths.removed(path)

    def rmdir(self, user: User, path: bytes) -> None:
        """rmdir(2)."""
        parent, name = self.paths.parent(user, path)
        self.posix.rmdir(user, parent, name)
        self.paths.removed(path)

    def rename(self, user: User, old: bytes, new: bytes) -> None:
        """rename(2); or libfuse hiding an open file.

        Hiding comes before an unlink of an open file, and before a rename over one. Removing the
        file at once would make that rename two steps, and lose the file if the second failed. So
        the removal waits for the next request: the rename over it, which replaces it atomically, or
        any other.
        """
        removal, self.removal = self.removal, None
        if removal is not None and removal.path != new:
            self._remove(removal)
        if self.paths.is_hiding(old, new) and self._hide(user, old, new):
            return
        parent, name = self.paths.parent(user, old)
        new_parent, new_name = self.paths.parent(user, new)
        moved = self._attr(self.paths.inode(user, old))
        self.posix.rename(user, parent, name, new_parent, new_name)
        self.paths.renamed(old, new, directory=stat.S_ISDIR(moved.mode))

    def _hide(self, user: User, path: bytes, hidden: bytes) -> bool:
        """Note an open file for removal; False if it is not open, so that this is a real rename.

        Raises what an unlink would raise: the answer to the caller is made from this.
        """
        parent, _ = self.paths.parent(user, path)
        ino = self.paths.inode(user, path)
        if ino not in self._open.values():
            return False
        self.posix.access(user, parent, _WRITE_SEARCH)
        directory, file = self._attr(parent), self._attr(ino)
        if directory.mode & stat.S_ISVTX and user.uid not in (0, directory.uid, file.uid):
            raise FsError(errno.EPERM)
        self.paths.hide(hidden, ino)
        self.removal = _Removal(user, path)
        return True

    def settle(self) -> None:
        """Carry out a removal that waits. Every request but a rename begins with this."""
        with self._settling:
            removal, self.removal = self.removal, None
            if removal is not None:
                self._remove(removal)

    def _remove(self, removal: _Removal) -> None:
        try:
            self.unlink(removal.user, removal.path)
        except FsError as error:
            # Only a full or failing disk gets here. The caller was told that the name is gone.
            log.error("an open file could not be removed: %s", error)
            self.paths.removed(removal.path)

    # -- open files

    def create(self, user: User, path: bytes, mode: int, flags: int, umask: int) -> Fh:
        """open(2) with O_CREAT of a name that is not there."""
        parent, name = self.paths.parent(user, path)
        attr, fh = self.posix.create(user, parent, name, mode, flags, umask)
        self._open[fh] = attr.ino
        return fh

    def open(self, user: User, path: bytes, flags: int) -> tuple[Fh, bool]:
        """open(2); the second is whether the host kernel may cache the file's bytes."""
        ino = self.paths.inode(user, path)
        fh = self.posix.open(user, ino, flags)
        self._open[fh] = ino
        return fh, ino not in self._linked

    def release(self, fh: Fh) -> None:
        """The last descriptor is closed."""
        self._open.pop(fh, None)
        self.posix.release(fh)

    def opendir(self, user: User, path: bytes) -> Fh:
        """opendir(3)."""
        ino = self.paths.inode(user, path)
        fh = self.posix.opendir(user, ino)
        if ino == self.posix.root:
            self._roots.add(fh)
        return fh

    def releasedir(self, fh: Fh) -> None:
        """closedir(3)."""
        self._roots.discard(fh)
        self.posix.releasedir(fh)

    def fsyncdir(self, fh: Fh, *, datasync: bool) -> None:
        """fsync(2) of a directory. Of the root it makes everything durable: sync(2) and syncfs(2)
        never reach a FUSE server, so this (`sync DIR`) is the only way to ask.
        """
        if fh in self._roots:
            self.posix.sync()
        else:
            self.posix.fsyncdir(fh, datasync=datasync)

    # -- extended attributes

    def getxattr(self, user: User, path: bytes, name: bytes) -> bytes:
        """getxattr(2).

        The kernel asks for capabilities before *every* write: that one is remembered.
        """
        ino = self.paths.inode(user, path)
        if name != _CAPABILITY:
            return self.posix.getxattr(user, ino, name)
        if ino in self._uncapable:
            raise FsError(errno.ENODATA)
        try:
            return self.posix.getxattr(user, ino, name)
        except FsError as error:
            if error.errno == errno.ENODATA:
                if len(self._uncapable) >= self.REMEMBERED:
                    self._uncapable.clear()
                self._uncapable.add(ino)
            raise

    def setxattr(self, user: User, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        """setxattr(2)."""
        ino = self.paths.inode(user, path)
        if name == CONTROL and ino == self.posix.root:
            self._control(user, value)
            return
        self._uncapable.discard(ino)
        self.posix.setxattr(user, ino, name, value, flags)
        self._permissions_changed(ino)

    def listxattr(self, user: User, path: bytes) -> Iterable[bytes]:
        """listxattr(2)."""
        return self.posix.listxattr(user, self.paths.inode(user, path))

    def removexattr(self, user: User, path: bytes, name: bytes) -> None:
        """removexattr(2)."""
        ino = self.paths.inode(user, path)
        self.posix.removexattr(user, ino, name)
        self._permissions_changed(ino)

    # -- the whole

    def _control(self, user: User, value: bytes) -> None:
        """`ro`: write everything back and refuse changes; `rw`: allow them again."""
        if user.uid != 0:
            raise FsError(errno.EPERM)
        if value not in (b"ro", b"rw"):
            raise FsError(errno.EINVAL)
        self.posix.remount(readonly=value == b"ro")

    def statfs(self) -> StatFs:
        """statfs(2)."""
        return self.posix.statfs()

    def idle(self) -> None:
        """Called between requests, from another thread."""
        removal = self.removal
        if removal is not None and time.monotonic() - removal.since > self.SETTLED:
            self.settle()
        self.posix.idle()

    def close(self) -> None:
        """The mount is gone. RELEASE may never have come (SIGTERM), so nothing is left for it."""
        self.settle()
        self._open.clear()
        self.posix.close()
