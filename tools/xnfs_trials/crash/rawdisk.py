"""The kernel's own structures, read from the bytes of an image alone.

Written from SPEC.md and from nothing else: it imports only the standard library, so that a mistake
in `xnfs` can't hide in it. It parses the superblock, the free map, the reference counts and
versions, the names of the types and the log, and does on the bytes what recovery at mount must do.
What lies below the roots is `checker.py`'s.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, MutableMapping
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain

BLOCK = 4096
SECTOR = 512
ZERO = bytes(BLOCK)
MAP_BITS = 4032
REF_ENTRIES, VERSION_ENTRIES = 252, 126
MAGIC = b"\x89XNFS\r\n\x1a"
LOG_MAGIC = b"XNLOGDSC"
TYPE_MAGIC = b"XTYP"
LOG_ENTRIES = 250
NO_STAMP = 0xFFFFFFFF

_STAMP = struct.Struct("<IIQ")


@dataclass(frozen=True)
class Finding:
    """One violation: the rule (R1..R5, or the name of a structure), the block, and what is
    wrong."""

    rule: str
    block: int
    text: str


class Unreadable(Exception):
    """No copy of the superblock is whole: there is nothing to check."""


@dataclass(frozen=True)
class Super:
    """The fields of the superblock that the checker needs."""

    uuid: bytes
    blocks: int
    state: int
    log: tuple[int, int]
    map: tuple[int, int]
    refs: tuple[int, int]
    types: tuple[int, int]
    roots: tuple[int, int]
    data_start: int
    generation: int
    seq: int


@dataclass(frozen=True)
class LogHalf:
    """A complete transaction: (block, type, image), (block, digest) of what it relies on, and
    newest versions of other blocks."""

    seq: int
    images: list[tuple[int, int, bytes]]
    listed: list[tuple[int, int]]
    versions: dict[int, int]


def split(image: bytes | bytearray) -> dict[int, bytes]:
    """An image as blocks; those that are zero are left out."""
    view = memoryview(image)
    pieces = (bytes(view[at : at + BLOCK]) for at in range(0, len(image), BLOCK))
    return {bno: piece for bno, piece in enumerate(pieces) if any(piece)}


def read_super(image: Mapping[int, bytes], blocks: int) -> Super:
    """The newer whole copy of the superblock; the second copy lies in the last block."""
    copies = (_super(image.get(at, ZERO)) for at in (0, blocks - 1))
    found = [copy for copy in copies if copy is not None]
    if not found:
        raise Unreadable("no whole superblock")
    return max(found, key=lambda s: s.generation)


@lru_cache(maxsize=256)
def _super(raw: bytes) -> Super | None:
    """A copy of the superblock; None if it is not whole."""
    uuid = raw[16:32]
    want = zlib.crc32(raw[:508], zlib.crc32(uuid + bytes(8)))
    if raw[:8] != MAGIC or struct.unpack_from("<I", raw, 508)[0] != want:
        return None
    q = struct.unpack_from("<14Q", raw, 120)
    return Super(
        uuid=uuid,
        blocks=struct.unpack_from("<Q", raw, 96)[0],
        state=struct.unpack_from("<I", raw, 116)[0],
        log=(q[0], q[1]),
        map=(q[2], q[3]),
        refs=(q[4], q[5]),
        types=(q[6], q[7]),
        roots=(q[8], q[9]),
        data_start=q[10],
        generation=q[12],
        seq=q[13],
    )


class RawDisk:
    """An image as bytes, with the tables of the kernel parsed on demand. Findings are collected,
    not raised."""

    def __init__(self, image: Mapping[int, bytes], blocks: int) -> None:
        self.image = copy(image) if isinstance(image, MutableMapping) else dict(image)
        self.findings: list[Finding] = []
        self.super = read_super(self.image, blocks)
        self._seed = zlib.crc32(self.super.uuid)
        self._map: dict[int, tuple[int, int]] = {}
        self._numbers: dict[tuple[int, int], tuple[int, ...]] = {}
        self._newest: dict[int, int] = {}  # versions that only the log has
        self._catalogue: list[tuple[int, bytes, int | None]] | None = None

    def find(self, rule: str, block: int, text: str) -> None:
        """Record a violation."""
        self.findings.append(Finding(rule, block, text))

    def block(self, bno: int) -> bytes:
        """The bytes of one block."""
        return self.image.get(bno, ZERO)

    def crc(self, bno: int, data: bytes) -> int:
        """`crc(bno, bytes)` of SPEC.md."""
        return zlib.crc32(data, zlib.crc32(bno.to_bytes(8, "little"), self._seed))

    def digest(self, bno: int, data: bytes) -> int:
        """`digest(bno, bytes)` of SPEC.md."""
        return _digest(self.super.uuid, bno, data)

    # -- stamps

    def stamp(self, data: bytes, off: int = 0) -> tuple[int, int, int]:
        """(crc, type, seq)"""
        crc, kind, seq = _STAMP.unpack_from(data, off)
        return crc, kind, seq

    def stamp_ok(self, bno: int, data: bytes, off: int = 0) -> bool:
        """Is the checksum of a stamped block right?"""
        return _stamp_ok(self._seed, bno, data, off)

    def check_age(self, bno: int, data: bytes, off: int = 0) -> None:
        """A stamped block must not be older than the newest version that is known. (No trial makes
        2**32 transactions.)"""
        seq, newest = self.stamp(data, off)[2], self.version(bno)
        if seq & 0xFFFFFFFF < newest:
            self.find("version", bno, f"stamped {seq}, there is a version {newest}")

    # -- log

    def _images_per_half(self) -> tuple[int, int]:
        """(descriptor blocks, images) of one half: the largest number of images that fits."""
        half = self.super.log[1] // 2
        images = half
        while images and images + -(-images // LOG_ENTRIES) > half:
            images -= 1
        return -(-images // LOG_ENTRIES), images

    def _read_half(self, start: int, parity: int) -> LogHalf | None:
        """A half of the log, or None where it isn't complete."""
        descriptors, room = self._images_per_half()
        head = struct.unpack_from("<8sQIII", self.block(start), 0)
        magic, seq, images, listed, versions = head
        if magic != LOG_MAGIC or not 0 < images <= room or seq % 2 != parity:
            return None
        total = images + listed + versions
        needed = -(-total // LOG_ENTRIES)
        if needed > descriptors:
            return None
        entries: list[tuple[int, int, int]] = []
        for j in range(needed):
            raw = self.block(start + j)
            (crc,) = struct.unpack_from("<I", raw, 4092)
            here = min(LOG_ENTRIES, total - j * LOG_ENTRIES)
            want = struct.pack("<8sQIIII", *head, here)
            if crc != self.crc(start + j, raw[:4092]) or raw[:32] != want:
                return None
            entries += struct.iter_unpack("<QII", raw[32 : 32 + 16 * here])
        bodies = [self.block(start + descriptors + k) for k in range(images)]
        if any(self.digest(e[0], body) != e[2] for e, body in zip(entries, bodies, strict=False)):
            return None
        named = [(e[0], e[1], body) for e, body in zip(entries, bodies, strict=False)]
        behind = entries[images:]
        relied = [(bno, want) for bno, _kind, want in behind[:listed]]
        return LogHalf(
            seq, named, relied, {b: low | high << 32 for b, low, high in behind[listed:]}
        )

    def log_halves(self) -> list[LogHalf]:
        """The newest complete transaction of the log, and the one just before it. What the
        superblock says is in place does not count.
        """
        start, length = self.super.log
        halves = [self._read_half(start + i * (length // 2), i) for i in (0, 1)]
        whole = sorted(
            (h for h in halves if h is not None and h.seq > self.super.seq), key=lambda h: h.seq
        )
        return [h for h in whole if h.seq >= whole[-1].seq - 1][::-1]

    def recover(self) -> list[int]:
        """Do what mount must do with the log. Returns the blocks written (empty: nothing to do)."""
        halves = self.log_halves()
        for half in halves:
            named = (i[0] for i in half.images), (x[0] for x in half.listed), half.versions
            for bno in chain(*named):
                if not self.in_data(bno) and not self._is_kernel_block(bno):
                    self.find("log", bno, "the log names a block that no transaction may write")
                    return []
        while halves:
            if self._happened(halves[0]):
                own = (bno for bno, kind, _ in halves[0].images if kind or self._is_versioned(bno))
                self._newest = halves[0].versions | dict.fromkeys(own, halves[0].seq)
                return self._redo(halves)
            halves = halves[1:]  # it never happened: what counts is the one before
        return []

    def _placed(self, half: LogHalf) -> list[bool]:
        """For each stamped image: is it in place?"""
        stamps = self.stamp_offsets()
        return [self.block(bno) == image for bno, kind, image in half.images if kind in stamps]

    def _happened(self, half: LogHalf) -> bool:
        """Whether all blocks listed are as listed, or some stamped image has reached its place."""
        if any(self._placed(half)) or self._overtaken(half):
            return True
        return all(self.digest(bno, self.block(bno)) == want for bno, want in half.listed)

    def _overtaken(self, half: LogHalf) -> bool:
        """Whether a later transaction, which the log has lost, stands in place of an image."""
        stamps = self.stamp_offsets()
        for bno, kind, _ in half.images:
            data, off = self.block(bno), stamps.get(kind)
            whole = off is not None and self.stamp_ok(bno, data, off)
            if whole and self.stamp(data, off or 0)[2] > half.seq:
                return True
        return False

    def _redo(self, halves: list[LogHalf]) -> list[int]:
        """Put the images of the newest transaction in place, after those of the one before."""
        newest = halves[0]
        complete = all(self.block(bno) == image for bno, _, image in newest.images)
        if self._overtaken(newest) or (complete and self._placed(newest)):
            return []
        wanted = {bno: image for half in halves[::-1] for bno, _, image in half.images}
        written = {bno: image for bno, image in wanted.items() if self.block(bno) != image}
        self.image.update(written)
        return list(written)

    def in_data(self, bno: int) -> bool:
        """Does the block lie in the data area?"""
        return self.super.data_start <= bno < self.super.blocks - 1

    def _is_kernel_block(self, bno: int) -> bool:
        """A block of the tables or of the root catalogue."""
        areas = (self.super.map, self.super.refs, self.super.roots)
        return any(start <= bno < start + count for start, count in areas)

    def _is_versioned(self, bno: int) -> bool:
        """A block of the map or of reference counts."""
        (free, size), (refs, count) = self.super.map, self.super.refs
        return free <= bno < free + size or (refs <= bno < refs + count and (bno - refs) % 6 < 2)

    # -- free map and reference counts

    def check_tables(self) -> None:
        """No block of the map or of reference counts that is in use may be older than known."""
        (free, size), (refs, count) = self.super.map, self.super.refs
        for bno in range(free, free + size):
            seq = struct.unpack_from("<I", self.block(bno), 504)[0] >> 8
            self._check_table(bno, seq, self.version(bno) & 0xFFFFFF)
        for bno in range(refs, refs + count):
            group, which = divmod(bno - refs, 6)
            if which < 2 and self._map_sector(group)[1] >> which & 1:
                (seq,) = struct.unpack_from("<I", self.block(bno), 504)
                self._check_table(bno, seq, self.version(bno))

    def _check_table(self, bno: int, seq: int, newest: int) -> None:
        if seq < newest:
            self.find("version", bno, f"this table is of {seq}, there is a version {newest}")

    def _map_sector(self, group: int) -> tuple[int, int]:
        """(bits as an integer, flags)"""
        if group not in self._map:
            bno = self.super.map[0] + group // 8
            at = (group % 8) * SECTOR
            raw = self.block(bno)[at : at + SECTOR]
            if struct.unpack_from("<I", raw, 508)[0] != self.crc(
                bno, bytes([group % 8]) + raw[:508]
            ):
                self.find("map", bno, f"sector {group % 8} of the free map is damaged")
            flags = raw[504]
            self._map[group] = int.from_bytes(raw[:504], "little"), flags
        return self._map[group]

    def in_use(self, bno: int) -> bool:
        """The bit of the free map."""
        return bool(self._map_sector(bno // MAP_BITS)[0] >> (bno % MAP_BITS) & 1)

    def refs(self, bno: int) -> int:
        """The count of the reference table: 0 and 1 both mean "as the map says"."""
        return self._number(bno, 0, REF_ENTRIES, "reference counts")

    def version(self, bno: int) -> int:
        """The newest version of a stamped block that is known; `recover` comes first."""
        return self._newest.get(bno, self._number(bno, 2, VERSION_ENTRIES, "versions"))

    def _number(self, bno: int, first: int, each: int, what: str) -> int:
        """A number from the blocks of its group from `first` on, `each` to a sector."""
        group, inside = divmod(bno, MAP_BITS)
        sector, entry = divmod(inside, each)
        at = 6 * group + first + sector // 8, sector % 8
        if at not in self._numbers:
            self._numbers[at] = self._number_sector(*at, each, what)
        return self._numbers[at][entry]

    def _number_sector(self, block: int, index: int, each: int, what: str) -> tuple[int, ...]:
        bno = self.super.refs[0] + block
        raw = self.block(bno)[index * SECTOR : (index + 1) * SECTOR]
        if not self._map_sector(block // 6)[1] >> block % 6 & 1:
            return (0,) * each  # not in use: whatever stands there counts nothing
        if struct.unpack_from("<I", raw, 508)[0] != self.crc(bno, bytes([index]) + raw[:508]):
            self.find("refs", bno, f"sector {index} of the {what} is damaged")
        return struct.unpack_from("<252H" if each == REF_ENTRIES else "<126I", raw, 0)

    # -- types

    def type_names(self) -> dict[int, bytes]:
        """number -> name, from the type catalogue."""
        return {number: name for number, name, _ in self._types()}

    def stamp_offsets(self) -> dict[int, int]:
        """number -> offset of the stamp, for the types that have one."""
        return {number: off for number, _, off in self._types() if off is not None} | {1: 0}

    def _types(self) -> list[tuple[int, bytes, int | None]]:
        """(number, name, stamp offset) of each record, to the first block that is no beginning of
        one."""
        if self._catalogue is None:
            start, count = self.super.types
            blocks = tuple(self.block(at) for at in range(start, start + count))
            self._catalogue = _read_catalogue(self._seed, start, blocks)
        return self._catalogue


@lru_cache(maxsize=1 << 12)
def _digest(uuid: bytes, bno: int, data: bytes) -> int:
    """Blocks are the same objects from state to state, so most digests are known."""
    value = blake2b(bno.to_bytes(8, "little") + data, digest_size=4, key=uuid)
    return int.from_bytes(value.digest(), "little")


@lru_cache(maxsize=1 << 13)
def _stamp_ok(seed: int, bno: int, data: bytes, off: int) -> bool:
    crc = zlib.crc32(data[:off], zlib.crc32(bno.to_bytes(8, "little"), seed))
    return int(_STAMP.unpack_from(data, off)[0]) == zlib.crc32(data[off + 4 :], crc)


@lru_cache(maxsize=64)
def _read_catalogue(
    seed: int, start: int, blocks: tuple[bytes, ...]
) -> list[tuple[int, bytes, int | None]]:
    """See `RawDisk._types`. The catalogue is the same in nearly every state of a trial."""
    out: list[tuple[int, bytes, int | None]] = []
    at = 0
    while at < len(blocks):
        raw = blocks[at]
        crc, magic, number, part, parts, _size = struct.unpack_from("<I4sIHHI", raw, 0)
        want = zlib.crc32(raw[4:], zlib.crc32((start + at).to_bytes(8, "little"), seed))
        if magic != TYPE_MAGIC or part or not parts or crc != want:
            break
        groups, stamp = struct.unpack_from("<H10xI", raw, 32 + 4)
        (length,) = struct.unpack_from("<H", raw, 32)
        name = raw[64 + 16 * groups : 64 + 16 * groups + length]
        out.append((number, name, None if stamp == NO_STAMP else stamp))
        at += parts
    return out
