"""Looking at everything that a mounted file system shows: names, attributes, bytes.

Bounded whatever the file system says: each inode once, so many bytes of each. An errno is an
answer like any other and is written down; any other exception is a defect and goes up.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import NamedTuple

from libfs.posix.interface import FileSystem, FsError, Ino

#: Bytes of one file that are read: from the start, and before the end.
HEAD, TAIL = 1 << 18, 8192
#: Names that are believed of one image.
MOST_NAMES = 20_000


class Look(NamedTuple):
    """What is seen of one inode. A directory's names are seen through their inodes."""

    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    data: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


@dataclass
class Survey:
    """What a file system shows, and where it answered with an errno."""

    looks: dict[int, Look] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    names: int = 0


def survey(fs: FileSystem) -> Survey:
    """Walk everything below the root, and read it."""
    out = Survey()
    todo = [fs.root]
    seen = {int(fs.root)}
    while todo:
        directory = todo.pop()
        _look(fs, directory, out)
        try:
            for entry in fs.readdir(directory, 0):
                out.names += 1
                if out.names > MOST_NAMES:
                    out.errors.append("there is no end of names")
                    return out
                found = fs.lookup(directory, entry.name)
                if found != entry.ino:
                    out.errors.append(f"{entry.name!r} is listed and not found")
                    continue
                if found not in seen:
                    seen.add(int(found))
                    if stat.S_ISDIR(fs.getattr(found).mode):
                        todo.append(found)
                    else:
                        _look(fs, found, out)
        except FsError as error:
            out.errors.append(f"directory {directory}: {error.strerror}")
    return out


def _look(fs: FileSystem, ino: Ino, out: Survey) -> None:
    try:
        attr = fs.getattr(ino)
        size, data = attr.size, b""
        if stat.S_ISREG(attr.mode):
            data = fs.read(ino, 0, HEAD)
            if size > HEAD:
                data += fs.read(ino, max(size - TAIL, HEAD), TAIL)
        elif stat.S_ISLNK(attr.mode):
            data = fs.readlink(ino)
        elif stat.S_ISDIR(attr.mode):
            size = 0  # made up from the blocks in use
        xattrs = tuple((name, fs.getxattr(ino, name)) for name in sorted(fs.listxattr(ino)))
        out.looks[int(ino)] = Look(attr.mode, attr.uid, attr.gid, attr.rdev, size, data, xattrs)
    except FsError as error:
        out.errors.append(f"inode {ino}: {error.strerror}")
