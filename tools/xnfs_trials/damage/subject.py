"""The images that are damaged: as small as they can be and still have every structure.

Two file systems lie on each. `root` has a bit of everything; `witness` holds a file that nobody
touches. The image with an FFS exists in two states: unmounted cleanly, and `cut` by a power
failure, with a transaction in the log that recovery must finish. In `lfs` the root is an LFS.

It also says who needs what: `Subject.fine` gives the inodes that must be whole as long as only the
given blocks are damaged. That is read from the sound image by `owns`, the same for all types; for
an LFS it is asked of that (`subject_lfs`).
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from libfs.common.naming import name_hash
from libfs.ffs import Ffs
from libfs.formats import of_type
from libfs.lfs import Lfs
from libfs.posix.interface import Ino, New, User
from xnfs import BLOCK, SECTOR, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.layout import ROOTS_TYPE, Geometry, Seed
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.typetable import TypeTable
from xnfs_trials.damage import subject_lfs
from xnfs_trials.damage.survey import Look, survey

UUID = bytes(range(16))
BLOCKS = 176
FRAMES = 160
FRAMES_LFS = 400
ROOT = User(0, 0)
WITNESS = "witness"
NOW = 1_750_000_000_000_000_000
#: Names of 240 bytes in one slot of a table: more than a leaf holds.
ALIKE = 10


def clock() -> int:
    """Time stands still: the same damage gives the same bytes."""
    return NOW


def mount(disk: MemoryDevice, name: str, *, readonly: bool = False) -> tuple[Xn, Ffs]:
    """Open the image and mount one of its file systems."""
    xn = Xn(disk, frames=FramePool(FRAMES), clock=clock, readonly=readonly)
    return xn, Ffs.mount(xn, xn.admin, name)


@dataclass(frozen=True, eq=False)
class Subject:
    """A sound image."""

    name: str
    contents: dict[int, bytes]
    geometry: Geometry
    seed: Seed
    kinds: dict[int, str]  # block of metadata or data -> name of its type
    owns: dict[int, list[int]]  # block -> the blocks that it names
    looks: dict[int, Look]  # inode -> what is seen of it
    tables: frozenset[int]  # blocks of directories, below their inodes
    witness: frozenset[int]  # blocks of the file system that nobody touches
    #: of an LFS: inode -> the blocks that it needs
    needs: dict[int, frozenset[int]] = field(default_factory=dict)
    _fine: dict[frozenset[int], frozenset[int]] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Page frames to mount it with."""
        return FRAMES_LFS if self.needs else FRAMES

    def disk(self) -> MemoryDevice:
        """A copy to damage."""
        return MemoryDevice(self.geometry.blocks, dict(self.contents))

    def fine(self, damaged: frozenset[int]) -> frozenset[int]:
        """The inodes that can be reached, and have all their blocks, without any of these."""
        known = self._fine.get(damaged)
        if known is None:
            reached = self._reached(damaged)
            known = frozenset(
                i
                for i in self.looks
                if (i in reached and self._whole(i, damaged))
                or (i in self.needs and self.needs[i].isdisjoint(damaged))
            )
            self._fine[damaged] = known
        return known

    def _reached(self, damaged: Iterable[int]) -> set[int]:
        seen = set(damaged)
        todo = deque(range(self.geometry.roots_start, self.geometry.data_start))
        reached: set[int] = set()
        while todo:
            block = todo.popleft()
            if block not in seen:
                seen.add(block)
                reached.add(block)
                todo.extend(self.owns.get(block, ()))
        return reached

    def _whole(self, ino: int, damaged: frozenset[int]) -> bool:
        """None of the blocks of bytes, nodes and attributes of an inode is damaged."""
        todo = [ino]
        while todo:
            block = todo.pop()
            if block in damaged:
                return False
            below = self.owns.get(block, ())
            todo += [b for b in below if b not in self.looks and b not in self.tables]
        return True


@lru_cache(maxsize=3)
def subject(name: str = "clean") -> Subject:
    """The image that was unmounted cleanly, the one that was `cut`, or `lfs`. Made once a
    process."""
    lfs = name == "lfs"
    disk = MemoryDevice(subject_lfs.BLOCKS if lfs else BLOCKS)
    types = subject_lfs.TYPES if lfs else None
    format_image(disk, uuid=UUID, label="damage", now=NOW, types_blocks=types)
    xn = Xn(disk, frames=FramePool(FRAMES_LFS), clock=clock)
    Ffs.mkfs(xn, xn.admin, WITNESS, uuid=bytes(range(1, 17)))
    witness = Ffs.mount(xn, xn.admin, WITNESS)
    _Maker(witness).file(witness.root, b"untouched", b"nobody writes here " * 300)
    witness.close()
    if lfs:
        subject_lfs.make(xn, "root")
    else:
        Ffs.mkfs(xn, xn.admin, "root", uuid=bytes(range(2, 18)))
        fs = Ffs.mount(xn, xn.admin, "root")
        _fill(fs)
        fs.close()
    xn.close()
    if name == "cut":
        _cut(disk)
    return _known(name, disk)


def _known(name: str, disk: MemoryDevice) -> Subject:
    """What there is on a sound image, seen by `owns` and by mounting a copy."""
    contents = dict(disk._contents)
    copy = MemoryDevice(disk.blocks, dict(contents))
    xn = Xn(copy, frames=FramePool(FRAMES_LFS), clock=clock)
    looks: dict[int, Look] = {}
    needs: dict[int, frozenset[int]] = {}
    live: frozenset[int] = frozenset()
    roots = xn.roots()
    for root in roots:
        known = of_type(xn, root.type)
        assert known is not None  # of our own making
        fs = known.mount(xn, xn.admin, root.name)
        seen = survey(fs)
        assert not seen.errors, seen.errors
        looks |= seen.looks
        if isinstance(fs, Lfs):
            needs, live = subject_lfs.needs(fs.volume), subject_lfs.live(fs.volume)
        fs.close()
    xn.close()
    sb = read_superblock_untrusted(copy)
    geometry, seed = sb.geometry, Seed(sb.uuid)
    table = TypeTable(copy, geometry, seed)
    kinds: dict[int, str] = {}
    owns: dict[int, list[int]] = {}
    todo = [(b, ROOTS_TYPE) for b in range(geometry.roots_start, geometry.data_start)]
    while todo:
        block, number = todo.pop()
        kind = table.get(number)
        kinds[block] = kind.spec.name
        if kind.stamp is None or block in owns:
            continue
        raw = copy._contents[block]
        found = [each for part in range(kind.nparts) for each in kind.owned(raw, part)]
        owns[block] = [b for _n, start, count in found for b in range(start, start + count)]
        todo += [(b, n) for n, start, count in found for b in range(start, start + count)]
    tables = frozenset(b for b, kind in kinds.items() if kind in ("ffs.leaf", "ffs.index"))
    witness = frozenset(_below(owns, next(r.block for r in roots if r.name == WITNESS)))
    kinds = {b: kind for b, kind in kinds.items() if b in live or not kind.startswith("lfs.")}
    return Subject(name, contents, geometry, seed, kinds, owns, looks, tables, witness, needs)


def _below(owns: dict[int, list[int]], top: int) -> set[int]:
    found, todo = {top}, [top]
    while todo:
        more = set(owns.get(todo.pop(), ())) - found
        found |= more
        todo += more
    return found


class _Maker:
    """Makes inodes."""

    def __init__(self, fs: Ffs) -> None:
        self._fs = fs

    def make(self, parent: Ino, name: bytes, mode: int, **more: object) -> Ino:
        """Any inode."""
        new = New(mode, 1000, 100, **more)  # type: ignore[arg-type]
        return self._fs.create(ROOT, parent, name, new)

    def file(self, parent: Ino, name: bytes, data: bytes = b"", offset: int = 0) -> Ino:
        """A file with some bytes."""
        ino = self.make(parent, name, stat.S_IFREG | 0o644)
        if data:
            self._fs.write(ROOT, ino, offset, data, kill_suid=False)
        return ino

    def directory(self, parent: Ino, name: bytes) -> Ino:
        """A directory."""
        return self.make(parent, name, stat.S_IFDIR | 0o755)


def _fill(fs: Ffs) -> None:
    """A bit of everything; what is wanted on the disk stands behind each line."""
    make, root = _Maker(fs), fs.root
    small = make.file(root, b"small", b"inline " * 30)  # inline bytes
    fs.setxattr(ROOT, small, b"user.note", b"kept inside", 0)  # records in the inode
    fs.setxattr(ROOT, small, b"system.posix_acl_access", _ACCESS, 0)  # access list
    large = make.file(root, b"large", b"extent! " * 1100)  # extents
    fs.setxattr(ROOT, large, b"user.long", b"x" * 700, 0)  # ffs.xattr
    shreds = make.file(root, b"shreds", b"first")
    for block in range(2, 30, 2):  # ffs.node
        fs.write(ROOT, shreds, block * BLOCK, b"%d" % block, kill_suid=False)
    reserved = make.file(root, b"reserved", b"r" * 5000)
    fs.allocate(ROOT, reserved, 0, 4 * BLOCK, keep_size=True)  # ffs.unwritten
    make.make(root, b"symlink", stat.S_IFLNK | 0o777, target=b"small")
    make.make(root, b"far", stat.S_IFLNK | 0o777, target=b"f" * 3000)  # target in a data block
    make.make(root, b"fifo", stat.S_IFIFO | 0o600)
    make.make(root, b"device", stat.S_IFCHR | 0o600, rdev=(1 << 8) | 3)
    deep = make.directory(root, b"dir")
    deeper = make.directory(deep, b"deeper")
    make.file(deeper, b"bottom", b"b" * 9000)
    fs.setxattr(ROOT, deep, b"user.why", b"because", 0)
    hashed = make.directory(root, b"hashed")
    for name in _names(fs, hashed):  # reference counts, ffs.leaf, ffs.index
        fs.link(ROOT, small, hashed, name)
    make.file(root, b"empty")


#: user::rw- user:1000:r-- group::r-- mask::r-- other::---, as Linux stores it.
_ACCESS = b"\2\0\0\0" + b"".join(
    tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + ident.to_bytes(4, "little")
    for tag, perm, ident in (
        *((1, 6, 0xFFFFFFFF), (2, 4, 1000)),
        *((4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)),
    )
)


def _names(fs: Ffs, directory: Ino) -> list[bytes]:
    """Long names that fill one slot of the directory's table until an index is needed, and one
    beside them."""
    key = fs.volume.vnode(directory).hash_key
    alike: list[bytes] = []
    apart: list[bytes] = []
    number = 0
    while len(alike) < ALIKE or not apart:
        name = b"%d-" % number + b"n" * 240
        number += 1
        slot = name_hash(key, name) >> 58
        if slot == 0 and len(alike) < ALIKE:
            alike.append(name)
        elif slot == 40 and not apart:
            apart.append(name)
    return alike + apart


def _cut(disk: MemoryDevice) -> None:
    """Use it again, and pull the plug: a transaction is in the log, one of its blocks half in
    place, and blocks are taken that nobody names."""
    xn, fs = mount(disk, "root")
    ino = _Maker(fs).file(fs.root, b"late", b"not in place yet")
    fs.sync(None)
    fs.write(ROOT, ino, 0, b"torn" * 250, kill_suid=False)
    lost = _Maker(fs).file(fs.root, b"lost", b"never synced" * 500)
    xn.writeback(fs.volume.who, range(*xn.data_area))
    before = bytes(disk._contents[ino])
    xn.sync(fs.volume.who, [ino])
    disk._contents[ino] = before[:SECTOR] + disk._contents[ino][SECTOR:]
    del lost
