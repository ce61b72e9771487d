"""Rules R1 to R5 and the shape of FFS, checked from the bytes of an image alone.

Shares no code with `xnfs` or `libfs` (the standard library and `rawdisk.py` only). It walks from
the root catalogue with a hard-coded knowledge of the FFS types of SPEC.md, and answers two
questions: is any rule broken, and what does the image contain. Leaks are listed and are no
findings: after a power cut they are allowed.

Rules as they show in bytes (DESIGN.md, section 5):
  R1, R4  every block that a pointer names is marked in the map, under one type, and is never named
  more often than counted R2      every block that a pointer names is initialised: its stamp is
  right, its data are the owner's own R3      link counts equal the names found: no cut shows a
  moved object nowhere R5      the reference count of a block is never below the pointers seen
"""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Mapping

from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.rawwalk import (
    HASHED,
    INLINE,
    K_DIR,
    K_INDEX,
    K_INODE,
    K_LEAF,
    Inode,
    Report,
    Walk,
)

_RECORD = struct.Struct("<HBB")


class Checker(Walk):
    """One walk over one image."""

    # -- the walk

    def run(self) -> None:
        """Walk everything; then compare the pointers seen with the tables and the counts with the
        names."""
        for slot_block, bno, number in self._root_slots():
            kind = self.types.get(number, b"?")
            if self.own(bno, kind, slot_block) and kind == b"ffs.super":
                self._super(bno)
        while self.todo:
            bno, kind, _ = self.todo.popleft()
            raw = self.load(bno, kind)
            if raw is not None:
                self._inode(bno, kind, raw)
        self._links()
        self._tables()

    def _root_slots(self) -> list[tuple[int, int, int]]:
        out = []
        start, count = self.disk.super.roots
        for at in range(start, start + count):
            raw = self.disk.block(at)
            if not self.disk.stamp_ok(at, raw):
                self.disk.find("roots", at, "stamp of the root catalogue is wrong")
                continue
            self.disk.check_age(at, raw)
            for i in range(31):
                bno, number = struct.unpack_from("<QI", raw, 128 + 128 * i + 64)
                if bno:
                    out.append((at, bno, number))
        return out

    def _super(self, bno: int) -> None:
        raw = self.load(bno, b"ffs.super")
        if raw is None:
            return
        (pointer,) = struct.unpack_from("<Q", raw, 64)
        if not pointer:
            return  # the root was installed, the file system not yet made
        if raw[16:20] != b"FFS1":
            self.disk.find("ffs", bno, "no FFS magic")
        self.root = self.pointer(pointer, bno, (K_DIR,))

    def _inode(self, bno: int, kind: bytes, raw: bytes) -> None:
        mode, flags, uid, gid, nlink, size, blocks = struct.unpack_from("<HHIIIQQ", raw, 16)
        mtime = struct.unpack_from("<q", raw, 56)[0]
        generation, depth, major, minor = struct.unpack_from("<4I", raw, 80)
        node = Inode(bno, mode, uid, gid, nlink, size, mtime, generation, (major, minor))
        self.inodes[bno] = node
        fmt = stat.S_IFMT(mode)
        if (fmt == stat.S_IFDIR) != (kind == b"ffs.dir") or fmt not in _FORMATS:
            self.disk.find("R2", bno, f"{kind.decode()} has mode {mode:o}: not initialised")
            return
        self._xattrs(node, raw)
        if kind == b"ffs.dir":
            self._directory(node, flags, raw)
        elif flags & INLINE:
            self._inline(node, raw)
            self._slots(node, raw[256:448], depth)
        else:
            self._slots(node, raw[256:448], depth)
        if blocks != node.owned:
            self.disk.find("size", bno, f"says {blocks} blocks, owns {node.owned}")

    # -- directories

    def _directory(self, node: Inode, flags: int, raw: bytes) -> None:
        pointers = struct.unpack_from("<64Q", raw, 512)
        key, entries = struct.unpack_from("<QQ", raw, 96)
        if flags & HASHED:
            self._table(node, key, pointers)
        else:
            self._names(node, node.ino, raw, pointers, 1024, (1536, 3072), None)
        if entries != len(node.entries):
            self.disk.find("size", node.ino, f"says {entries} entries, has {len(node.entries)}")

    def _table(self, node: Inode, key: int, pointers: tuple[int, ...]) -> None:
        """Tables of the hash tree: (owner, pointers, lowest hash, bits below this table's)."""
        todo = [(node.ino, pointers, 0, 58)]
        while todo:
            owner, table, low, shift = todo.pop()
            used = [i for i, p in enumerate(table) if p]
            for i, slot in enumerate(used):
                after = used[i + 1] if i + 1 < len(used) else len(table)
                lo, hi = low + (slot << shift), low + (after << shift) - 1
                bno = self.pointer(table[slot], owner, (K_LEAF, K_INDEX))
                if not bno or self.owners[bno] > 1:
                    continue
                node.owned += 1
                if table[slot] >> 56 == K_LEAF:
                    self._leaf(node, key, bno, lo, hi)
                elif (index := self._index(node, bno, lo, hi, shift)) is not None:
                    todo.append((bno, index, lo, shift - 8))

    def _index(self, node: Inode, bno: int, lo: int, hi: int, shift: int) -> tuple[int, ...] | None:
        raw = self.load(bno, b"ffs.index")
        if raw is None:
            return None
        ino, low, level = struct.unpack_from("<QQI", raw, 16)
        if (ino, low, level) != (node.ino, lo, 64 - shift) or hi - lo != (1 << shift) - 1:
            self.disk.find("hash", bno, f"index of {ino} from {low:#x} level {level} is misplaced")
            return None
        return struct.unpack_from("<256Q", raw, 64)

    def _leaf(self, node: Inode, key: int, bno: int, lo: int, hi: int) -> None:
        raw = self.load(bno, b"ffs.leaf")
        if raw is None:
            return
        ino, low, high, entries = struct.unpack_from("<QQQH", raw, 16)
        if (ino, low, high) != (node.ino, lo, hi):
            self.disk.find("hash", bno, f"leaf {low:#x}..{high:#x} of {ino}, not {lo:#x}..{hi:#x}")
        pointers = struct.unpack_from("<128Q", raw, 64)
        if entries != sum(1 for p in pointers if p):
            self.disk.find("size", bno, f"leaf says {entries} entries")
        self._names(node, bno, raw, pointers, 1088, (2112, 4096), (key, lo, hi))

    def _names(
        self,
        node: Inode,
        bno: int,
        raw: bytes,
        pointers: tuple[int, ...],
        records: int,
        heap: tuple[int, int],
        hashed: tuple[int, int, int] | None,
    ) -> None:
        for i, pointer in enumerate(pointers):
            if not pointer:
                continue
            off, n, d_type = _RECORD.unpack_from(raw, records + 4 * i)
            name = raw[off : off + n]
            if not n or off < heap[0] or off + n > heap[1] or b"/" in name or b"\0" in name:
                self.disk.find("name", bno, f"entry {i} has no name")
                continue
            if name in node.entries:
                self.disk.find("name", bno, f"name {name!r} twice in directory {node.ino}")
            if hashed is not None and not hashed[1] <= name_hash(hashed[0], name) <= hashed[2]:
                self.disk.find("hash", bno, f"name {name!r} is in the wrong leaf")
            child = self.pointer(pointer, bno, (K_INODE, K_DIR))
            if child:
                node.entries[name] = child
                self.named.append((child, node.ino, name, d_type))

    # -- sums

    def _links(self) -> None:
        for child, parent, name, d_type in self.named:
            if (node := self.inodes.get(child)) is not None:
                node.names.append((parent, name))
                if d_type != stat.S_IFMT(node.mode) >> 12:
                    self.disk.find("name", parent, f"{name!r} has type {d_type}")
        for node in self.inodes.values():
            want = len(node.names)
            if stat.S_ISDIR(node.mode):
                subdirs = sum(1 for c in node.entries.values() if self._is_dir(c))
                want = 2 + subdirs
            if node.nlink != want:
                self.disk.find("R3", node.ino, f"nlink {node.nlink}, names found {want}")

    def _is_dir(self, ino: int) -> bool:
        return ino in self.inodes and stat.S_ISDIR(self.inodes[ino].mode)

    def _tables(self) -> None:
        self.disk.check_tables()
        for bno, seen in self.owners.items():
            if not self.disk.in_use(bno):
                self.disk.find("R4", bno, "a pointer names it, the map says free")
            elif seen > max(1, self.disk.refs(bno)):
                self.disk.find("R5", bno, f"{seen} pointers, counted {self.disk.refs(bno)}")

    def report(self) -> Report:
        """The result of `run`."""
        return Report(self.disk, self.inodes, self.root, self.owners)


_FORMATS = {
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
}


def name_hash(key: int, name: bytes) -> int:
    """64-bit keyed BLAKE2b of a name."""
    digest = hashlib.blake2b(name, digest_size=8, key=key.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def check_recovered(disk: RawDisk, canary: bytes | None = None) -> Report:
    """Walk a disk that was recovered."""
    checker = Checker(disk, canary)
    checker.run()
    return checker.report()


def check(
    image: Mapping[int, bytes], blocks: int, canary: bytes | None = None
) -> tuple[Report, Mapping[int, bytes]]:
    """Recover a copy of the image, walk it, and return the report with the recovered blocks."""
    disk = RawDisk(image, blocks)
    disk.recover()
    return check_recovered(disk, canary), disk.image
