"""The kernel's structures on the disk: the one place that says where every byte of SPEC.md lies.

`construct` declares them (the authority; dump tools parse with it). What is parsed often has a
`struct.Struct` beside it; a property test holds the two together. Functions that take bytes from a
disk end in `_untrusted`, raise only CorruptionError, BadImage or VersionError, and bound all loops.

It does no I/O and keeps no state. Sizes of areas are in `geometry.py`; the superblock's two copies
are read and written in `superblock.py`; the log, the tables and the catalogues, declared here, are
worked on in `log.py`, `tables.py` and `entries.py`. It knows no format of any libFS.

Relies on: nothing but the bytes given. Guarantees: what `encode_*` makes, `decode_*` takes and
gives back unchanged.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import construct as c

from xnfs.disk.geometry import GROUP as GROUP
from xnfs.disk.geometry import LOG_ENTRIES as LOG_ENTRIES
from xnfs.disk.geometry import NUMBER_BLOCKS as NUMBER_BLOCKS
from xnfs.disk.geometry import Geometry as Geometry
from xnfs.disk.geometry import geometry as geometry
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.errors import BadImage, CorruptionError, Refused, VersionError

VERSION: Final = 3
MAGIC: Final = b"\x89XNFS\r\n\x1a"
LOG_MAGIC: Final = b"XNLOGDSC"
TYPE_MAGIC: Final = b"XTYP"

#: Feature flags that this version knows. An unknown incompat bit is refused.
KNOWN_INCOMPAT: Final = 0
KNOWN_RO_COMPAT: Final = 0
#: Generations and transactions are counted up from 0; no image lives to see this.
MAX_COUNTER: Final = (1 << 63) - 1
#: Superblock.state
CLEAN, DAMAGED = 1, 2

#: The kernel's own types; those of the file systems count up from FIRST_TYPE.
ROOTS_TYPE: Final = 1
FIRST_TYPE: Final = 16

LABEL: Final = 64
GROUP_BYTES: Final = GROUP // 8
COUNTS: Final = 252  # in one sector
VERSIONS: Final = 126
SECTORS: Final = BLOCK // SECTOR
STAMP_SIZE: Final = 16
TYPE_PAYLOAD: Final = 4064  # bytes of a type's record in one block
SLOTS: Final = 31
SLOT_SIZE: Final = 128
SLOTS_AT: Final = 128

# Bounds of a TypeSpec. `blocktype` refuses more; the decoder must bound its loops by itself.
MAX_NAME: Final = 64
MAX_REFS: Final = 64
MAX_GROUPS: Final = 64
MAX_SOURCE: Final = 16 * 1024
MAX_TYPE_PARTS: Final = 16
NO_STAMP: Final = 0xFFFF_FFFF

# --- declarations: the authority ------------------------------------------------------------

SuperblockLayout: Any = c.Struct(  # offset
    "magic" / c.Bytes(8),  # 0
    "version" / c.Int32ul,  # 8
    "block_size" / c.Int32ul,  # 12
    "uuid" / c.Bytes(16),  # 16
    "label" / c.Bytes(LABEL),  # 32
    "blocks" / c.Int64ul,  # 96
    "compat" / c.Int32ul,  # 104
    "ro_compat" / c.Int32ul,  # 108
    "incompat" / c.Int32ul,  # 112
    "state" / c.Int32ul,  # 116
    "log_start" / c.Int64ul,  # 120
    "log_blocks" / c.Int64ul,  # 128
    "map_start" / c.Int64ul,  # 136
    "map_blocks" / c.Int64ul,  # 144
    "refs_start" / c.Int64ul,  # 152
    "refs_blocks" / c.Int64ul,  # 160
    "types_start" / c.Int64ul,  # 168
    "types_blocks" / c.Int64ul,  # 176
    "roots_start" / c.Int64ul,  # 184
    "roots_blocks" / c.Int64ul,  # 192
    "data_start" / c.Int64ul,  # 200
    "created" / c.Int64ul,  # 208
    "generation" / c.Int64ul,  # 216
    "seq" / c.Int64ul,  # 224
    "types_used" / c.Int32ul,  # 232
    "zero" / c.Bytes(272),  # 236
    "crc" / c.Int32ul,  # 508
)

MapSectorLayout: Any = c.Struct(
    "bits" / c.Bytes(GROUP_BYTES),  # 0
    "flags" / c.Int8ul,  # 504
    "version" / c.Int24ul,  # 505: of the block, in its first sector; else 0
    "crc" / c.Int32ul,  # 508
)

RefsSectorLayout: Any = c.Struct(
    "counts" / c.Array(COUNTS, c.Int16ul),  # 0
    "version" / c.Int32ul,  # 504: of the block, in its first sector; else 0
    "crc" / c.Int32ul,  # 508
)

VersionsSectorLayout: Any = c.Struct(
    "versions" / c.Array(VERSIONS, c.Int32ul),  # 0
    "zero" / c.Int32ul,  # 504
    "crc" / c.Int32ul,  # 508
)

StampLayout: Any = c.Struct(
    "crc" / c.Int32ul,  # 0
    "type" / c.Int32ul,  # 4
    "seq" / c.Int64ul,  # 8
)

LogEntryLayout: Any = c.Struct(
    "block" / c.Int64ul,  # 0
    "type" / c.Int32ul,  # 8
    "digest" / c.Int32ul,  # 12
)

DescriptorLayout: Any = c.Struct(
    "magic" / c.Bytes(8),  # 0
    "seq" / c.Int64ul,  # 8
    "images" / c.Int32ul,  # 16
    "listed" / c.Int32ul,  # 20
    "versions" / c.Int32ul,  # 24
    "count" / c.Int32ul,  # 28
    "entries" / c.Array(LOG_ENTRIES, LogEntryLayout),  # 32
    "pad" / c.Bytes(60),  # 4032
    "crc" / c.Int32ul,  # 4092
)

TypeBlockLayout: Any = c.Struct(
    "crc" / c.Int32ul,  # 0
    "magic" / c.Bytes(4),  # 4
    "number" / c.Int32ul,  # 8
    "part" / c.Int16ul,  # 12
    "parts" / c.Int16ul,  # 14
    "length" / c.Int32ul,  # 16
    "zero" / c.Bytes(12),  # 20
    "payload" / c.Bytes(TYPE_PAYLOAD),  # 32
)

TypeSpecLayout: Any = c.Struct(
    "name_length" / c.Int16ul,  # 0
    "nrefs" / c.Int16ul,  # 2
    "ngroups" / c.Int16ul,  # 4
    "zero" / c.Int16ul,  # 6
    "flags" / c.Int32ul,  # 8
    "raw_lo" / c.Int16ul,  # 12
    "raw_hi" / c.Int16ul,  # 14
    "stamp" / c.Int32ul,  # 16
    "owns_length" / c.Int32ul,  # 20
    "acl_length" / c.Int32ul,  # 24
    "size_length" / c.Int32ul,  # 28
    "groups" / c.Array(c.this.ngroups, c.Array(4, c.Int32ul)),  # 32
    "name" / c.Bytes(c.this.name_length),
    "refs" / c.Array(c.this.nrefs, c.Prefixed(c.Int16ul, c.GreedyBytes)),
    "owns" / c.Bytes(c.this.owns_length),
    "acl" / c.Bytes(c.this.acl_length),
    "size" / c.Bytes(c.this.size_length),
    c.Terminated,
)

RootSlotLayout: Any = c.Struct(
    "name" / c.Bytes(64),  # 0
    "block" / c.Int64ul,  # 64
    "type" / c.Int32ul,  # 72
    "flags" / c.Int32ul,  # 76
    "created" / c.Int64ul,  # 80
    "zero" / c.Bytes(40),  # 88
)

# --- the same, compiled ---------------------------------------------------------------------

SUPERBLOCK: Final = struct.Struct(
    "<8s"  # 0 magic
    "II"  # 8 version, block_size
    "16s64s"  # 16 uuid, label
    "Q"  # 96 blocks
    "IIII"  # 104 compat, ro_compat, incompat, state
    "10Q"  # 120 start and length of log, map, refs, types, roots
    "QQQQ"  # 200 data_start, created, generation, seq
    "I"  # 232 types_used
)
STAMP: Final = struct.Struct("<IIQ")  # crc, type, seq
DESCRIPTOR: Final = struct.Struct("<8sQIIII")  # magic, seq, images, listed, versions, count
LOG_ENTRY: Final = struct.Struct("<QII")  # block, type, digest
TYPE_BLOCK: Final = struct.Struct("<I4sIHHI12x")  # crc, magic, number, part, parts, length
#: name length, references, groups, zero, flags, raw lo and hi, stamp, lengths of owns, acl, size
TYPE_SPEC: Final = struct.Struct("<HHHHIHHIIII")
PART_GROUP: Final = struct.Struct("<IIII")  # base, stride, length, count
ROOT_SLOT: Final = struct.Struct("<64sQIIQ40x")  # name, block, type, flags, created
U16: Final = struct.Struct("<H")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")

_TYPE_SEQ: Final = struct.Struct("<IQ")
_SECTOR_KEY: Final = struct.Struct("<QB")

View = bytes | bytearray | memoryview


# --- checksums ------------------------------------------------------------------------------


class Seed:
    """CRC-32 seeded with the image's UUID: sees misdirected writes and blocks of other images.

    It finds accidents, not forgeries: nobody but the kernel can write a stamp, and who can
    write the device itself can compute any checksum.
    """

    __slots__ = ("_base", "uuid")

    def __init__(self, uuid: bytes) -> None:
        if len(uuid) != 16:
            raise ValueError("a UUID has 16 bytes")
        self.uuid = uuid
        self._base = zlib.crc32(uuid)

    def block(self, bno: int) -> int:
        """The running CRC after UUID and block number: feed it to `zlib.crc32`."""
        return zlib.crc32(U64.pack(bno), self._base)

    def sector(self, bno: int, index: int) -> int:
        """The running CRC after UUID, block number and the sector's index in the block."""
        return zlib.crc32(_SECTOR_KEY.pack(bno, index), self._base)

    def crc(self, bno: int, *parts: View) -> int:
        """`crc(bno, bytes)` of SPEC.md over the parts, one after the other."""
        value = zlib.crc32(U64.pack(bno), self._base)
        for part in parts:
            value = zlib.crc32(part, value)
        return value

    def digest(self, bno: int, block: View) -> int:
        """What the log knows a block by: `digest(bno, bytes)` of SPEC.md.

        Not a CRC: over bytes that end in their own CRC, as sectors of tables and many formats of
        data do, that is the same whatever they are.
        """
        value = hashlib.blake2b(U64.pack(bno), digest_size=4, key=self.uuid)
        value.update(block)
        return int.from_bytes(value.digest(), "little")


def crc(uuid: bytes, bno: int, *parts: View) -> int:
    """`crc(bno, bytes)` of SPEC.md for an image with this UUID."""
    return Seed(uuid).crc(bno, *parts)


def stamp_block(
    seed: Seed, bno: int, view: bytearray | memoryview, offset: int, type_no: int, seq: int
) -> None:
    """Write the stamp into a block that is about to go to the disk at `bno`."""
    _TYPE_SEQ.pack_into(view, offset + 4, type_no, seq)
    U32.pack_into(view, offset, _stamp_crc(seed, bno, view, offset))


def check_stamp_untrusted(seed: Seed, bno: int, view: View, offset: int, type_no: int) -> int:
    """The number of the transaction that wrote this block. Raises CorruptionError."""
    got, kind, seq = STAMP.unpack_from(view, offset)
    want = _stamp_crc(seed, bno, view, offset)
    if got != want:
        raise CorruptionError(bno, "checksum", f"{got:#010x}", f"{want:#010x}")
    if kind != type_no:
        raise CorruptionError(bno, "type", kind, type_no)
    return int(seq)


def _stamp_crc(seed: Seed, bno: int, view: View, offset: int) -> int:
    value = seed.block(bno)
    if offset:
        value = zlib.crc32(view[:offset], value)
    return zlib.crc32(view[offset + 4 :], value)


# --- superblock -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Superblock:
    """The fields of the superblock. `geometry` holds all starts and lengths."""

    uuid: bytes
    label: str
    geometry: Geometry
    created: int = 0
    generation: int = 1
    seq: int = 0
    types_used: int = 0  # blocks of the type catalogue, at least
    state: int = CLEAN
    compat: int = 0
    ro_compat: int = 0
    incompat: int = 0

    @property
    def must_be_readonly(self) -> bool:
        """True if a feature is in use that this version can read around but must not write."""
        return bool(self.ro_compat & ~KNOWN_RO_COMPAT)


def encode_superblock(sb: Superblock) -> bytes:
    """The 512 bytes of the superblock's sector, the same for both copies. Refused: label."""
    label, g = sb.label.encode(), sb.geometry
    if len(label) > LABEL or b"\0" in label:
        raise Refused(f"label {sb.label!r}: at most {LABEL} bytes of UTF-8, without NUL")
    head = SUPERBLOCK.pack(
        *(MAGIC, VERSION, BLOCK, sb.uuid, label, g.blocks),
        *(sb.compat, sb.ro_compat, sb.incompat, sb.state),
        *g.areas(),
        *(sb.created, sb.generation, sb.seq, sb.types_used),
    )
    body = head.ljust(SECTOR - 4, b"\0")
    return body + U32.pack(crc(sb.uuid, 0, body))


def decode_superblock_untrusted(raw: View) -> Superblock:
    """Check and decode a superblock. Raises BadImage, VersionError.

    Magic, UUID and checksum keep their places in all versions to come, so a newer version is told
    from a damaged number.
    """
    sector = bytes(raw[:SECTOR])
    if len(sector) != SECTOR or sector[:8] != MAGIC:
        raise BadImage("no superblock of xnfs")
    fields = SUPERBLOCK.unpack_from(sector)
    (_, version, size, uuid, label, blocks, compat, ro_compat, incompat, state, *areas) = fields
    if U32.unpack_from(sector, SECTOR - 4)[0] != crc(uuid, 0, sector[: SECTOR - 4]):
        raise BadImage("the superblock's checksum is wrong")
    if version != VERSION:
        age = "newer" if version > VERSION else "older"
        raise VersionError(f"format version {version} is {age} than this program's ({VERSION})")
    if incompat & ~KNOWN_INCOMPAT:
        raise VersionError(f"unknown incompatible features {incompat & ~KNOWN_INCOMPAT:#x}")
    if size != BLOCK:
        raise BadImage(f"superblock: block size {size}")
    layout = _geometry_untrusted(blocks, areas)
    created, generation, seq, types_used = areas[11:]
    if max(generation, seq) > MAX_COUNTER:
        raise BadImage(f"superblock: generation {generation}, transaction {seq}: out of range")
    if types_used > layout.types_blocks:
        raise BadImage(f"superblock: {types_used} blocks of types are more than there are")
    name = text_untrusted(label)
    if name is None:
        raise BadImage("superblock: the label is not UTF-8")
    return Superblock(
        *(uuid, name, layout, created, generation, seq, types_used),
        *(state, compat, ro_compat, incompat),
    )


def _geometry_untrusted(blocks: int, areas: Sequence[int]) -> Geometry:
    """Sizes are believed only if they give exactly the starts that stand beside them."""
    try:
        layout = geometry(blocks, areas[1], areas[7], areas[9])
    except Refused as e:
        raise BadImage(f"superblock: {e}") from None
    if layout.areas() != tuple(areas[:11]):
        raise BadImage("superblock: the areas do not lie where they must")
    return layout


def text_untrusted(raw: bytes) -> str | None:
    """Zero-padded UTF-8, or None if it is not that."""
    text = raw.rstrip(b"\0")
    try:
        return None if b"\0" in text else text.decode()
    except UnicodeDecodeError:
        return None
