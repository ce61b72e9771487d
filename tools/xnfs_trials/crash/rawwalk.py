"""Following FFS pointers in the bytes of an image, and reading files and attributes.

Part of the checker (`checker.py` says what for); the same rule holds: nothing but the standard
library.
"""

from __future__ import annotations

import stat
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from xnfs_trials.crash.rawdisk import BLOCK, Finding, RawDisk

DATA, UNWRITTEN, NODE, XATTR = 1, 2, 3, 4
K_INODE, K_DIR, K_LEAF, K_INDEX = 8, 9, 10, 11
KIND_TYPES = {
    DATA: b"ffs.data",
    UNWRITTEN: b"ffs.unwritten",
    NODE: b"ffs.node",
    XATTR: b"ffs.xattr",
    K_INODE: b"ffs.inode",
    K_DIR: b"ffs.dir",
    K_LEAF: b"ffs.leaf",
    K_INDEX: b"ffs.index",
}
INLINE, HASHED = 1, 2
TAG = 0x47415458  # test data are cells of 16 bytes: TAG, number of the file, cell number, version
NAMESPACES = {1: b"user.", 2: b"trusted.", 3: b"security.", 4: b"system."}

_SLOT = struct.Struct("<IIQ")


@dataclass
class Inode:
    """What the image says of one inode. `data` holds file blocks that exist; the others read as
    zeros."""

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime: int
    generation: int
    rdev: tuple[int, int]
    data: dict[int, bytes] = field(default_factory=dict)
    unwritten: set[int] = field(default_factory=set)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    names: list[tuple[int, bytes]] = field(default_factory=list)
    entries: dict[bytes, int] = field(default_factory=dict)
    target: bytes = b""
    owned: int = 0  # blocks beyond the inode itself

    def content(self) -> bytes:
        """The bytes of a small file."""
        out = bytearray(self.size)
        for fb, raw in self.data.items():
            piece = raw[: max(0, self.size - fb * BLOCK)]
            out[fb * BLOCK : fb * BLOCK + len(piece)] = piece
        return bytes(out)


@dataclass
class Report:
    """What the image contains, and what is wrong with it."""

    disk: RawDisk
    inodes: dict[int, Inode]
    root: int
    owners: dict[int, int]

    @property
    def findings(self) -> list[Finding]:
        """Rules that the bytes break."""
        return self.disk.findings

    @property
    def leaks(self) -> list[int]:
        """Blocks marked in the map that no pointer names: allowed after a cut."""
        data = range(self.disk.super.data_start, self.disk.super.blocks - 1)
        return [b for b in data if b not in self.owners and self.disk.in_use(b)]

    @property
    def overcounted(self) -> list[int]:
        """Blocks whose count is above the pointers seen: allowed after a cut."""
        return [b for b, n in self.owners.items() if self.disk.refs(b) > n]

    def tree(self) -> dict[bytes, Inode]:
        """path -> inode, by following the names from the root directory."""
        return paths(self.inodes, self.root)


def paths(inodes: Mapping[int, Inode], root: int) -> dict[bytes, Inode]:
    """path -> inode, by following the names from the root directory; `/` is the root."""
    out = {b"/": inodes[root]} if root in inodes else {}
    todo = [(root, b"")]
    seen = set()
    while todo:
        ino, path = todo.pop()
        if ino in seen or ino not in inodes:
            continue
        seen.add(ino)
        for name, child in inodes[ino].entries.items():
            if child in inodes:
                out[path + b"/" + name] = inodes[child]
                todo.append((child, path + b"/" + name))
    return out


class Walk:
    """Pointers seen so far, and what they lead to."""

    def __init__(self, disk: RawDisk, canary: bytes | None = None) -> None:
        self.disk = disk
        self.canary = canary
        self.types = disk.type_names()
        self.numbers = {name: number for number, name in self.types.items()}
        self.owners: dict[int, int] = {}
        self.type_of: dict[int, bytes] = {}
        self.inodes: dict[int, Inode] = {}
        self.named: list[tuple[int, int, bytes, int]] = []  # (child, directory, name, d_type)
        self.todo: deque[tuple[int, bytes, int]] = deque()
        self.tags: dict[
            int, int
        ] = {}  # number in the tags of the test's data -> inode that shows it
        self.root = 0

    # -- pointers

    def own(self, bno: int, kind: bytes, owner: int) -> bool:
        """A pointer to a block was seen. True if it may be followed."""
        if not self.disk.in_data(bno):
            self.disk.find("pointer", owner, f"names block {bno}, outside the data area")
            return False
        self.owners[bno] = self.owners.get(bno, 0) + 1
        known = self.type_of.setdefault(bno, kind)
        if known != kind:
            self.disk.find(
                "R1", bno, f"reached as {kind.decode()} from {owner} and as {known.decode()}"
            )
            return False
        return True

    def pointer(self, raw: int, owner: int, kinds: tuple[int, ...]) -> int:
        """Follow a FFS pointer (kind in the top byte) to a block of metadata; 0 if it can't be."""
        kind, bno = raw >> 56, raw & (1 << 56) - 1
        if kind not in kinds:
            self.disk.find("pointer", owner, f"pointer of kind {kind} where {kinds} belong")
            return 0
        first = bno not in self.owners
        if not self.own(bno, KIND_TYPES[kind], owner):
            return 0
        if first and kind in (K_INODE, K_DIR):
            self.todo.append((bno, KIND_TYPES[kind], owner))
        return bno

    def load(self, bno: int, kind: bytes) -> bytes | None:
        """A block of metadata whose stamp must be right (R2, torn blocks)."""
        raw = self.disk.block(bno)
        if not self.disk.stamp_ok(bno, raw):
            what = (
                "the canary: never initialised" if raw[: BLOCK // 2] == self._canary() else "torn"
            )
            self.disk.find("R2", bno, f"stamp of {kind.decode()} is wrong ({what})")
            return None
        number = self.disk.stamp(raw)[1]
        if number != self.numbers.get(kind):
            name = self.types.get(number, b"?")
            self.disk.find("R2", bno, f"stamped {name.decode()}, reached as {kind.decode()}")
            return None
        self.disk.check_age(bno, raw)
        return raw

    def _canary(self) -> bytes:
        return (self.canary or b"\xff") * (BLOCK // 2 // len(self.canary or b"\xff"))

    # -- files

    def _slots(self, node: Inode, raw: bytes, depth: int) -> None:
        """Extents of a file. No recursion: a list of (owner, slots, level, first block covered)."""
        todo = [(node.ino, raw, depth)]
        while todo:
            owner, slots, level = todo.pop()
            for first, count, pointer in _SLOT.iter_unpack(slots):
                kind, bno = pointer >> 56, pointer & (1 << 56) - 1
                if not pointer:
                    continue
                if kind == NODE and level > 0:
                    more = self._node(node, owner, pointer, level - 1)
                    if more is not None:
                        todo.append((bno, more, level - 1))
                elif kind in (DATA, UNWRITTEN) and level == 0:
                    self._extent(node, owner, first, count, kind, bno)
                else:
                    self.disk.find("pointer", owner, f"kind {kind} at level {level}")

    def _node(self, node: Inode, owner: int, pointer: int, level: int) -> bytes | None:
        if not (bno := self.pointer(pointer, owner, (NODE,))) or self.owners[bno] > 1:
            return None
        node.owned += 1
        raw = self.load(bno, b"ffs.node")
        if raw is None:
            return None
        got_level, _, ino = struct.unpack_from("<IIQ", raw, 16)
        if (got_level, ino) != (level, node.ino):
            self.disk.find("node", bno, f"level {got_level} of {ino}, not {level} of {node.ino}")
        return raw[64 : 64 + 250 * 16]

    def _extent(self, node: Inode, owner: int, first: int, count: int, kind: int, bno: int) -> None:
        if not count or not self.disk.in_data(bno) or not self.disk.in_data(bno + count - 1):
            self.disk.find("pointer", owner, f"extent of {count} blocks at {bno}")
            return
        for i in range(count):
            if not self.own(bno + i, KIND_TYPES[kind], owner):
                continue
            node.owned += 1
            if first + i in node.data or first + i in node.unwritten:
                self.disk.find("size", node.ino, f"file block {first + i} mapped twice")
            if kind == UNWRITTEN:
                node.unwritten.add(first + i)
                continue
            raw = self.disk.block(bno + i)
            node.data[first + i] = raw
            self._confidential(node, bno + i, raw)

    def _confidential(self, node: Inode, bno: int, raw: bytes) -> None:
        """R2 for data: neither what lay on the disk before, nor another file's bytes."""
        if self.canary is None:
            return
        if self.canary in raw:
            self.disk.find("R2", bno, f"file {node.ino} shows bytes that it never wrote")
            return
        words = struct.unpack("<1024I", raw)
        for tag in set(zip(words[::4], words[1::4], strict=True)) - {(0, 0)}:
            if tag[0] != TAG or self.tags.setdefault(tag[1], node.ino) != node.ino:
                self.disk.find("R2", bno, f"file {node.ino} shows bytes {tag} of another")

    def _inline(self, node: Inode, raw: bytes) -> None:
        if node.size > 2560:
            self.disk.find("size", node.ino, f"inline, but {node.size} bytes")
            return
        if stat.S_ISLNK(node.mode):
            node.target = raw[512 : 512 + node.size]
        elif node.size:
            node.data[0] = raw[512:3072] + bytes(BLOCK - 2560)
            self._confidential(node, node.ino, node.data[0])

    def _xattrs(self, node: Inode, raw: bytes) -> None:
        node.xattrs = records(self.disk, node.ino, raw[3584:4096])
        (pointer,) = struct.unpack_from("<Q", raw, 448)
        if pointer and (bno := self.pointer(pointer, node.ino, (XATTR,))):
            node.owned += 1
            more = self.load(bno, b"ffs.xattr")
            if more is not None:
                node.xattrs |= records(self.disk, bno, more[64:4096])


def records(disk: RawDisk, bno: int, raw: bytes) -> dict[bytes, bytes]:
    """Extended attributes, as FFS and LFS have them."""
    out: dict[bytes, bytes] = {}
    at = 0
    while at + 4 <= len(raw) and raw[at]:
        space, n, v = struct.unpack_from("<BBH", raw, at)
        name = NAMESPACES.get(space, b"?.") + raw[at + 4 : at + 4 + n]
        if at + 4 + n + v > len(raw) or space not in NAMESPACES or name in out:
            disk.find("xattr", bno, f"bad attribute record at {at}")
            break
        out[name] = raw[at + 4 + n : at + 4 + n + v]
        at += 4 + n + v
    return out
