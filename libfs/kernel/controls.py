"""What can be asked of a mount that no system call of POSIX asks: ioctls on its directories.

Two: to copy within the file system (`libfs.posix.copying`), as whoever asks; and what only whoever
runs the server may ask (`ADMIN`): words, which mean nothing here. Both sides of it are here: `ask`
and `ask_server` are the program's, `Controls` the server's.

Why an ioctl: it comes with the caller's identity, like every request, and holds no lock of the host
kernel, so that what this has cached can be invalidated before it is answered (a setxattr would hold
the inode). A thread of its own does the work, one request at a time; others are served meanwhile,
as they must be, since the host kernel is first told to hand over what it has cached of the sources,
and afterwards what is no longer true.
"""

from __future__ import annotations

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

from libfs.kernel.mounting import write_back
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
#: length of the words, with NULs between; answered as a copy is, with what there is to tell
_WORDS: Final = struct.Struct("=I")
ADMIN_SIZE: Final = 12288
#: _IOWR('X', 2, char[ADMIN_SIZE])
ADMIN: Final = 3 << 30 | ADMIN_SIZE << 16 | ord("X") << 8 | 2
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


def words_untrusted(raw: bytes) -> list[bytes]:
    """Of a request to the server. Raises: EINVAL."""
    (size,) = _WORDS.unpack_from(raw)
    if size > len(raw) - _WORDS.size:
        raise FsError(errno.EINVAL)
    return raw[_WORDS.size : _WORDS.size + size].split(b"\0")


# -- the program's side


def ask(directory: str, request: CopyRequest) -> None:
    """Have the server of the mount at `directory` copy. Raises: FsError, as it says; OSError."""
    # Times that the host kernel keeps are not brought by telling it to drop what it has.
    write_back(directory)
    number, about = _ioctl(directory, COPY, request.pack())
    if number:
        refused = FsError(number)
        if about:
            refused.filename = about
        raise refused


def ask_server(directory: str, *words: bytes) -> bytes:
    """Ask something of who serves the mount at `directory`; the answer. Raises: FsError,
    OSError."""
    text = b"\0".join(words)
    if len(text) > ADMIN_SIZE - _WORDS.size:
        raise FsError(errno.ENAMETOOLONG)
    packed = _WORDS.pack(len(text)) + text
    number, answer = _ioctl(directory, ADMIN, packed.ljust(ADMIN_SIZE, b"\0"))
    if number:
        raise FsError(number, os.fsdecode(answer) if answer else os.strerror(number))
    return answer


def _ioctl(directory: str, command: int, packed: bytes) -> tuple[int, bytes]:
    """(errno, text) of the answer. Raises: FsError: no server that understands it; OSError."""
    buffer = bytearray(packed)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, command, buffer)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        text = "this mount can't do that (it can with -o transport=kernel)"
        raise FsError(errno.EOPNOTSUPP, text) from None
    finally:
        os.close(fd)
    number, size = _ANSWER.unpack_from(buffer)
    return number, bytes(buffer[_ANSWER.size : _ANSWER.size + size])


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


#: Does what a request asks; what there is to tell. Raises: FsError.
_Work = Callable[[], bytes]
#: Sends the answer to a request, as `replies.Later` has it.
_Answer = Callable[[Callable[[], bytes]], None]


class Controls:
    """The server's side: `ioctl` takes requests, `run` carries them out, in another thread."""

    def __init__(self, posix: Posix, nodes: Nodes, notices: Notices) -> None:
        self._posix = posix
        self._nodes = nodes
        self._notices = notices
        #: what words from `ask_server` mean; none by themselves
        self.admin: Callable[[list[bytes]], bytes] | None = None
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
        """ioctl(2) of a directory. Raises: ENOTTY, EINVAL, EPERM."""
        raw = bytes(tail)
        if command == COPY and out_size >= SIZE:
            request = unpack_untrusted(raw)
            return self._later(SIZE, lambda: self._copy(user, request), _about)
        if command == ADMIN and len(raw) == ADMIN_SIZE <= out_size and self.admin is not None:
            if user.uid not in (0, os.getuid()):  # the image is theirs
                raise FsError(errno.EPERM)
            admin, words = self.admin, words_untrusted(raw)
            return self._later(ADMIN_SIZE, lambda: admin(words), _words_of)
        raise FsError(errno.ENOTTY)

    def run(self) -> None:
        """Carry requests out until `end`."""
        while (job := self._queue.get()) is not None:
            job()

    def end(self) -> None:
        """`run` returns soon: a copy under way is given up."""
        self._ended = True
        self._queue.put(None)

    def _later(self, size: int, work: _Work, tell: Callable[[FsError], bytes]) -> Later:
        return Later(lambda answer: self._queue.put(lambda: self._serve(size, work, tell, answer)))

    def _serve(
        self, size: int, work: _Work, tell: Callable[[FsError], bytes], answer: _Answer
    ) -> None:
        number, text = 0, b""
        try:
            text = work()
        except _Ended:
            number = errno.ENODEV
        except FsError as error:
            number, text = error.errno or errno.EIO, tell(error)
        except Exception as error:
            number = errno_of(error)
        data = (_ANSWER.pack(number, len(text)) + text)[:size].ljust(size, b"\0")
        # Behind the notices: whoever asked sees what is there now.
        self._notices.then(lambda: answer(lambda: _OUT.pack(0, 0, 0, 0) + data))

    def _copy(self, user: User, request: CopyRequest) -> bytes:
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
        return b""

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


def _about(error: FsError) -> bytes:
    return error.filename or b""


def _words_of(error: FsError) -> bytes:
    return os.fsencode(error.strerror or "")
