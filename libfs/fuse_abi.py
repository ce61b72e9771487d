"""The C side of libfuse 2.9, as far as fusepy does not declare it or declares it for convenience.

Does: the structures and prototypes that cross the line, and attributes as this machine's `struct
stat`.
Does not: load anything; `fuse.py` does, and hands in fusepy's order of `struct fuse_operations`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from libfs.posix.interface import Attr, Dirent, StatFs

_int, _char_p, _void_p = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
_size, _off, _uint = ctypes.c_size_t, ctypes.c_longlong, ctypes.c_uint

# fuse_conn_info.want
CAP_ATOMIC_O_TRUNC, CAP_BIG_WRITES, CAP_DONT_MASK = 1 << 3, 1 << 5, 1 << 6
# utimensat(2)
UTIME_NOW, UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE
#: (uid_t) -1: leave the id alone.
NO_ID: Final = 0xFFFFFFFF


class Context(ctypes.Structure):
    """struct fuse_context; fusepy's has no umask."""

    _fields_ = [
        ("fuse", _void_p),
        ("uid", _uint),
        ("gid", _uint),
        ("pid", _int),
        ("private_data", _void_p),
        ("umask", _uint),
    ]


class ConnInfo(ctypes.Structure):
    """The beginning of struct fuse_conn_info."""

    _fields_ = [
        (name, _uint)
        for name in "major minor async_read max_write max_readahead capable want".split()
    ]


class FileInfo(ctypes.Structure):
    """struct fuse_file_info, with its bit field as one number (bits below)."""

    _fields_ = [
        ("flags", _int),
        ("fh_old", ctypes.c_ulong),
        ("writepage", _int),
        ("bits", _uint),
        ("fh", ctypes.c_uint64),
        ("lock_owner", ctypes.c_uint64),
    ]


DIRECT_IO, KEEP_CACHE = 1, 2

#: fuse_fill_dir_t
FILL_DIR: Final = ctypes.CFUNCTYPE(_int, _void_p, _char_p, _void_p, _off)

# What the callbacks are given after the path, where fusepy's own declarations would build a Python
# object for each pointer: addresses are enough.
ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    "getattr": (_char_p, _void_p),
    "fgetattr": (_void_p, _void_p, _void_p),
    "readlink": (_char_p, _void_p, _size),
    "mknod": (_char_p, _uint, ctypes.c_ulonglong),
    "mkdir": (_char_p, _uint),
    "unlink": (_char_p,),
    "rmdir": (_char_p,),
    "symlink": (_char_p, _char_p),
    "rename": (_char_p, _char_p),
    "link": (_char_p, _char_p),
    "chmod": (_char_p, _uint),
    "chown": (_char_p, _uint, _uint),
    "truncate": (_char_p, _off),
    "ftruncate": (_void_p, _off, _void_p),
    "utimens": (_char_p, _void_p),
    "open": (_char_p, _void_p),
    "create": (_char_p, _uint, _void_p),
    "read": (_void_p, _void_p, _size, _off, _void_p),
    "write": (_void_p, _void_p, _size, _off, _void_p),
    "statfs": (_char_p, _void_p),
    "flush": (_void_p, _void_p),
    "release": (_void_p, _void_p),
    "fsync": (_void_p, _int, _void_p),
    "setxattr": (_char_p, _char_p, _void_p, _size, _int),
    "getxattr": (_char_p, _char_p, _void_p, _size),
    "listxattr": (_char_p, _void_p, _size),
    "removexattr": (_char_p, _char_p),
    "opendir": (_char_p, _void_p),
    "readdir": (_void_p, _void_p, _void_p, _off, _void_p),
    "releasedir": (_void_p, _void_p),
    "fsyncdir": (_void_p, _int, _void_p),
    "access": (_char_p, _int),
    "fallocate": (_void_p, _int, _off, _off, _void_p),
    "init": (_void_p,),
    "destroy": (_void_p,),
}


def callback(name: str, function: Callable[..., int]) -> Any:
    """`function` as the C function for the operation `name`. The caller keeps it alive."""
    return ctypes.CFUNCTYPE(_void_p if name == "init" else _int, *ARGUMENTS[name])(function)


def operations(known: Sequence[tuple[Any, ...]], callbacks: dict[str, Any]) -> ctypes.Structure:
    """A struct fuse_operations of libfuse 2.9.

    `known`: its fields as fusepy has them, up to `ioctl`.
    """
    # A pointer is a pointer, so each member is declared as an address; flags have a third element.
    fields = [field if len(field) == 3 else (field[0], _void_p) for field in known]
    for name in ("poll", "write_buf", "read_buf", "flock", "fallocate"):
        fields.append((name, _void_p))
    kind = type("fuse_operations", (ctypes.Structure,), {"_fields_": fields})
    made: Any = kind()
    for name, function in callbacks.items():
        setattr(made, name, ctypes.cast(function, _void_p))
    # The handle says all about an open file, so libfuse need not build its path.
    made.flag_nullpath_ok = made.flag_nopath = 1
    # Without it `touch -a` and `touch -m` would be ignored.
    made.flag_utime_omit_ok = 1
    structure: ctypes.Structure = made
    return structure


# struct stat in the order of its fields, by machine. libfuse has zeroed what lies behind the times.
_STAT_X86_64: Final = struct.Struct("@QQQIIIiQqqq6q")
_STAT_AARCH64: Final = struct.Struct("@QQIIIIQQqiiq6q")
_STATVFS: Final = struct.Struct("@LLQQQQQQLLL")
SECOND: Final = 1_000_000_000


def _stat_x86_64(a: Attr) -> bytes:
    """dev, ino, nlink, mode, uid, gid, pad, rdev, size, blksize, blocks, times."""
    return _STAT_X86_64.pack(
        *(0, a.ino, a.nlink, a.mode, a.uid, a.gid, 0, a.rdev, a.size, 4096, a.blocks),
        *(*divmod(a.atime, SECOND), *divmod(a.mtime, SECOND), *divmod(a.ctime, SECOND)),
    )


def _stat_aarch64(a: Attr) -> bytes:
    """dev, ino, mode, nlink, uid, gid, rdev, pad, size, blksize, pad, blocks, times."""
    return _STAT_AARCH64.pack(
        *(0, a.ino, a.mode, a.nlink, a.uid, a.gid, a.rdev, 0, a.size, 4096, 0, a.blocks),
        *(*divmod(a.atime, SECOND), *divmod(a.mtime, SECOND), *divmod(a.ctime, SECOND)),
    )


STAT_OF: Final = {"x86_64": _stat_x86_64, "aarch64": _stat_aarch64}


# The beginning of struct stat up to the mode: dev, ino, (nlink,) mode.
_AARCH64: Final = os.uname().machine == "aarch64"
_DIRENT: Final = struct.Struct("@QQI" if _AARCH64 else "@QQQI")
_DIRENT_LINKS: Final = () if _AARCH64 else (1,)

#: No struct stat is larger.
STAT_BYTES: Final = 144


def dirent_stat(entry: Dirent) -> bytes:
    """What `fuse_fill_dir_t` looks at in a struct stat: inode number and type."""
    return _DIRENT.pack(0, entry.ino, *_DIRENT_LINKS, entry.d_type << 12)


def stat_packer() -> Callable[[Attr], bytes]:
    """The function for this machine. Raises: LookupError where the structure is not known."""
    return STAT_OF[os.uname().machine]


def statvfs(s: StatFs) -> bytes:
    """struct statvfs: sizes, blocks, inodes, then file system id, flags and the longest name."""
    return _STATVFS.pack(
        *(4096, 4096, s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.ffree, 0, 0, 255)
    )
