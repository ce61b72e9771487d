"""Type records and root slots: round trips, agreement with construct, and hostile bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.disk import blocktype, entries, layout
from xnfs.disk.entries import RootSlot
from xnfs.disk.layout import Seed
from xnfs.disk.records import BLOCK, TypeSpec
from xnfs.errors import CorruptionError, Refused

SEED = Seed(bytes(range(16)))
u16s = st.integers(0, 2**16 - 1)
u32s = st.integers(0, 2**32 - 1)
names = st.text(min_size=1, max_size=16)
specs = st.builds(
    TypeSpec,
    name=names,
    owns=st.text(max_size=300),
    acl=st.text(max_size=300),
    size=st.text(max_size=300),
    parts=st.lists(st.tuples(u32s, u32s, u32s, u32s), max_size=6).map(tuple),
    raw=st.tuples(u16s, u16s),
    stamp=st.none() | st.integers(0, BLOCK),
    refs=st.lists(names, max_size=6).map(tuple),
    flags=u32s,
)


@given(spec=specs)
def test_spec_round_trip_agrees_with_construct(spec: TypeSpec) -> None:
    raw = entries.encode_spec(spec)
    assert entries.decode_spec_untrusted(1, raw) == spec
    parsed = layout.TypeSpecLayout.parse(raw)
    assert layout.TypeSpecLayout.build(parsed) == raw
    assert parsed.name.decode() == spec.name
    assert [ref.decode() for ref in parsed.refs] == list(spec.refs)
    assert [tuple(group) for group in parsed.groups] == list(spec.parts)
    assert (parsed.owns.decode(), parsed.acl.decode()) == (spec.owns, spec.acl)
    assert (parsed.raw_lo, parsed.raw_hi, parsed.flags) == (*spec.raw, spec.flags)


def _long() -> TypeSpec:
    return TypeSpec("long", owns="x" * 9000, stamp=0, refs=("other",))


def test_type_record_over_several_blocks() -> None:
    spec = _long()
    blocks = entries.encode_type_record(SEED, 40, 17, spec)
    assert [len(block) for block in blocks] == [BLOCK] * 3
    pieces = [
        entries.decode_type_block_untrusted(SEED, 40 + i, block) for i, block in enumerate(blocks)
    ]
    assert [(p.number, p.part, p.parts) for p in pieces if p] == [(17, i, 3) for i in range(3)]
    payload = b"".join(piece.payload for piece in pieces if piece)
    assert entries.decode_spec_untrusted(40, payload) == spec
    parsed = layout.TypeBlockLayout.parse(blocks[0])
    assert (parsed.magic, parsed.number, parsed.parts) == (layout.TYPE_MAGIC, 17, 3)
    assert parsed.crc == SEED.crc(40, blocks[0][4:])


def test_type_block_never_written_is_none() -> None:
    assert entries.decode_type_block_untrusted(SEED, 5, bytes(BLOCK)) is None


@given(at=st.integers(0, BLOCK - 1), bit=st.integers(0, 7))
def test_type_block_any_bit_flip_is_seen(at: int, bit: int) -> None:
    block = bytearray(entries.encode_type_record(SEED, 40, 17, _long())[1])
    block[at] ^= 1 << bit
    with pytest.raises(CorruptionError):
        entries.decode_type_block_untrusted(SEED, 41, block)


def _sealed(magic: bytes, part: int, parts: int, length: int) -> bytes:
    block = bytearray(BLOCK)
    layout.TYPE_BLOCK.pack_into(block, 0, 0, magic, 17, part, parts, length)
    layout.U32.pack_into(block, 0, SEED.crc(5, block[4:]))
    return bytes(block)


@pytest.mark.parametrize(
    ("magic", "part", "parts", "length"),
    [
        *((b"XTYQ", 0, 1, 10), (b"XTYP", 1, 1, 10), (b"XTYP", 0, 0, 10), (b"XTYP", 0, 17, 4064)),
        *((b"XTYP", 0, 1, 4065), (b"XTYP", 0, 1, 2**32 - 1), (b"XTYP", 0, 2, 10)),
    ],
)
def test_type_block_absurd_field_under_a_right_checksum(
    magic: bytes, part: int, parts: int, length: int
) -> None:
    with pytest.raises(CorruptionError):
        entries.decode_type_block_untrusted(SEED, 5, _sealed(magic, part, parts, length))
    assert entries.decode_type_block_untrusted(SEED, 5, _sealed(b"XTYP", 0, 1, 10))


@given(raw=st.binary(max_size=400))
def test_spec_any_bytes_are_a_spec_or_corruption(raw: bytes) -> None:
    with suppress(CorruptionError):
        spec = entries.decode_spec_untrusted(3, raw)
        assert entries.encode_spec(spec)[:4] == raw[:4]


@given(spec=specs, at=st.integers(0, 31), value=st.integers(0, 255), cut=st.integers(0, 9))
def test_spec_any_change_of_the_head_stays_bounded(
    spec: TypeSpec, at: int, value: int, cut: int
) -> None:
    raw = bytearray(entries.encode_spec(spec))
    raw[at] = value
    with suppress(CorruptionError):
        entries.decode_spec_untrusted(3, bytes(raw[: len(raw) - cut]))


@pytest.mark.parametrize(
    "spec",
    [
        TypeSpec(""),
        TypeSpec("x" * 65),
        TypeSpec("a", refs=("",)),
        TypeSpec("a", refs=("b",) * 65),
        TypeSpec("a", parts=((0, 1, 1, 1),) * 65),
        TypeSpec("a", parts=((-1, 1, 1, 1),)),
        TypeSpec("a", parts=((0, 2**40, 1, 1),)),
        TypeSpec("a", raw=(0, 70000)),
        TypeSpec("a", stamp=-8),
        TypeSpec("a", flags=2**32),
        TypeSpec("a", acl="x" * (16 * 1024 + 1)),
    ],
)
def test_spec_outside_the_format_is_refused(spec: TypeSpec) -> None:
    with pytest.raises(Refused):
        entries.encode_spec(spec)


def _head(name: int = 1, refs: int = 0, groups: int = 0, owns: int = 0) -> bytes:
    return layout.TYPE_SPEC.pack(name, refs, groups, 0, 0, 0, 0, 0, owns, 0, 0)


@pytest.mark.parametrize(
    "raw",
    [
        *(_head() + b"nn", _head(65) + b"n" * 65, _head(0), _head() + b"\xff", _head(2) + b"n"),
        *(_head(refs=65) + b"n" + b"\1\0r" * 65, _head(refs=1) + b"n\0\0"),
        *(_head(refs=1) + b"n\1", _head(refs=1) + b"n\x41\0" + b"r" * 65),
        *(_head(groups=65) + bytes(65 * 16) + b"n", _head(groups=1) + bytes(15)),
        *(_head(owns=16385) + b"n" + b"x" * 16385, _head(owns=1) + b"n\xff", _head()[:31]),
    ],
)
def test_spec_outside_the_format_is_corruption(raw: bytes) -> None:
    with pytest.raises(CorruptionError):
        entries.decode_spec_untrusted(3, raw)
    assert entries.decode_spec_untrusted(3, _head() + b"n") == TypeSpec("n", stamp=0)


def test_spec_bounds_admit_all_that_a_block_type_may_be() -> None:
    assert layout.MAX_REFS >= blocktype.MAX_REFS
    assert layout.MAX_GROUPS >= blocktype.MAX_GROUPS
    assert layout.MAX_NAME >= 63
    largest = TypeSpec(
        *("n" * 64, "o" * layout.MAX_SOURCE, "a" * layout.MAX_SOURCE, "s" * layout.MAX_SOURCE),
        *(((0, 1, 1, 1),) * layout.MAX_GROUPS, (0, 0), 0, ("r" * 64,) * layout.MAX_REFS),
    )
    assert len(entries.encode_type_record(SEED, 1, 16, largest)) <= layout.MAX_TYPE_PARTS


# --- root slots -----------------------------------------------------------------------------

slots = st.builds(
    *(RootSlot, names.filter(lambda name: "\0" not in name), st.integers(1, 2**64 - 1)),
    *(u32s, u32s, st.integers(0, 2**64 - 1)),
)


@given(slot=slots, index=st.integers(0, 30))
def test_root_slot_round_trip_agrees_with_construct(slot: RootSlot, index: int) -> None:
    block, at = bytearray(BLOCK), entries.slot_offset(index)
    raw = entries.encode_slot(slot)
    block[at : at + layout.SLOT_SIZE] = raw
    found = entries.decode_slots_untrusted(2, block)
    assert [s for s in found if s] == [slot]
    assert found.index(slot) == index
    parsed = layout.RootSlotLayout.parse(raw)
    assert layout.RootSlotLayout.build(parsed) == raw
    assert (parsed.block, parsed.type, parsed.flags) == (slot.block, slot.type, slot.flags)


def test_root_slots_fill_the_block_exactly() -> None:
    assert entries.slot_offset(layout.SLOTS) == BLOCK


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"a\0b"])
def test_root_slot_bad_name_is_corruption(name: bytes) -> None:
    block = bytearray(BLOCK)
    layout.ROOT_SLOT.pack_into(block, entries.slot_offset(4), name, 77, 16, 0, 0)
    with pytest.raises(CorruptionError, match="slot 4"):
        entries.decode_slots_untrusted(2, block)


@pytest.mark.parametrize(
    "slot",
    [
        *(RootSlot("", 5, 1), RootSlot("x" * 65, 5, 1), RootSlot("a\0", 5, 1)),
        *(RootSlot("a", 0, 1), RootSlot("a", 2**64, 1), RootSlot("a", 5, -1)),
    ],
)
def test_root_slot_outside_the_format_is_refused(slot: RootSlot) -> None:
    with pytest.raises(Refused):
        entries.encode_slot(slot)
