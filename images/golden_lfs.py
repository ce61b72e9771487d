"""Sound images with an LFS. Beside what `golden` gives, each tells what lies in it."""

from __future__ import annotations

from images.golden import ROOT, Golden, Tree, fill
from libfs.lfs import Lfs
from libfs.posix.interface import Change, Ino
from xnfs import MemoryDevice

BLOCKS = 4096  # 96 segments of 42 blocks
NAME = "root"
IDENTITY = bytes(range(16))


class LfsTree(Tree):
    """A tree in an LFS."""

    fs: Lfs

    def __init__(self, disk: MemoryDevice, name: str = NAME, *, fresh: bool = True) -> None:
        super().__init__(disk, name, IDENTITY, fresh=fresh, kind=Lfs)


def golden_lfs() -> Golden:
    """One LFS with a bit of everything."""
    disk = MemoryDevice(BLOCKS)
    tree = LfsTree(disk)
    fill(tree)
    return Golden(disk, tree.close())


def golden_lfs_crashed() -> Golden:
    """The power went after two syncs and two checkpoints: what was synced is rolled forward, what
    was only written is not there. Not damaged."""
    disk = MemoryDevice(BLOCKS)
    tree = LfsTree(disk)
    fill(tree)
    tree.close()
    at = tree.at
    tree = LfsTree(disk, fresh=False)
    tree.at = at
    synced = tree.file("/synced", b"synced" * 3000)
    tree.fs.write(ROOT, Ino(at["/large"]), 4096, b"overwritten" * 500, kill_suid=False)
    tree.fs.sync(None)
    tree.fs.rename(ROOT, tree.fs.root, b"symlink", tree.fs.root, b"renamed", keep=False)
    tree.fs.unlink(ROOT, tree.fs.root, b"fifo", keep=False)
    tree.fs.setxattr(ROOT, synced, b"user.late", b"v" * 1500, 0)
    tree.fs.sync(None)
    at["/renamed"] = at.pop("/symlink")
    del at["/fifo"]
    tree.file("/lost", b"never synced" * 2000)
    tree.xn.writeback(tree.fs.volume.who, range(*tree.xn.data_area))
    del at["/lost"]
    return Golden(disk, at)


def golden_lfs_snapshot() -> Golden:
    """A snapshot `before`, and after it a file that changed and one that went."""
    disk = MemoryDevice(BLOCKS)
    tree = LfsTree(disk)
    fill(tree)
    tree.fs.setattr(
        ROOT, Ino(tree.at["/sparse"]), Change(uid=7)
    )  # its record: in a block by itself
    tree.fs.volume.snapshots.create("before")
    tree.fs.write(ROOT, Ino(tree.at["/large"]), 0, b"after" * 2000, kill_suid=False)
    tree.fs.unlink(ROOT, tree.fs.root, b"sparse", keep=False)
    del tree.at["/sparse"]
    return Golden(disk, tree.close())


def golden_both() -> Golden:
    """An FFS and an LFS that share the disk."""
    disk = MemoryDevice(BLOCKS)
    one = Tree(disk, "ffs", bytes(range(1, 17)), fresh=True)
    one.file("/mine", b"first" * 1000)
    one.close()
    two = LfsTree(disk, "lfs", fresh=False)
    two.file("/mine", b"second" * 1000)
    return Golden(disk, {**one.at, **{"lfs:" + path: ino for path, ino in two.close().items()}})
