"""What a file system gives to the POSIX layer: inodes, names, bytes.

The POSIX layer (`libfs.posix`) owns what every file system would otherwise write again: open files,
permissions, sticky and set-id rules, times, umask and default ACLs, rename's cases, seek, locks.
A file system owns what only it knows: where things lie. The line between them is this protocol;
inode numbers and names cross it, never paths. `libfs.posix.memory` is the smallest example.

Names are bytes of 1 to 255, without `/` and NUL; never `.` or `..` (the POSIX layer answers those).
Every method may raise `FsError` with an errno; nothing else means anything to a caller. An inode
number can be used once it was created, looked up or listed since the mount, as long as it is in
use; any other may give ESTALE. Nothing is durable on return, except after `sync`.

Who checks what: the POSIX layer has applied every rule of POSIX before it calls, so a file system
need not. One that asks its own acl again (FFS does) must let pass, besides the owner and uid 0:
access time alone by anyone who may read; times by anyone who may write.

POSIX ACLs are stored as the extended attributes `system.posix_acl_access` and `_default`, in the
format of Linux. The mode is the authority for the classes owner, mask (group bits) and other; the
stored list is the authority for the owning group and for named users and groups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol, runtime_checkable

Ino = NewType("Ino", int)
#: Who is shown bytes, in pieces, and may look at them until it returns. It waits for nothing.
Sink = Callable[[Sequence[bytes | memoryview]], None]

NAME_MAX = 255

# kinds of set_xattr
XATTR_CREATE = 1
XATTR_REPLACE = 2

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"


class FsError(OSError):
    """A request that the file system answers with an errno. `FsError(errno.ENOENT)`."""

    def __init__(self, errno: int, message: str = "") -> None:
        # OSError fills in `errno` only when it is given two arguments.
        super().__init__(errno, message or os.strerror(errno))


class User(NamedTuple):
    """On whose behalf a request is made: plain data, as the host kernel reported it."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


# The records below are never changed once made. They are not declared frozen, because that makes
# building one eight times slower (Attr: 1.4 against 0.18 µs), and getattr is on every path.


@dataclass(slots=True)
class Attr:
    """Attributes of one inode. Times in ns since 1970; `blocks` in units of 512 bytes.

    A directory has 2 links and one for each directory in it; none once it was removed.
    """

    ino: Ino
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    crtime: int
    generation: int


@dataclass(slots=True)
class Dirent:
    """One entry of a directory; `next` is the cookie of the position after it.

    `d_type` is the type of the inode as in its mode, shifted right by 12 (DT_DIR = 4, ...).
    """

    name: bytes
    ino: Ino
    d_type: int
    next: int


@dataclass(slots=True)
class New:
    """What a new inode starts with. `mode` has type bits and final permissions (umask and default
    ACL are already applied); `target` is a symlink's; `xattrs` are its ACLs."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class Change:
    """Attribute changes of one call; None = leave alone (`ctime` too: the caller gives it).

    `mode` has the type bits. Sizes change by `truncate` only.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime: int | None = None
    mtime: int | None = None
    ctime: int | None = None


@dataclass(slots=True)
class Entry:
    """One name of a directory to be filled, and what its inode starts with. `source`: a regular
    file whose bytes and holes it gets. `times`: of access and change, instead of now. `ino` is for
    the file system to set, when the entry is there."""

    name: bytes
    new: New
    source: Ino | None = None
    times: tuple[int, int] | None = None
    ino: Ino = Ino(0)


@dataclass(slots=True)
class StatFs:
    """Space, in blocks of 4096 bytes; `files` = inodes that could exist."""

    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int


class Syncing(Protocol):
    """A sync that has begun. `wait`, then `done` unless `wait` raised."""

    def wait(self) -> None:
        """Return when it is durable. The one call that needs no lock: others go on meanwhile.

        Raises: FsError. What was dirty then stays so, and no later sync may say otherwise.
        """

    def done(self) -> None:
        """Note that it is durable. As every call, with the lock held."""


class Filling(Protocol):
    """A directory that is being filled."""

    def step(self) -> bool:
        """Add some entries, or some more bytes to the last ones; whether all is done.

        Raises: FsError, EBUSY if the directory was changed meanwhile. Earlier steps stand."""


@runtime_checkable
class Copier(Protocol):
    """A file system that copies within itself, without anybody touching the bytes. It need not."""

    def fill(self, user: User, directory: Ino, entries: Sequence[Entry]) -> Filling:
        """Begin to fill an empty directory. Each file appears whole, or with a size of 0 that
        grows. Who may read the sources was checked."""

    def will_read(self, inos: Sequence[Ino]) -> None:
        """Attributes and bytes of these will be asked for: a hint."""


class FileSystem(Protocol):
    """A mounted file system. One caller at a time (the POSIX layer holds its lock), except that
    `Syncing.wait` runs beside everything else."""

    root: Ino
    max_size: int  # largest file, bytes
    link_max: int

    @property
    def readonly(self) -> bool:
        """Whether every change is refused."""

    def now(self) -> int:
        """The clock, ns."""

    def access(self, user: User, ino: Ino, mask: int) -> None:
        """Ask the inode's acl for read 4, write 2, search 1 (any sum); EACCES if refused.

        POSIX ACLs count. uid 0 may do all, but execute a file only if some x bit is set.
        """

    def getattr(self, ino: Ino) -> Attr: ...

    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        """EPERM if the acl refuses (not the owner, ...)."""

    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        """No permission check here. None: no such entry. ENOTDIR if `parent` is no directory."""

    def parent(self, directory: Ino) -> Ino:
        """`..`; the root's is the root."""

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie` (0 = start), without `.` and `..`.

        An entry that exists throughout is given exactly once, whatever is created or removed
        meanwhile, also by a new call with the last cookie. 0 < cookie < 2**63 - 2.
        """

    def getattrs(
        self, directory: Ino, entries: Sequence[Dirent], *, read: bool
    ) -> list[Attr | None]:
        """Attributes of entries that `readdir` has just given, one for one.

        None for an inode that is damaged, and, unless `read`, for one that is not in memory.
        """

    def entries(self, directory: Ino) -> int:
        """How many entries (0 = may be removed)."""

    # -- names: each call is atomic, in memory and over a power cut, with times and link counts.
    # The acl of the directory is asked for write and search, and the sticky rule.

    def create(self, user: User, parent: Ino, name: bytes, new: New) -> Ino:
        """EEXIST if the name is there."""

    def make_anonymous(self, user: User, new: New) -> Ino:
        """An inode without a name (O_TMPFILE), nlink 0; kept until `forget` or `link`."""

    def link(self, user: User, ino: Ino, parent: Ino, name: bytes) -> None:
        """EEXIST if the name is there. An anonymous inode gets its first name."""

    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        """Remove a name of a non-directory or an empty directory (ENOTEMPTY otherwise).

        When it was the last: `keep` leaves the inode usable, with nlink 0, until `forget`;
        otherwise it and its blocks are freed.
        """

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        """Move a name; an entry at the target is replaced in the same atomic step (`keep` as in
        unlink). The POSIX layer has checked kinds, emptiness and loops."""

    def exchange(self, user: User, a: Ino, a_name: bytes, b: Ino, b_name: bytes) -> None: ...

    def forget(self, ino: Ino) -> None:
        """The last open handle of an inode without a name is gone: free it."""

    # -- bytes
    # `kill_suid`: clear S_ISUID, and S_ISGID if S_IXGRP is set, in the same step.

    def readlink(self, ino: Ino) -> bytes: ...

    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        """At most `size` bytes; short only at the end of the file. Holes read as zeros.
        No atime."""

    def write(
        self, user: User, ino: Ino, offset: int, data: bytes | memoryview, *, kill_suid: bool
    ) -> int:
        """Write all of it (or ENOSPC/EFBIG with nothing or a prefix written; returns how much);
        updates size, mtime, ctime. The right to write was checked at open."""

    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        """Updates mtime and ctime, also when the size stays."""

    def allocate(self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool) -> None:
        """Reserve; what was a hole reads as zeros. Updates mtime and ctime, as do the next two."""

    def zero_range(
        self, user: User, ino: Ino, offset: int, length: int, *, keep_size: bool
    ) -> None: ...

    def punch(self, user: User, ino: Ino, offset: int, length: int) -> None: ...

    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        """SEEK_DATA / SEEK_HOLE; ENXIO past the end (or no data after `offset`)."""

    # -- extended attributes: full names (b"user.x"), no permission rules here except the acl's.
    # Changes update ctime.

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """ENODATA if absent."""

    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
        """EEXIST for XATTR_CREATE of one that is there, ENODATA for XATTR_REPLACE of one that is
        not; ENOSPC if it does not fit."""

    def listxattr(self, ino: Ino) -> Sequence[bytes]: ...

    def removexattr(self, user: User, ino: Ino, name: bytes) -> None:
        """ENODATA if absent."""

    # -- the whole

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """Begin to make inodes durable; inos None: everything. None: nothing to wait for.

        Once `wait` has returned, bytes, metadata and a name of each inode, as they were when this
        was called, survive any power cut. Other calls may come before that, also further syncs.
        The plain way to have this is to call `sync` and return None; all others wait meanwhile.
        """

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """`begin_sync`, `wait` and `done`. For callers that let nobody else in meanwhile."""

    def statfs(self) -> StatFs: ...

    def idle(self) -> Syncing | None:
        """Called now and then when nothing else happens: write back, collect leaks, in small
        steps. A sync that it begins is the caller's to bring to its end."""

    def close(self) -> None:
        """Everything durable, nothing usable afterwards."""


@runtime_checkable
class Lender(Protocol):
    """What a file system may offer besides: bytes that nobody copies on the way."""

    def lend(self, ino: Ino, offset: int, size: int, to: Sink) -> None:
        """As `FileSystem.read`, but the bytes are shown to `to`, once and last of all, where they
        lie."""

    def borrow(self, ino: Ino, offset: int, size: int) -> Sequence[memoryview]:
        """As `FileSystem.read`, in pieces: where they lie, for as long as anybody keeps them, or
        copies. They never change, whatever is written to the file."""
