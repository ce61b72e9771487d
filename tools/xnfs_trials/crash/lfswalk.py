"""The tree of an LFS, from the bytes of a recovered image alone, and the shape of its log.

Shares no code with `xnfs` or `libfs`: SPEC.md, section LFS, says what is read here. The newest good
checkpoint has the inode map; the summaries of the segments that the log went on with have what was
flushed since. From the map come the records of inodes, and from these data, names and attributes.

An address owns nothing, so the kernel can't see that it names what it should (R2, R3). Here it
must: the summary of the segment has to say of the block which kind it is, whose, and which place in
it. Also checked: checksums, that each block is named once, counts, sizes, link counts, that names
lie where their hash belongs, and that no inode is without one. Usage and snapshots are not looked
at.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from xnfs_trials.crash.checker import name_hash
from xnfs_trials.crash.rawdisk import BLOCK, RawDisk
from xnfs_trials.crash.rawwalk import Inode, records

DATA, INODES, MAP, NAMES, XATTR, GONE = 1, 2, 3, 6, 7, 8  # kinds of blocks; MAP: of level 1
PROMISED = 2  # an address that is none: reads as zeros
SLOTS, FAN, TOPS = 168, 504, 34
ROOT = 1
INLINE = 1  # flag of a record
_AT = (1 << 34) - 1

_RECORD = struct.Struct("<IHHIIIIQQ8xq16xIIIBBHQQQHH4x")


class Record(NamedTuple):
    """The fixed part of an inode, without its other times."""

    ino: int
    mode: int
    flags: int
    uid: int
    gid: int
    nlink: int
    generation: int
    size: int
    blocks: int
    mtime: int
    major: int
    minor: int
    parent: int
    depth: int
    bits: int
    tops: int
    key: int
    entries: int
    xattr: int
    inside: int
    content: int


@dataclass(frozen=True)
class Summary:
    """What a segment says of itself. `slots`: for each block after it (kind, inode, place, number
    of the flush), or None."""

    serial: int
    segment: int
    after: int  # the next segment + 1
    done: int
    first: int
    slots: tuple[tuple[int, int, int, int] | None, ...]


class Damaged(Exception):
    """What has been found makes the tree unreadable from here on; it is told already."""


class LfsWalk:
    """One walk. `inodes` are those of the map."""

    def __init__(self, disk: RawDisk) -> None:
        self.disk = disk
        self.inodes: dict[int, Inode] = {}
        self._seed = self._size = 0
        self._super = b""
        self._map: dict[int, int] = {}  # inode -> address
        self._summaries: dict[int, tuple[int, Summary]] = {}  # segment -> (block, what it says)
        self._named: dict[int, int] = {}  # block -> who names it
        self._types: list[tuple[int, int, bytes, int]] = []  # (directory, child, name, type)
        self._parents: dict[int, int] = {}

    def run(self) -> None:
        """Read everything; what is wrong goes to `disk.find`."""
        try:
            if self._find_super():
                self._load_map()
        except Damaged:
            return
        for ino, address in sorted(self._map.items()):
            try:
                self._inode(ino, address)
            except Damaged:
                continue
        self._links()

    def _wrong(self, block: int, text: str) -> Damaged:
        self.disk.find("lfs", block, text)
        return Damaged()

    # -- where the log is

    def _find_super(self) -> bool:
        """False: the root was installed, the file system not yet made."""
        numbers = {n for n, name in self.disk.type_names().items() if name == b"lfs.super"}
        start, count = self.disk.super.roots
        for at in range(start, start + count):
            for block, number in struct.iter_unpack("<64xQI52x", self.disk.block(at)[128:]):
                if block and number in numbers:
                    self._super = raw = self.disk.block(block)
                    (self._size,) = struct.unpack_from("<I", raw, 24)
                    self._seed = zlib.crc32(raw[40:56])
                    if raw[16:20] != b"LFS1" and any(raw[16:]):
                        raise self._wrong(block, "no LFS magic")
                    return any(raw[16:])
        return False

    def _load_map(self) -> None:
        """The inode map: that of the newest checkpoint, and what was flushed since."""
        regions = (p & (1 << 48) - 1 for p in struct.unpack_from("<2Q", self._super, 64))
        good = [raw for at in regions if (raw := self._region(at))]
        if not good:
            raise self._wrong(0, "no checkpoint is good")
        raw = max(good, key=lambda raw: struct.unpack_from("<Q", raw, 16))
        known, serial, segment, slot = struct.unpack_from("<QQII", raw, 24)
        depth, tops = struct.unpack_from("<II", raw, 64)
        if depth > 3 or tops > TOPS:
            raise self._wrong(0, f"an inode map of depth {depth} with {tops} addresses")
        self._map = dict(self._values(0, depth, struct.unpack_from(f"<{tops}Q", raw, 80)))
        for ino, address in self._news(known, serial, segment, slot):
            self._map.pop(ino, None)
            if address:
                self._map[ino] = address

    def _region(self, at: int) -> bytes | None:
        raw = self.disk.block(at)
        return raw if raw[4:8] == b"CKCP" and self._checks(at, raw) else None

    def _news(self, known: int, serial: int, segment: int, slot: int) -> list[tuple[int, int]]:
        """(inode, address; 0: it is no more) that flushes after `known` have, in order."""
        chain: list[tuple[int, Summary]] = []
        while True:
            block, summary = self._summary(segment)
            if summary.serial != serial or len(chain) > len(self._summaries):
                raise self._wrong(block, f"segment {segment} is not number {serial} of the log")
            chain.append((block, summary))
            if not summary.after:
                break
            segment, serial = summary.after - 1, serial + 1
        out: list[tuple[int, int]] = []
        for block, summary in chain:
            for i, each in enumerate(summary.slots):
                if each is None or (block == chain[0][0] and i < slot) or each[3] <= known:
                    continue
                if any(s.first <= each[3] <= s.done for _, s in chain):
                    out += self._of_block(each[0], block + 1 + i)
        return out

    def _of_block(self, kind: int, block: int) -> list[tuple[int, int]]:
        if kind == INODES:
            raw = self._block(INODES, block)
            return [
                (struct.unpack_from("<I", raw, at)[0], block | i << 34)
                for i, at in enumerate(_offsets(raw))
            ]
        if kind == GONE:
            raw = self._block(GONE, block)
            (count,) = struct.unpack_from("<I", raw, 16)
            return [(ino, 0) for ino in struct.unpack_from(f"<{min(count, 1016)}I", raw, 32)]
        return []

    # -- blocks

    def _checks(self, block: int, raw: bytes) -> bool:
        want = zlib.crc32(raw[4:], zlib.crc32(block.to_bytes(8, "little"), self._seed))
        return int.from_bytes(raw[:4], "little") == want

    def _block(self, kind: int, block: int) -> bytes:
        """A block with a head. Raises Damaged."""
        raw = self.disk.block(block)
        if not self._checks(block, raw) or raw[4] != kind:
            raise self._wrong(block, f"no good block of kind {kind}")
        return raw

    def _summary(self, segment: int) -> tuple[int, Summary]:
        """(block, what it says) of a segment's summary. Raises Damaged."""
        if segment not in self._summaries:
            number, entry = divmod(segment, SLOTS)
            run = max(1, struct.unpack_from("<I", self._super, 28)[0])
            pointer, behind = divmod(number, run)
            (table,) = struct.unpack_from("<Q", self._super, 128 + 8 * min(pointer, 495))
            raw = self.disk.block((table & (1 << 48) - 1) + behind)
            (at,) = struct.unpack_from("<Q", raw, 64 + 24 * entry)
            if not table or at >> 56 != 3:
                raise self._wrong(0, f"there is no segment {segment}")
            block = at & (1 << 48) - 1
            self._summaries[segment] = block, _summary(block, self.disk.block(block))
            if self._summaries[segment][1].segment != segment:
                raise self._wrong(block, f"says that it is not segment {segment}")
        return self._summaries[segment]

    def _claim(self, address: int, kind: int, ino: int, place: int, shift: int = 0) -> int:
        """The block of an address, which must be what it is taken for, and nobody else's.
        `shift`: how many bits of what the summary says are finer than `place`. Raises Damaged."""
        block = address & _AT
        if not self.disk.in_data(block):
            raise self._wrong(block, f"inode {ino} names this block")
        summary, said = self._summary(block // self._size)
        index = block - summary - 1
        slot = said.slots[index] if 0 <= index < SLOTS else None
        if slot is None or slot[0] != kind or (kind != INODES and slot[1] != ino):
            raise self._wrong(block, f"inode {ino} takes it for kind {kind}, its slot is {slot}")
        if kind != INODES and slot[2] >> shift != place:
            raise self._wrong(block, f"inode {ino} has it at {place}, its slot is {slot}")
        if kind != INODES and self._named.setdefault(block, ino) != ino:
            raise self._wrong(block, f"of inode {ino} and {self._named[block]}")
        return block

    def _values(self, ino: int, depth: int, tops: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """(number, address) of all that a map has."""
        todo = [(depth, 0, tops)]
        while todo:
            level, base, values = todo.pop()
            for i, address in enumerate(values, base):
                if address and not level:
                    yield i, address
                elif address:
                    block = self._claim(address, MAP + level - 1, ino, i)
                    raw = self._block(MAP + level - 1, block)
                    if struct.unpack_from("<II", raw, 16) != (ino, i):
                        raise self._wrong(block, f"no node {i} of inode {ino}")
                    todo.append((level - 1, i * FAN, struct.unpack_from("<504Q", raw, 64)))

    # -- inodes

    def _inode(self, ino: int, address: int) -> None:
        block = self._claim(address, INODES, 0, 0)
        raw = self._block(INODES, block)
        r, middle, end = self._record(block, raw, address >> 34 & 255)
        if r.ino != ino:
            raise self._wrong(block, f"the map takes inode {r.ino} for {ino}")
        node = self.inodes[ino] = Inode(
            *(ino, r.mode, r.uid, r.gid, r.nlink, r.size, r.mtime, r.generation),
            (r.major, r.minor),
        )
        node.xattrs = records(self.disk, block, raw[middle - r.inside : middle])
        if r.xattr:
            node.xattrs = self._attributes(ino, r.xattr)
        content = raw[end - r.content : end]
        tops = struct.unpack_from(f"<{r.tops}Q", raw, middle)
        if stat.S_ISDIR(r.mode):
            self._parents[ino] = r.parent
            if r.flags & INLINE:
                self._names(node, block, content)
            else:
                self._leaves(node, r, tops)
            if len(node.entries) != r.entries:
                self.disk.find("lfs", block, f"{r.entries} entries in {ino}: {len(node.entries)}")
        elif r.flags & INLINE:
            self._inline(node, block, content)
        else:
            self._data(node, r.depth, tops)
        if node.owned != r.blocks:
            self.disk.find("lfs", block, f"inode {ino} says {r.blocks} blocks, has {node.owned}")

    def _record(self, block: int, raw: bytes, index: int) -> tuple[Record, int, int]:
        """(a record, where its addresses begin, its end). Raises Damaged."""
        offsets = _offsets(raw)
        if index >= len(offsets) or offsets[index] > BLOCK - _RECORD.size:
            raise self._wrong(block, f"there is no record {index}")
        r = Record(*_RECORD.unpack_from(raw, offsets[index]))
        middle = offsets[index] + _RECORD.size + r.inside
        end = middle + 8 * r.tops + r.content
        if end > BLOCK or r.depth > 3 or r.tops > TOPS or r.bits > 32:
            raise self._wrong(block, f"the record of inode {r.ino} is not sane")
        return r, middle, end

    def _attributes(self, ino: int, address: int) -> dict[bytes, bytes]:
        block = self._claim(address, XATTR, ino, 0)
        raw = self._block(XATTR, block)
        owner, size = struct.unpack_from("<II", raw, 16)
        if owner != ino or size > BLOCK - 64:
            raise self._wrong(block, f"{size} bytes of attributes of inode {owner}, not {ino}")
        return records(self.disk, block, raw[64 : 64 + size])

    def _inline(self, node: Inode, block: int, content: bytes) -> None:
        if node.size != len(content):
            self.disk.find("lfs", block, f"inode {node.ino} of {node.size} bytes: {len(content)}")
        if stat.S_ISLNK(node.mode):
            node.target = content
        elif content:
            node.data[0] = content.ljust(BLOCK, b"\0")

    def _data(self, node: Inode, depth: int, tops: tuple[int, ...]) -> None:
        for i, address in self._values(node.ino, depth, tops):
            node.owned += 1
            if address == PROMISED:
                node.unwritten.add(i)
                continue
            raw = self.disk.block(self._claim(address, DATA, node.ino, i))
            node.data[i] = raw
            if raw[max(0, node.size - i * BLOCK) :].strip(b"\0"):
                self.disk.find("lfs", address & _AT, f"bytes past the end of inode {node.ino}")
        if stat.S_ISLNK(node.mode):
            node.target, node.data = node.content(), {}

    def _leaves(self, node: Inode, r: Record, tops: tuple[int, ...]) -> None:
        """Leaves cover all hashes, in order, and each name lies where its hash belongs."""
        covered = 0
        for number, address in self._values(node.ino, r.depth, tops):
            block = self._claim(address, NAMES, node.ino, number, 32 - r.bits)
            raw = self._block(NAMES, block)
            owner, low, bits, count, size = struct.unpack_from("<IIHHH", raw, 16)
            place = low >> 32 - r.bits, covered
            if owner != node.ino or bits > r.bits or place != (number, number):
                raise self._wrong(block, f"no leaf {number} of directory {node.ino}")
            node.owned += 1
            covered += 1 << r.bits - bits
            names = self._names(node, block, raw[32 : 32 + size])
            if any(name_hash(r.key, n) >> 64 - bits != low >> 32 - bits for n in names):
                self.disk.find("lfs", block, "a name that belongs in another leaf")
            if len(names) != count:
                self.disk.find("lfs", block, f"the leaf says {count} names, has {len(names)}")
        if covered != 1 << r.bits:
            self.disk.find("lfs", 0, f"leaves of {node.ino} cover {covered} of 2**{r.bits}")

    def _names(self, node: Inode, block: int, raw: bytes) -> list[bytes]:
        names, at = [], 0
        while at + 6 <= len(raw):
            child, kind, size = struct.unpack_from("<IBB", raw, at)
            name = raw[at + 6 : at + 6 + size]
            at += 6 + size
            if not name or at > len(raw) or b"/" in name or b"\0" in name or name in node.entries:
                raise self._wrong(block, f"a bad name {name!r} in directory {node.ino}")
            node.entries[name] = child
            self._types.append((node.ino, child, name, kind))
            names.append(name)
        return names

    # -- sums

    def _links(self) -> None:
        for parent, child, name, kind in self._types:
            node = self.inodes.get(child)
            if node is None:
                self.disk.find(
                    "lfs", 0, f"{name!r} in {parent} is inode {child}, which is not there"
                )
                continue
            node.names.append((parent, name))
            if kind != stat.S_IFMT(node.mode) >> 12:
                self.disk.find("lfs", 0, f"{name!r} in {parent} has type {kind}")
            if self._parents.get(child, parent) != parent:
                self.disk.find("lfs", 0, f"directory {child} says that it is not in {parent}")
        for ino, node in self.inodes.items():
            want = len(node.names)
            if want == 0 and ino != ROOT:
                self.disk.find("lfs", 0, f"inode {ino} has no name")
            if stat.S_ISDIR(node.mode):
                below = (self.inodes.get(child) for child in node.entries.values())
                want = 2 + sum(1 for each in below if each and stat.S_ISDIR(each.mode))
            if node.nlink != want:
                self.disk.find("R3", 0, f"inode {ino} has nlink {node.nlink}, names for {want}")


def _offsets(raw: bytes) -> tuple[int, ...]:
    (count,) = struct.unpack_from("<H", raw, 16)
    return struct.unpack_from(f"<{min(count, 64)}H", raw, 32)


@lru_cache(maxsize=1 << 12)
def _summary(block: int, raw: bytes) -> Summary:
    """The kernel's walk says whether each slot owns its own blocks."""
    serial, segment, after, done, first = struct.unpack_from("<QIIQQ", raw, 16)
    slots: list[tuple[int, int, int, int] | None] = [None] * SLOTS
    for i, (pointer, ino, place, flush) in enumerate(struct.iter_unpack("<QIIQ", raw[64:4096])):
        kind, count = pointer >> 56, pointer >> 48 & 255
        for k in range(min(count, SLOTS - i)):
            slots[i + k] = kind, ino, place + k, flush
    return Summary(serial, segment, after, done, first, tuple(slots))
