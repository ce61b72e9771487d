"""Sound images: what they hold, made the same each time."""

from __future__ import annotations

import random
import stat
from dataclasses import dataclass

from images.damage import peek, poke
from libfs.ffs.ffs import Ffs
from libfs.lfs import Lfs
from libfs.posix.interface import Change, Ino, New, User
from xnfs import BLOCK, SECTOR, FramePool, MemoryDevice, Xn, format_image

ROOT = User(0, 0)
BLOCKS = 512


class Clock:
    """A second a call."""

    def __init__(self) -> None:
        self.now = 1_750_000_000_000_000_000

    def __call__(self) -> int:
        self.now += 1_000_000_000
        return self.now


@dataclass
class Golden:
    """A disk, and where things lie on it: path -> inode."""

    disk: MemoryDevice
    at: dict[str, int]


class Tree:
    """Makes a tree, remembering inodes by path."""

    def __init__(
        self,
        disk: MemoryDevice,
        name: str,
        identity: bytes,
        *,
        fresh: bool,
        kind: type[Ffs] | type[Lfs] = Ffs,
    ) -> None:
        if fresh:
            format_image(disk, uuid=identity, label="golden", now=1_750_000_000_000_000_000)
        self.xn = Xn(disk, frames=FramePool(600), clock=Clock())
        if name not in {root.name for root in self.xn.roots()}:
            kind.mkfs(self.xn, self.xn.admin, name, uuid=identity)
        self.fs = kind.mount(self.xn, self.xn.admin, name)
        self.at = {"/": int(self.fs.root)}

    def _parent(self, path: str) -> tuple[Ino, bytes]:
        head, _, name = path.rpartition("/")
        return Ino(self.at[head or "/"]), name.encode()

    def make(self, path: str, mode: int, **more: object) -> Ino:
        """A new inode."""
        parent, name = self._parent(path)
        new = New(mode, 1000, 100, **more)  # type: ignore[arg-type]
        ino = self.fs.create(ROOT, parent, name, new)
        self.at[path] = int(ino)
        return ino

    def directory(self, path: str) -> None:
        """A directory."""
        self.make(path, stat.S_IFDIR | 0o755)

    def file(self, path: str, data: bytes, offset: int = 0) -> Ino:
        """A file with some bytes."""
        ino = self.make(path, stat.S_IFREG | 0o644)
        if data:
            self.fs.write(ROOT, ino, offset, data, kill_suid=False)
        return ino

    def link(self, path: str, to: str) -> None:
        """A further name."""
        parent, name = self._parent(path)
        self.fs.link(ROOT, Ino(self.at[to]), parent, name)
        self.at[path] = self.at[to]

    def close(self) -> dict[str, int]:
        """Unmount; where things lie."""
        self.fs.close()
        self.xn.close()
        return self.at


def contents(rng: random.Random, size: int) -> bytes:
    """Bytes that compress well and differ from file to file."""
    line = b"%08x " % rng.getrandbits(32)
    return (line * (size // len(line) + 1))[:size]


def fill(tree: Tree) -> None:
    """A bit of everything."""
    rng = random.Random(7)
    tree.file("/empty", b"")
    tree.file("/small", contents(rng, 1000))
    tree.file("/large", contents(rng, 9 * BLOCK + 77))
    tree.file("/sparse", contents(rng, 100), offset=300 * BLOCK)
    shreds = tree.file("/shreds", contents(rng, 100))
    for block in range(2, 40, 2):
        tree.fs.write(ROOT, shreds, block * BLOCK, contents(rng, 300), kill_suid=False)
    reserved = tree.file("/reserved", contents(rng, 5000))
    tree.fs.allocate(ROOT, reserved, 0, 6 * BLOCK, keep_size=True)
    tree.make("/symlink", stat.S_IFLNK | 0o777, target=b"small")
    tree.make("/fifo", stat.S_IFIFO | 0o600)
    tree.make("/device", stat.S_IFCHR | 0o600, rdev=(1 << 8) | 3)
    tree.directory("/dir")
    tree.directory("/dir/deep")
    tree.directory("/dir/deep/deeper")
    tree.file("/dir/deep/deeper/bottom", contents(rng, 3 * BLOCK))
    tree.link("/dir/hardlink", "/small")
    tree.directory("/many")
    for number in range(90):
        tree.link(f"/many/{number:03d}-" + "n" * 40, "/small")
    tree.fs.setxattr(ROOT, Ino(tree.at["/small"]), b"user.note", b"kept inside", 0)
    tree.fs.setxattr(ROOT, Ino(tree.at["/large"]), b"user.long", b"x" * 2000, 0)
    tree.fs.setattr(ROOT, Ino(tree.at["/dir/deep"]), Change(mode=stat.S_IFDIR | 0o2750, uid=1))
    tree.fs.sync(None)
    # The newest transaction in the log holds this one alone: damage elsewhere is not undone by it.
    last = Ino(tree.at["/empty"])
    tree.fs.setattr(ROOT, last, Change(mode=stat.S_IFREG | 0o600))
    tree.fs.sync(None)
    tree.fs.setattr(ROOT, last, Change(mode=stat.S_IFREG | 0o640))
    tree.fs.sync(None)


def golden_empty() -> Golden:
    """No file system yet."""
    disk = MemoryDevice(BLOCKS)
    format_image(disk, uuid=bytes(range(16)), label="empty", now=1_750_000_000_000_000_000)
    return Golden(disk, {})


def golden_ffs() -> Golden:
    """One FFS with a bit of everything."""
    disk = MemoryDevice(BLOCKS)
    tree = Tree(disk, "root", bytes(range(16)), fresh=True)
    fill(tree)
    return Golden(disk, tree.close())


def golden_two() -> Golden:
    """Two file systems that share the disk."""
    disk = MemoryDevice(BLOCKS)
    one = Tree(disk, "one", bytes(range(16)), fresh=True)
    one.file("/mine", b"first" * 1000)
    one.close()
    two = Tree(disk, "two", bytes(range(1, 17)), fresh=False)
    two.file("/mine", b"second" * 1000)
    return Golden(disk, {**one.at, **{"two:" + path: ino for path, ino in two.at.items()}})


def golden_crashed() -> Golden:
    """The power went while it was in use: a log to replay, a torn block, leaks. Not damaged."""
    disk = MemoryDevice(BLOCKS)
    tree = Tree(disk, "root", bytes(range(16)), fresh=True)
    fill(tree)
    tree.file("/lost", b"never synced" * 2000)
    tree.xn.writeback(tree.fs.volume.who, range(*tree.xn.data_area))
    small = tree.at["/small"]
    tree.fs.write(ROOT, Ino(small), 0, b"torn" * 250, kill_suid=False)
    before = peek(disk, small)
    tree.xn.sync(tree.fs.volume.who, [small])  # and nothing else
    poke(disk, small, 0, bytes(before[:SECTOR]))  # its first sector did not reach the disk
    del tree.at["/lost"]
    return Golden(disk, tree.at)
