"""Requests about one inode's attributes and extended attributes.

Who asks: with a write-back cache the host kernel keeps sizes and times of files itself, and brings
them here when it writes a file back, as whoever happens to close the file. Such requests carry a
ctime, which no program can set; they are carried out as uid 0. A program's own utimensat(2) looks
the same; the host kernel has then checked that it is the owner's (`default_permissions`), or
nobody but root can ask.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from libfs.kernel import abi
from libfs.kernel.nodes import SUPERUSER, VALID_SECONDS, Nodes
from libfs.kernel.replies import Reply
from libfs.posix import NOW, FsError, Ino, Posix, User
from libfs.posix.perms import without_setid
from libfs.requests import CONTROL

_SECOND: Final = 1_000_000_000
_CAPABILITY: Final = b"security.capability\0"
_SIZE, _FH, _CTIME = int(abi.Fattr.SIZE), int(abi.Fattr.FH), int(abi.Fattr.CTIME)
_KILL = int(abi.Fattr.KILL_SUIDGID)
_MODE, _UID, _GID = int(abi.Fattr.MODE), int(abi.Fattr.UID), int(abi.Fattr.GID)
_ATIME, _ATIME_NOW = int(abi.Fattr.ATIME), int(abi.Fattr.ATIME_NOW)
_MTIME, _MTIME_NOW = int(abi.Fattr.MTIME), int(abi.Fattr.MTIME_NOW)
_TIMES = _ATIME | _MTIME | _CTIME


class Attributes:
    """See the module. Each method is one opcode: node, user, fixed fields, then the tail."""

    def __init__(self, posix: Posix, nodes: Nodes) -> None:
        self._posix = posix
        self._nodes = nodes

    def getattr(self, node: int, user: User, flags: int, fh: int) -> bytes:
        """stat(2). Asked with a handle it is a write(2) that is about to begin; one that would be
        lost, since the last one was, is refused here (`Nodes.failed`)."""
        nodes = self._nodes
        ino = nodes.ino(node)
        if flags & abi.GETATTR_FH and ino in nodes.failed:
            raise FsError(nodes.failed.pop(ino))
        return nodes.attr(self._posix.getattr(user, ino))

    def statx(self, node: int, user: User, flags: int, fh: int, how: int, mask: int) -> bytes:
        """statx(2), when the time of birth is asked for."""
        a = self._posix.getattr(user, self._nodes.ino(node))
        times = [divmod(each, _SECOND) for each in (a.atime, a.crtime, a.ctime, a.mtime)]
        return abi.STATX.pack(
            *(VALID_SECONDS, abi.STATX_KNOWN, 4096, 0, a.nlink, a.uid, a.gid, a.mode),
            *(a.ino, a.size, a.blocks, 0, *times[0], *times[1], *times[2], *times[3]),
            *(os.major(a.rdev), os.minor(a.rdev)),
        )

    def setattr(
        self,
        node: int,
        user: User,
        valid: int,
        fh: int,
        size: int,
        atime: int,
        mtime: int,
        ctime: int,
        atime_ns: int,
        mtime_ns: int,
        ctime_ns: int,
        mode: int,
        uid: int,
        gid: int,
    ) -> bytes:
        """chmod, chown, truncate, ftruncate, utimensat, and times that the kernel brings."""
        posix, ino = self._posix, self._nodes.ino(node)
        if valid & ~_FH == _MTIME | _CTIME:
            kept = posix.set_times(ino, mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns)
            return self._nodes.attr(kept)
        if valid & _KILL:
            self.drop_setid(ino)
        if valid & _SIZE:
            if valid & _FH:
                attr = posix.setattr(user, ino, size=size, fh=self._nodes.handle(ino))
            else:
                attr = posix.setattr(user, ino, size=size)
        if not valid & _SIZE or valid & (_TIMES | _MODE | _UID | _GID):
            if valid & _TIMES and valid & _CTIME:
                user = SUPERUSER
            attr = posix.setattr(
                user,
                ino,
                mode=mode & 0o7777 if valid & _MODE else None,
                uid=uid if valid & _UID else None,
                gid=gid if valid & _GID else None,
                atime=_time(valid, _ATIME, _ATIME_NOW, atime, atime_ns),
                mtime=_time(valid, _MTIME, _MTIME_NOW, mtime, mtime_ns),
                ctime=ctime * _SECOND + ctime_ns if valid & _CTIME else None,
            )
        return self._nodes.attr(attr)

    def drop_setid(self, ino: Ino) -> None:
        """Bytes are about to be changed by somebody who may not keep set-id bits."""
        mode = self._posix.getattr(SUPERUSER, ino).mode
        kept = without_setid(mode)
        if kept != mode:
            self._posix.setattr(SUPERUSER, ino, mode=kept & 0o7777)

    def access(self, node: int, user: User, mask: int) -> bytes:
        """access(2), where the host kernel does not answer it itself."""
        self._posix.access(user, self._nodes.ino(node), mask)
        return b""

    def readlink(self, node: int, user: User) -> bytes:
        """readlink(2)."""
        return self._posix.readlink(user, self._nodes.ino(node))

    # -- extended attributes

    def getxattr(self, node: int, user: User, size: int, tail: bytes) -> Reply:
        """getxattr(2); size 0 asks how long the value is.

        Before it writes to a file for the first time, the kernel asks for its capabilities.
        """
        ino = self._nodes.ino(node)
        if tail == _CAPABILITY and ino in self._nodes.uncapable:
            return errno.ENODATA
        name, _ = split_name(tail)
        return _fit(self._posix.getxattr(user, ino, name), size)

    def listxattr(self, node: int, user: User, size: int) -> bytes:
        """listxattr(2); as `getxattr`."""
        names = self._posix.listxattr(user, self._nodes.ino(node))
        return _fit(b"".join(name + b"\0" for name in names), size)

    def setxattr(self, node: int, user: User, size: int, flags: int, tail: memoryview) -> bytes:
        """setxattr(2). One name on the root asks something of the mount itself."""
        name, value = split_name(bytes(tail))
        if len(value) != size:
            raise FsError(errno.EINVAL)
        ino = self._nodes.ino(node)
        self._nodes.uncapable.discard(ino)
        if name == CONTROL and ino == self._nodes.root:
            self._control(user, value)
        else:
            self._posix.setxattr(user, ino, name, value, flags)
        return b""

    def removexattr(self, node: int, user: User, tail: bytes) -> bytes:
        """removexattr(2)."""
        name, _ = split_name(tail)
        self._posix.removexattr(user, self._nodes.ino(node), name)
        return b""

    def _control(self, user: User, value: bytes) -> None:
        """`ro`: write everything back and refuse changes; `rw`: allow them again.

        For uid 0, and who runs the server: the image is theirs.
        """
        if user.uid not in (0, os.getuid()):
            raise FsError(errno.EPERM)
        if value not in (b"ro", b"rw"):
            raise FsError(errno.EINVAL)
        self._posix.remount(readonly=value == b"ro")
        self._nodes.reopen()


def split_name(tail: bytes) -> tuple[bytes, bytes]:
    """A name and what follows its NUL. Raises: EINVAL if there is no NUL."""
    name, end, rest = tail.partition(b"\0")
    if not end:
        raise FsError(errno.EINVAL)
    return name, rest


def _fit(value: bytes, size: int) -> bytes:
    """A value for a buffer of `size`. Raises: ERANGE."""
    if size == 0:
        return abi.WRITE.pack(len(value))
    if len(value) > size:
        raise FsError(errno.ERANGE)
    return value


def _time(valid: int, given: int, now: int, seconds: int, ns: int) -> int | None:
    if not valid & given:
        return None
    return NOW if valid & now else seconds * _SECOND + ns
