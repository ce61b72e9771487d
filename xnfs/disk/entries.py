"""Entries of the two catalogues, type records and root slots, to and from bytes.

Their layout is declared in `layout.py`; which entries there are, and when they are written, is not
decided here. Decoders take any bytes at all: they raise only CorruptionError, and no loop runs
longer than the constants of `layout.py` say.

Guarantees: what `encode_*` makes, `decode_*` gives back unchanged; encoders refuse (Refused)
what the decoders would not take.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from xnfs.disk.layout import (
    MAX_GROUPS,
    MAX_NAME,
    MAX_REFS,
    MAX_SOURCE,
    MAX_TYPE_PARTS,
    NO_STAMP,
    PART_GROUP,
    ROOT_SLOT,
    SLOT_SIZE,
    SLOTS,
    SLOTS_AT,
    TYPE_BLOCK,
    TYPE_MAGIC,
    TYPE_PAYLOAD,
    TYPE_SPEC,
    U16,
    U32,
    Seed,
    View,
    text_untrusted,
)
from xnfs.disk.records import BLOCK, TypeSpec
from xnfs.errors import CorruptionError, Refused

ZERO: Final = bytes(BLOCK)

# --- type catalogue -------------------------------------------------------------------------


def _check_crc(bno: int, got: int, want: int) -> None:
    if got != want:
        raise CorruptionError(bno, "checksum", f"{got:#010x}", f"{want:#010x}")


@dataclass(frozen=True, slots=True)
class TypeBlock:
    """One block of a type's record: piece `part` of `parts`."""

    number: int
    part: int
    parts: int
    payload: bytes


def encode_type_record(seed: Seed, first: int, number: int, spec: TypeSpec) -> list[bytes]:
    """The blocks of a type's record, for consecutive catalogue blocks from `first` on."""
    payload = encode_spec(spec)
    pieces = [payload[i : i + TYPE_PAYLOAD] for i in range(0, len(payload), TYPE_PAYLOAD)]
    out = []
    for part, piece in enumerate(pieces):
        head = TYPE_BLOCK.pack(0, TYPE_MAGIC, number, part, len(pieces), len(piece))
        body = (head + piece).ljust(BLOCK, b"\0")[4:]
        out.append(U32.pack(seed.crc(first + part, body)) + body)
    return out


def decode_type_block_untrusted(seed: Seed, bno: int, raw: View) -> TypeBlock | None:
    """Decode catalogue block `bno`; None if it was never written. Raises CorruptionError."""
    got, magic, number, part, parts, length = TYPE_BLOCK.unpack_from(raw)
    if got == 0 and bytes(raw) == ZERO:
        return None
    _check_crc(bno, got, seed.crc(bno, raw[4:BLOCK]))
    if magic != TYPE_MAGIC:
        raise CorruptionError(bno, "type magic", bytes(magic), TYPE_MAGIC)
    if not part < parts <= MAX_TYPE_PARTS:
        raise CorruptionError(bno, "type part", (part, parts), f"at most {MAX_TYPE_PARTS}")
    if length > TYPE_PAYLOAD or (part + 1 < parts and length != TYPE_PAYLOAD):
        raise CorruptionError(bno, "type payload", length, TYPE_PAYLOAD)
    at = TYPE_BLOCK.size
    return TypeBlock(number, part, parts, bytes(raw[at : at + length]))


def encode_spec(spec: TypeSpec) -> bytes:
    """The payload of a type's record. Raises Refused if it breaks a bound of the format."""
    name, refs = spec.name.encode(), [ref.encode() for ref in spec.refs]
    sources = [source.encode() for source in (spec.owns, spec.acl, spec.size)]
    if not all(1 <= len(text) <= MAX_NAME for text in (name, *refs)):
        raise Refused(f"type {spec.name!r}: names have 1 to {MAX_NAME} bytes")
    if len(refs) > MAX_REFS or len(spec.parts) > MAX_GROUPS:
        raise Refused(f"type {spec.name}: too many references or groups of partitions")
    if any(len(source) > MAX_SOURCE for source in sources):
        raise Refused(f"type {spec.name}: a source is longer than {MAX_SOURCE} bytes")
    stamp = NO_STAMP if spec.stamp is None else spec.stamp
    try:
        head = TYPE_SPEC.pack(
            *(len(name), len(refs), len(spec.parts), 0, spec.flags, *spec.raw, stamp),
            *map(len, sources),
        )
        groups = [PART_GROUP.pack(*group) for group in spec.parts]
    except struct.error:
        raise Refused(f"type {spec.name}: a number is out of range") from None
    named = [U16.pack(len(ref)) + ref for ref in refs]
    return b"".join([head, *groups, name, *named, *sources])


class _Reader:
    """Takes pieces off untrusted bytes; every piece is inside them or CorruptionError."""

    def __init__(self, bno: int, raw: bytes) -> None:
        self._bno, self._raw, self._at = bno, raw, 0

    def take(self, count: int, field: str, limit: int) -> bytes:
        end = self._at + count
        if count > limit or end > len(self._raw):
            raise self.bad(field, f"{count} bytes", f"at most {limit}, inside the record")
        piece = self._raw[self._at : end]
        self._at = end
        return piece

    def text(self, count: int, field: str, limit: int) -> str:
        piece = self.take(count, field, limit)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            raise self.bad(field, piece[:20], "UTF-8") from None

    def name(self, count: int, field: str) -> str:
        if not count:
            raise self.bad(field, "empty", "a name")
        return self.text(count, field, MAX_NAME)

    def end(self) -> None:
        if self._at != len(self._raw):
            raise self.bad("type record", f"{len(self._raw)} bytes", self._at)

    def bad(self, field: str, got: object, want: object) -> CorruptionError:
        return CorruptionError(self._bno, field, got, want)


def decode_spec_untrusted(bno: int, payload: bytes) -> TypeSpec:
    """Decode a record's payload, joined from its blocks; `bno` only names it in errors.

    Checks the format alone: whether the type is sound is for `BlockType`, which proves it again.
    """
    reader = _Reader(bno, payload)
    head = reader.take(TYPE_SPEC.size, "type record", TYPE_SPEC.size)
    nname, nrefs, ngroups, _, flags, lo, hi, stamp, *lengths = TYPE_SPEC.unpack(head)
    if nrefs > MAX_REFS:
        raise reader.bad("type references", nrefs, f"at most {MAX_REFS}")
    groups = reader.take(ngroups * PART_GROUP.size, "partitions", MAX_GROUPS * PART_GROUP.size)
    parts = tuple(PART_GROUP.iter_unpack(groups))
    name = reader.name(nname, "type name")
    refs = []
    for _index in range(nrefs):
        (length,) = U16.unpack(reader.take(2, "reference", 2))
        refs.append(reader.name(length, "reference"))
    owns, acl, size = (reader.text(length, "source", MAX_SOURCE) for length in lengths)
    reader.end()
    return TypeSpec(
        *(name, owns, acl, size, parts, (lo, hi)),
        *(None if stamp == NO_STAMP else stamp, tuple(refs), flags),
    )


# --- root catalogue -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RootSlot:
    """One slot of a root block: a name for (type, block)."""

    name: str
    block: int
    type: int
    flags: int = 0
    created: int = 0


def slot_offset(index: int) -> int:
    """Where slot `index` of a root block lies."""
    return SLOTS_AT + index * SLOT_SIZE


def encode_slot(slot: RootSlot) -> bytes:
    """The 128 bytes of a slot in use. Raises Refused for a name that can't be stored."""
    name = slot.name.encode()
    if not 1 <= len(name) <= MAX_NAME or b"\0" in name or slot.block <= 0:
        raise Refused(f"root name {slot.name!r}: 1 to {MAX_NAME} bytes of UTF-8, without NUL")
    try:
        return ROOT_SLOT.pack(name, slot.block, slot.type, slot.flags, slot.created)
    except struct.error:
        raise Refused(f"root {slot.name!r}: a number is out of range") from None


def decode_slots_untrusted(bno: int, raw: View) -> list[RootSlot | None]:
    """The slots of root block `bno`; None for one that is free. Raises CorruptionError."""
    area = raw[SLOTS_AT : SLOTS_AT + SLOTS * SLOT_SIZE]
    return [
        _slot_untrusted(bno, index, fields) if fields[1] else None
        for index, fields in enumerate(ROOT_SLOT.iter_unpack(area))
    ]


def _slot_untrusted(bno: int, index: int, fields: tuple[bytes, int, int, int, int]) -> RootSlot:
    name, block, kind, flags, created = fields
    text = text_untrusted(name)
    if not text:
        raise CorruptionError(bno, f"name of root slot {index}", bytes(name[:20]), "UTF-8")
    return RootSlot(text, block, kind, flags, created)
