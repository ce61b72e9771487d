"""The protocol that Linux speaks on /dev/fuse: numbers, flags and records, each declared once.

Does: name what crosses the line, with the version of the protocol that brought it where that is
above 7.31, the oldest one spoken here.
Does not: read or write anything (`session.py`), or give the records a meaning (the handlers).
Source of the layouts: `include/uapi/linux/fuse.h`. All numbers are in the machine's byte order, and
every record is padded to 8 bytes by its own fields, so there is no implicit padding ("=").

A request is a header and, by opcode, a fixed record, then names (each ended by NUL) or bytes. It is
unpacked with one call: the formats of the fixed records below are appended to the header's.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

MAJOR: Final = 7
#: The newest minor version whose additions are understood here, and the oldest that is spoken.
MINOR: Final = 45
MINOR_MIN: Final = 31

ROOT_ID: Final = 1


class Op(IntEnum):
    """Opcodes."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50  # 7.34
    TMPFILE = 51  # 7.37
    STATX = 52  # 7.39
    COPY_FILE_RANGE_64 = 53  # 7.45


class Notify(IntEnum):
    """What a server says unasked: the `error` field of an answer to nothing."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3


class Init(IntFlag):
    """Features, offered by the kernel in INIT and chosen in the answer. The upper half travels in
    a field of its own."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28  # 7.33
    INIT_EXT = 1 << 30  # 7.36: there is a second half


class Fattr(IntFlag):
    """Which fields of SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11  # 7.33


GETATTR_FH: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_CACHE_DIR: Final = 1 << 3
WRITE_KILL_SUIDGID: Final = 1 << 2
FSYNC_DATA: Final = 1 << 0
#: Among the flags of OPEN: the file is opened to be executed (`__FMODE_EXEC` of the kernel).
OPEN_EXEC: Final = 0x20

# -- requests

#: len, opcode; unique, node, uid, gid, pid are `REQUEST`'s (its last word is never used here).
LEADER: Final = struct.Struct("=II")
IN_HEADER_SIZE: Final = 40
_REQUEST: Final = "8xQQIII4x"


def request(fixed: str = "") -> struct.Struct:
    """unique, node, uid, gid, pid, and the fields of the opcode's fixed record."""
    return struct.Struct("=" + _REQUEST + fixed)


IN_GETATTR: Final = "I4xQ"  # flags, fh
# valid, fh, size, (lock owner,) atime, mtime, ctime, their ns, mode, uid, gid
IN_SETATTR: Final = "I4xQq8xqqqIIII4xII4x"
IN_MKNOD: Final = "III4x"  # mode, rdev, umask; name
IN_MKDIR: Final = "II"  # mode, umask; name
IN_RENAME: Final = "Q"  # new parent; two names
IN_RENAME2: Final = "QI4x"  # new parent, flags; two names
IN_LINK: Final = "Q"  # old node; name
IN_OPEN: Final = "II"  # flags, open flags; also OPENDIR
IN_CREATE: Final = "III4x"  # flags, mode, umask; name; also TMPFILE
IN_READ: Final = "QqI4x8x8x"  # fh, offset, size; also READDIR, READDIRPLUS
IN_WRITE: Final = "QqII8x8x"  # fh, offset, size, write flags; bytes
IN_RELEASE: Final = "Q16x"  # fh
IN_FSYNC: Final = "QI4x"  # fh, flags
IN_SETXATTR: Final = "II"  # size, flags; name, value
IN_GETXATTR: Final = "I4x"  # size; name; also LISTXATTR without a name
IN_ACCESS: Final = "I4x"  # mask
IN_FORGET: Final = "Q"  # count
IN_BATCH_FORGET: Final = "I4x"  # how many; so many `FORGET_ONE`
IN_FALLOCATE: Final = "QqqI4x"  # fh, offset, length, mode
IN_LSEEK: Final = "QqI4x"  # fh, offset, whence
IN_COPY: Final = "QqQQqQQ"  # fh, offset; node, fh, offset of the target; length, flags
IN_IOCTL: Final = "QIIQII"  # fh, flags, command, argument, size in, size out; bytes
IN_STATX: Final = "I4xQII"  # flags, fh, statx flags, mask
IN_INIT: Final = "IIII"  # major, minor, max_readahead, flags; IN_INIT_EXT if flags say so

IN_INIT_EXT: Final = struct.Struct("=I44x")  # flags, upper half
FORGET_ONE: Final = struct.Struct("=QQ")  # node, count

# -- answers

OUT_HEADER: Final = struct.Struct("=IiQ")  # len, -errno, unique (0: a notification)
# ino, size, blocks, atime, mtime, ctime, their ns, mode, nlink, uid, gid, rdev, blksize, flags.
# Times are signed, though the header that declares them says otherwise.
_ATTR: Final = "QQQqqqIIIIIIIIII"
# node, generation, seconds that the name and the attributes are valid, their ns
_ENTRY: Final = "QQQQ8x"
ENTRY: Final = struct.Struct("=" + _ENTRY + _ATTR)
ENTRY_HEAD: Final = struct.Struct("=" + _ENTRY)
ATTR: Final = struct.Struct("=Q8x" + _ATTR)
#: Where the attributes begin in the two.
ENTRY_ATTR_AT: Final = ENTRY_HEAD.size
ATTR_AT: Final = 16
OPEN: Final = struct.Struct("=QI4x")  # fh, open flags
WRITE: Final = struct.Struct("=I4x")  # size; also GETXATTR's answer to "how long is it?"
LSEEK: Final = struct.Struct("=Q")  # offset; also COPY_FILE_RANGE_64's bytes copied
STATFS: Final = struct.Struct("=QQQQQIII28x")  # blocks, free, available, files, free, sizes
# major, minor, max_readahead, flags, max_background, congestion, max_write, time_gran, max_pages,
# (map_alignment,) flags2
INIT: Final = struct.Struct("=IIIIHHIIH2xI28x")
#: ino, cookie of the place behind, length of the name, type; the name, padded to 8 bytes.
DIRENT: Final = struct.Struct("=QQII")
_TIME: Final = "qI4x"
# seconds valid; mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes
# that are known; atime, btime, ctime, mtime; rdev (major, minor), (dev)
STATX: Final = struct.Struct("=Q24x" + "IIQIIIH2xQQQQ" + 4 * _TIME + "II8x112x")

#: STATX_BASIC_STATS and STATX_BTIME of statx(2).
STATX_KNOWN: Final = 0x7FF | 0x800

NOTIFY_INODE: Final = struct.Struct("=Qqq")  # node, offset (-1: attributes only), length (0: all)
NOTIFY_ENTRY: Final = struct.Struct("=QI4x")  # parent, length of the name; name, NUL
