"""The POSIX layer: one implementation of names, handles, permissions, times and locks, over the
small protocol that file systems implement (`interface`). `Posix` is the front."""

from libfs.posix.handles import Fh
from libfs.posix.interface import Attr, Dirent, FileSystem, FsError, Ino, Sink, StatFs, User
from libfs.posix.locks import Lock
from libfs.posix.options import Atime, Options
from libfs.posix.posix import Posix
from libfs.posix.rename import RENAME_EXCHANGE, RENAME_NOREPLACE
from libfs.posix.shared import Front, Shared
from libfs.posix.timestamps import NOW

__all__ = [
    "NOW",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "Atime",
    "Attr",
    "Dirent",
    "Fh",
    "FileSystem",
    "Front",
    "FsError",
    "Ino",
    "Lock",
    "Options",
    "Posix",
    "Shared",
    "Sink",
    "StatFs",
    "User",
]
