"""What inodes of all formats have: the attributes that the POSIX layer sees."""

from __future__ import annotations

import errno
import stat
from typing import Final, Protocol

from libfs.common.devices import make_device
from libfs.posix.interface import Attr, FsError, Ino
from xnfs import BLOCK

DT_DIR: Final = stat.S_IFDIR >> 12
DT_REG: Final = stat.S_IFREG >> 12
DT_LNK: Final = stat.S_IFLNK >> 12


class Inode(Protocol):
    """An inode in memory. `blocks`: beside the one in which it lies itself."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rmajor: int
    rminor: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    crtime: int
    generation: int


def attributes_of(v: Inode) -> Attr:
    """Its attributes. A directory's size is what it takes."""
    taken = 1 + v.blocks
    return Attr(
        Ino(v.ino),
        v.mode,
        v.nlink,
        v.uid,
        v.gid,
        make_device(v.rmajor, v.rminor),
        taken * BLOCK if v.mode >> 12 == DT_DIR else v.size,
        taken * (BLOCK // 512),
        v.atime,
        v.mtime,
        v.ctime,
        v.crtime,
        v.generation,
    )


def no_file(mode: int) -> FsError:
    """Why something that is no regular file can't be read or written as one."""
    return FsError(errno.EISDIR if mode >> 12 == DT_DIR else errno.EINVAL)
