"""What a file system shows: its tree of inodes, read through the POSIX layer of a mount.

The same records come from the raw bytes where a subject has a reader of its own; `differences`
compares the two.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from libfs.posix import Atime, Ino, Options, Posix, User
from libfs.posix.interface import FileSystem
from xnfs_trials.crash.model import BLOCK
from xnfs_trials.crash.rawwalk import Inode, paths

ROOT = User(0, 0)
#: Never read more of a file than this: the workloads write less.
MAX_READ = 1 << 22


@dataclass
class Tree:
    """Inodes by number; those without a name are not there."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    root: int = 0

    def paths(self) -> dict[bytes, Inode]:
        """path -> inode, by following the names from the root directory."""
        return paths(self.inodes, self.root)


def quiet(fs: FileSystem, *, readonly: bool = False) -> Posix:
    """The POSIX layer over a file system, with reads that change nothing."""
    return Posix(fs, options=Options(atime=Atime.NOATIME, readonly=readonly))


def read_tree(posix: Posix) -> Tree:
    """Everything that can be seen. Raises FsError where a call fails, which is a finding."""
    tree = Tree(root=int(posix.root))
    todo = [posix.root]
    while todo:
        ino = todo.pop()
        node = tree.inodes.get(int(ino)) or _inode(posix, ino)
        tree.inodes[int(ino)] = node
        if stat.S_ISDIR(node.mode) and not node.entries:
            for name, child in _entries(posix, ino):
                node.entries[name] = int(child)
                if int(child) not in tree.inodes:
                    tree.inodes[int(child)] = _inode(posix, child)
                    todo.append(child)
                tree.inodes[int(child)].names.append((int(ino), name))
    return tree


def _inode(posix: Posix, ino: Ino) -> Inode:
    a = posix.getattr(ROOT, ino)
    size = 0 if stat.S_ISDIR(a.mode) else a.size
    rdev = os.major(a.rdev), os.minor(a.rdev)
    node = Inode(int(ino), a.mode, a.uid, a.gid, a.nlink, size, a.mtime, a.generation, rdev)
    if stat.S_ISLNK(a.mode):
        node.target = posix.readlink(ROOT, ino)
    elif stat.S_ISREG(a.mode):
        node.data = dict(_blocks(read_file(posix, ino, size)))
    for name in posix.listxattr(ROOT, ino):
        node.xattrs[name] = posix.getxattr(ROOT, ino, name)
    return node


def read_file(posix: Posix, ino: Ino, size: int) -> bytes:
    """The bytes of a file."""
    fh = posix.open(ROOT, ino, os.O_RDONLY)
    try:
        return posix.read(fh, 0, min(size, MAX_READ))
    finally:
        posix.release(fh)


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), BLOCK):
        yield at // BLOCK, data[at : at + BLOCK].ljust(BLOCK, b"\0")


def _entries(posix: Posix, ino: Ino) -> list[tuple[bytes, Ino]]:
    fh = posix.opendir(ROOT, ino)
    try:
        out, cookie = [], 0
        while found := posix.readdir(fh, cookie):
            names = [d.name for d in found if d.name not in (b".", b"..")]
            out += [(name, posix.lookup(ROOT, ino, name).ino) for name in names]
            cookie = found[-1].next
        return out
    finally:
        posix.releasedir(fh)


def differences(got: Tree, want: Tree) -> Iterator[str]:
    """What one tree shows otherwise than the other. Times are not compared."""
    theirs = want.paths()
    ours = got.paths()
    for path in sorted(theirs.keys() ^ ours.keys()):
        yield f"{path!r} is there in only one of the two"
    for path in sorted(theirs.keys() & ours.keys()):
        one, two = _shape(ours[path]), _shape(theirs[path])
        if one != two:
            yield f"{path!r} is {one}, not {two}"
        elif ours[path].content() != theirs[path].content():
            yield f"{path!r} has other bytes"


def _shape(inode: Inode) -> Inode:
    size = 0 if stat.S_ISDIR(inode.mode) else inode.size
    return replace(
        inode, size=size, mtime=0, generation=0, rdev=(0, 0), data={}, unwritten=set(),
        names=sorted(inode.names), owned=0,
    )  # fmt: skip


def remove_all(posix: Posix) -> None:
    """Delete everything below the root directory, and the root's attributes."""
    todo: list[tuple[Ino, bytes, Ino]] = []
    level = [posix.root]
    while level:
        found = [(ino, *entry) for ino in level for entry in _entries(posix, ino)]
        todo += found
        level = [c for _, _, c in found if stat.S_ISDIR(posix.getattr(ROOT, c).mode)]
    for parent, name, child in reversed(todo):
        if stat.S_ISDIR(posix.getattr(ROOT, child).mode):
            posix.rmdir(ROOT, parent, name)
        else:
            posix.unlink(ROOT, parent, name)
    for name in posix.listxattr(ROOT, posix.root):
        posix.removexattr(ROOT, posix.root, name)
