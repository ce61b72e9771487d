"""What can be asked of a mount that no system call of POSIX asks: ioctls on its directories.

One so far: copy within the file system (`libfs.posix.copying`), as whoever asks. Both sides of it
are here: `ask` is the program's, `Controls` the server's.

Why an ioctl: it comes with the caller's identity, like every request, and holds no lock of the host
kernel, so that what this has cached can be invalidated before it is answered (a setxattr would hold
the inode). A thread of its own does the work, one copy at a time; requests are served meanwhile, as
they must be, since the host kernel is first told to hand over what it has cached of the sources,
and afterwards what is no longer true.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event
from typing import Final, NamedTuple

from libfs.kernel.nodes import Nodes
from libfs.kernel.notices import Notices
from libfs.kernel.replies import Later
from libfs.posix import FsError, Ino, Posix, User
from libfs.posix.copying import How
from libfs.serve import errno_of

#: flags, umask, length of the source; both paths
_REQUEST: Final = struct.Struct("=IIII")
_RECURSIVE, _ARCHIVE = 1, 2
#: errno, length of a path that it is about
_ANSWER: Final = struct.Struct("=II")
_PATH_MAX: Final = 4096
SIZE: Final = _REQUEST.size + 2 * _PATH_MAX
#: _IOWR('X', 1, char[SIZE])
COPY: Final = 3 << 30 | SIZE << 16 | ord("X") << 8 | 1
#: Between two steps others get the lock, s.
_PAUSE: Final = 0.0001

#: `fuse_ioctl_out`: result, flags, iovecs (none)
_OUT: Final = struct.Struct("=iIII")


class CopyRequest(NamedTuple):
    """Copy `source` to `target`, or into it if that is a directory: paths below the root."""

    how: How
    source: bytes
    target: bytes

    def pack(self) -> bytes:
        """For the ioctl. Raises: ENAMETOOLONG."""
        if max(len(self.source), len(self.target)) > _PATH_MAX:
            raise FsError(errno.ENAMETOOLONG)
        flags = self.how.recursive * _RECURSIVE | self.how.archive * _ARCHIVE
        sizes = len(self.source), len(self.target)
        head = _REQUEST.pack(flags, self.how.umask, *sizes)
        return (head + self.source + self.target).ljust(SIZE, b"\0")


def unpack_untrusted(raw: bytes) -> CopyRequest:
    """Raises: EINVAL."""
    if len(raw) != SIZE:
        raise FsError(errno.EINVAL)
    flags, umask, first, second = _REQUEST.unpack_from(raw)
    if flags & ~(_RECURSIVE | _ARCHIVE) or max(first, second) > _PATH_MAX or umask > 0o777:
        raise FsError(errno.EINVAL)
    at = _REQUEST.size
    paths = raw[at : at + first], raw[at + first : at + first + second]
    if any(b"\0" in path for path in paths):
        raise FsError(errno.EINVAL)
    return CopyRequest(How(bool(flags & _RECURSIVE), bool(flags & _ARCHIVE), umask), *paths)


# -- the program's side


def ask(directory: str, request: CopyRequest) -> None:
    """Have the server of the mount at `directory` copy. Raises: FsError, as it says; OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Times that the host kernel keeps are not brought by telling it to drop what it has.
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        buffer = bytearray(request.pack())
        try:
            fcntl.ioctl(fd, COPY, buffer)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                raise FsError(
                    errno.EOPNOTSUPP, "this mount can't copy (it can with -o transport=kernel)"
                ) from None
            raise
    finally:
        os.close(fd)
    number, size = _ANSWER.unpack_from(buffer)
    if number:
        refused = FsError(number)
        if size:
            refused.filename = bytes(buffer[_ANSWER.size : _ANSWER.size + size])
        raise refused


# -- carrying it out


class Place(NamedTuple):
    """A name, and what has it."""

    parent: Ino
    name: bytes
    ino: Ino | None


def find(posix: Posix, user: User, path: bytes) -> Place:
    """Where a path leads; its last name need not be there. Links are not followed.

    The root has no name. Raises: FsError.
    """
    parent, name, ino = posix.root, b"", posix.root
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    for index, part in enumerate(parts):
        parent, name = ino, part
        try:
            ino = posix.lookup(user, parent, part).ino
        except FsError as error:
            if error.errno != errno.ENOENT or index < len(parts) - 1 or path.endswith(b"/"):
                raise
            return Place(parent, name, None)
    return Place(parent, name, ino)


def resolve(posix: Posix, user: User, request: CopyRequest) -> tuple[Ino, Place]:
    """What to copy, and to which name."""
    source, target = find(posix, user, request.source), find(posix, user, request.target)
    if source.ino is None:
        raise FsError(errno.ENOENT)
    if target.ino is not None and stat.S_ISDIR(posix.getattr(user, target.ino).mode):
        if not source.name or source.name == b"..":
            raise FsError(errno.EINVAL)
        target = find(posix, user, request.target.rstrip(b"/") + b"/" + source.name)
    return source.ino, target


def copy(posix: Posix, user: User, request: CopyRequest, pause: Callable[[], None]) -> None:
    """Where nobody else has anything cached. Raises: FsError."""
    source, (parent, name, _ino) = resolve(posix, user, request)
    posix.copy_tree(user, source, parent, name, request.how, pause=pause)


class _Ended(Exception):
    """The mount goes away."""


class Controls:
    """The server's side: `ioctl` takes requests, `run` carries them out, in another thread."""

    def __init__(self, posix: Posix, nodes: Nodes, notices: Notices) -> None:
        self._posix = posix
        self._nodes = nodes
        self._notices = notices
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = False

    def ioctl(
        self,
        node: int,
        user: User,
        fh: int,
        flags: int,
        command: int,
        argument: int,
        in_size: int,
        out_size: int,
        tail: memoryview,
    ) -> Later:
        """ioctl(2) of a directory. Raises: ENOTTY, EINVAL."""
        if command != COPY or out_size < SIZE:
            raise FsError(errno.ENOTTY)
        request = unpack_untrusted(bytes(tail))
        return Later(lambda answer: self._queue.put(lambda: self._serve(user, request, answer)))

    def run(self) -> None:
        """Carry requests out until `end`."""
        while (job := self._queue.get()) is not None:
            job()

    def end(self) -> None:
        """`run` returns soon: a copy under way is given up."""
        self._ended = True
        self._queue.put(None)

    def _serve(
        self, user: User, request: CopyRequest, answer: Callable[[Callable[[], bytes]], None]
    ) -> None:
        number, about = 0, b""
        try:
            self._copy(user, request)
        except _Ended:
            number = errno.ENODEV
        except FsError as error:
            number, about = error.errno or errno.EIO, error.filename or b""
        except Exception as error:
            number = errno_of(error)
        data = (_ANSWER.pack(number, len(about)) + about)[:SIZE].ljust(SIZE, b"\0")
        # Behind the notices: whoever asked sees what is there now.
        self._notices.then(lambda: answer(lambda: _OUT.pack(0, 0, 0, 0) + data))

    def _copy(self, user: User, request: CopyRequest) -> None:
        source, (parent, name, replaced) = resolve(self._posix, user, request)
        try:
            self._posix.copy_tree(
                user, source, parent, name, request.how, pause=self._pause, settle=self._settle
            )
        finally:
            self._notices.name_changed(parent, name)
            self._notices.data_changed(parent)
            self._notices.data_changed(self._posix.root)  # where the passing directory was
            if replaced is not None:
                self._notices.attributes_changed(replaced)

    def _pause(self) -> None:
        if self._ended:
            raise _Ended
        time.sleep(_PAUSE)

    def _settle(self, inos: Sequence[Ino]) -> None:
        """Have all bytes of these here that the host kernel has cached. Not with a lock held: the
        requests that bring them must be served."""
        known = [ino for ino in inos if self._nodes.known(ino)]
        if not known:
            return
        done = Event()
        for ino in known[:-1]:
            self._notices.when_written_back(ino, 0, 0, lambda: None)
        self._notices.when_written_back(known[-1], 0, 0, done.set)
        while not done.wait(1):
            if self._ended:
                raise _Ended
