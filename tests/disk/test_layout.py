"""The declarations in `construct` and the compiled structs are the same format, byte for byte."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.disk import layout
from xnfs.disk.geometry import MAX_BLOCKS, MIN_BLOCKS, Geometry, geometry
from xnfs.disk.layout import Seed, Superblock
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.errors import BadImage, CorruptionError, Refused, VersionError

u16s = st.integers(0, 2**16 - 1)
u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1)
uuids = st.binary(min_size=16, max_size=16)
UUID = bytes(range(16))


def _plain(value: Any) -> Any:
    """A parsed construct as nested tuples, without its private fields."""
    if isinstance(value, dict):
        return tuple(_plain(v) for k, v in value.items() if not str(k).startswith("_"))
    if isinstance(value, list):
        return tuple(_plain(v) for v in value)
    return value


SAME = [
    (layout.StampLayout, layout.STAMP, 0),
    (layout.LogEntryLayout, layout.LOG_ENTRY, 0),
    (layout.DescriptorLayout, layout.DESCRIPTOR, BLOCK - 32),
    (layout.TypeBlockLayout, layout.TYPE_BLOCK, layout.TYPE_PAYLOAD),
    (layout.RootSlotLayout, layout.ROOT_SLOT, 0),
    (layout.SuperblockLayout, layout.SUPERBLOCK, SECTOR - 236),
]


@pytest.mark.parametrize(("declared", "compiled", "rest"), SAME)
@given(data=st.data())
def test_layout_struct_reads_what_construct_declares(
    declared: Any, compiled: struct.Struct, rest: int, data: st.DataObject
) -> None:
    assert declared.sizeof() == compiled.size + rest
    raw = data.draw(st.binary(min_size=compiled.size, max_size=compiled.size)) + bytes(rest)
    parsed = _plain(declared.parse(raw))
    fields = compiled.unpack_from(raw)
    assert parsed[: len(fields)] == fields
    assert declared.build(declared.parse(raw)) == raw


def test_layout_sectors_have_the_declared_size() -> None:
    assert layout.MapSectorLayout.sizeof() == layout.RefsSectorLayout.sizeof() == SECTOR
    assert layout.GROUP == 8 * layout.GROUP_BYTES == 2 * layout.COUNTS * layout.SECTORS


geometries = st.builds(
    geometry,
    st.integers(2048, MAX_BLOCKS),
    st.integers(2, 100).map(lambda half: 2 * half),
    st.integers(1, 300),
    st.integers(1, 9),
)
labels = st.text(max_size=16).filter(lambda text: "\0" not in text)
counts = st.integers(0, layout.MAX_COUNTER)
superblocks = st.builds(
    *(
        Superblock,
        uuids,
        labels,
        geometries,
        u64s,
        counts,
        counts,
        st.integers(0, 1),
        st.integers(0, 3),
        u32s,
        u32s,
    )
)


@given(sb=superblocks)
def test_superblock_round_trip_agrees_with_construct(sb: Superblock) -> None:
    raw = layout.encode_superblock(sb)
    assert layout.decode_superblock_untrusted(raw) == sb
    parsed = layout.SuperblockLayout.parse(raw)
    assert layout.SuperblockLayout.build(parsed) == raw
    g = sb.geometry
    assert (parsed.magic, parsed.version, parsed.block_size) == (
        layout.MAGIC,
        layout.VERSION,
        BLOCK,
    )
    assert (parsed.uuid, parsed.blocks, parsed.seq) == (sb.uuid, g.blocks, sb.seq)
    assert (parsed.log_start, parsed.map_start, parsed.refs_start) == (
        *(g.log_start, g.map_start, g.refs_start),
    )
    assert (parsed.types_blocks, parsed.roots_blocks) == (g.types_blocks, g.roots_blocks)
    assert (parsed.data_start, parsed.created) == (g.data_start, sb.created)
    assert parsed.crc == layout.crc(sb.uuid, 0, raw[:508])


def _small() -> Superblock:
    return Superblock(UUID, "small", geometry(128))


def test_superblock_types_used_are_no_more_than_there_are() -> None:
    many = replace(_small(), types_used=_small().geometry.types_blocks + 1)
    with pytest.raises(BadImage, match="blocks of types"):
        layout.decode_superblock_untrusted(layout.encode_superblock(many))


@given(at=st.integers(0, SECTOR - 1), bit=st.integers(0, 7))
def test_superblock_any_bit_flip_is_refused(at: int, bit: int) -> None:
    raw = bytearray(layout.encode_superblock(_small()))
    raw[at] ^= 1 << bit
    with pytest.raises(BadImage):
        layout.decode_superblock_untrusted(raw)


@given(raw=st.binary(max_size=600))
def test_superblock_any_bytes_are_an_answer_or_bad_image(raw: bytes) -> None:
    head = layout.MAGIC + raw
    with pytest.raises(BadImage):
        layout.decode_superblock_untrusted(head)


def _resealed(**fields: int | bytes) -> bytes:
    """A superblock with some fields changed and the checksum made right again."""
    parsed = layout.SuperblockLayout.parse(layout.encode_superblock(_small()))
    parsed.update(fields)
    raw: bytes = layout.SuperblockLayout.build(parsed)
    return raw[:508] + struct.pack("<I", layout.crc(parsed.uuid, 0, raw[:508]))


def test_superblock_newer_version_is_told_from_damage() -> None:
    with pytest.raises(VersionError, match=r"version 4 is newer than this program's \(3\)"):
        layout.decode_superblock_untrusted(_resealed(version=4))
    with pytest.raises(VersionError, match="version 2 is older"):
        layout.decode_superblock_untrusted(_resealed(version=2))
    with pytest.raises(VersionError, match="incompatible features 0x4"):
        layout.decode_superblock_untrusted(_resealed(incompat=4))
    assert layout.decode_superblock_untrusted(_resealed(ro_compat=4)).must_be_readonly
    assert not layout.decode_superblock_untrusted(_resealed(compat=4)).must_be_readonly


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"block_size": 512},
        {"blocks": 0},
        {"blocks": 2**63},
        {"log_blocks": 15},
        {"log_start": 2},
        {"map_blocks": 2},
        {"refs_start": 19},
        {"types_blocks": 2**40},
        {"roots_blocks": 0},
        {"data_start": 0},
        {"label": b"\xff" * 64},
        {"label": b"a\0b".ljust(64, b"\0")},
    ],
)
def test_superblock_absurd_field_under_a_right_checksum_is_bad(fields: dict[str, int]) -> None:
    with pytest.raises(BadImage):
        layout.decode_superblock_untrusted(_resealed(**fields))


def test_superblock_label_that_does_not_fit_is_refused() -> None:
    for label in ("x" * 65, "a\0b", "é" * 33):
        with pytest.raises(Refused):
            layout.encode_superblock(Superblock(UUID, label, geometry(128)))


# --- geometry -------------------------------------------------------------------------------


@given(blocks=st.integers(MIN_BLOCKS, MAX_BLOCKS))
def test_geometry_defaults_fit_and_do_not_overlap(blocks: int) -> None:
    g = geometry(blocks)
    starts = [1, g.map_start, g.refs_start, g.types_start, g.roots_start, g.data_start]
    sizes = [g.log_blocks, g.map_blocks, g.refs_blocks, g.types_blocks, g.roots_blocks]
    assert [at + n for at, n in zip(starts[:-1], sizes, strict=True)] == starts[1:]
    assert g.data_start < g.data_end == blocks - 1
    assert g.map_blocks * 8 * 4032 >= blocks > (g.map_blocks - 1) * 8 * 4032
    assert g.refs_blocks * 672 >= blocks
    assert g.log_blocks % 2 == 0
    assert 16 <= g.log_blocks <= 4096


def test_geometry_defaults_as_documented() -> None:
    small, edge, large = geometry(128), geometry(4096), geometry(2**28)
    assert (small.log_blocks, small.types_blocks, small.roots_blocks) == (16, 24, 1)
    assert (edge.log_blocks, edge.types_blocks, edge.roots_blocks) == (64, 64, 4)
    assert (large.log_blocks, large.groups) == (4096, 66577)


@given(half=st.integers(2, 30000))
def test_geometry_log_holds_the_largest_transaction_that_fits(half: int) -> None:
    g = geometry(10**6, log_blocks=2 * half)
    images, heads = g.log_images, g.log_descriptors
    assert heads == -(-images // 250) >= 1
    assert heads + images <= half
    assert -(-(images + 1) // 250) + images + 1 > half


@pytest.mark.parametrize(
    ("blocks", "log", "types", "roots"),
    [
        *((63, None, None, None), (MAX_BLOCKS + 1, None, None, None), (128, 15, None, None)),
        *((128, 2, None, None), (128, 100, None, None), (128, None, 0, None)),
        *((128, None, None, 0), (128, None, 110, None), (-1, None, None, None)),
    ],
)
def test_geometry_refuses_what_does_not_fit(
    blocks: int, log: int | None, types: int | None, roots: int | None
) -> None:
    with pytest.raises(Refused):
        geometry(blocks, log, types, roots)


def test_geometry_in_data_knows_the_edges() -> None:
    g: Geometry = geometry(128)
    assert g.in_data(g.data_start)
    assert g.in_data(g.data_start, 127 - g.data_start)
    assert not g.in_data(g.data_start, 128 - g.data_start)
    assert not g.in_data(g.data_start - 1)
    assert not g.in_data(g.data_start, 0)
    assert not g.in_data(-5, 200)


# --- checksums ------------------------------------------------------------------------------


@given(uuid=uuids, bno=u64s, parts=st.lists(st.binary(max_size=40), max_size=4))
def test_crc_is_zlib_over_uuid_number_and_bytes(uuid: bytes, bno: int, parts: list[bytes]) -> None:
    want = zlib.crc32(uuid + struct.pack("<Q", bno) + b"".join(parts))
    assert layout.crc(uuid, bno, *parts) == Seed(uuid).crc(bno, *parts) == want
    assert Seed(uuid).block(bno) == layout.crc(uuid, bno)
    assert Seed(uuid).sector(bno, 5) == layout.crc(uuid, bno, b"\x05")


def test_crc_uuid_must_have_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Seed(b"short")


offsets = st.integers(0, (BLOCK - 16) // 8).map(lambda i: 8 * i)


@given(bno=u64s, offset=offsets, kind=u32s, seq=u64s, fill=st.binary(min_size=1, max_size=9))
def test_stamp_is_found_right_where_it_was_put(
    bno: int, offset: int, kind: int, seq: int, fill: bytes
) -> None:
    seed, block = Seed(UUID), bytearray((fill * BLOCK)[:BLOCK])
    before = bytes(block)
    layout.stamp_block(seed, bno, memoryview(block), offset, kind, seq)
    assert layout.check_stamp_untrusted(seed, bno, block, offset, kind) == seq
    assert block[:offset] + block[offset + 16 :] == before[:offset] + before[offset + 16 :]
    crc = layout.crc(UUID, bno, bytes(block[:offset]), bytes(block[offset + 4 :]))
    assert layout.StampLayout.build({"crc": crc, "type": kind, "seq": seq}) == bytes(
        block[offset : offset + 16]
    )


@given(offset=offsets, at=st.integers(0, BLOCK - 1), bit=st.integers(0, 7))
def test_stamp_any_bit_flip_is_seen(offset: int, at: int, bit: int) -> None:
    seed, block = Seed(UUID), bytearray(BLOCK)
    layout.stamp_block(seed, 9, block, offset, 20, 3)
    block[at] ^= 1 << bit
    with pytest.raises(CorruptionError, match="block 9: checksum"):
        layout.check_stamp_untrusted(seed, 9, block, offset, 20)


def test_stamp_of_another_place_image_or_type_is_seen() -> None:
    seed, block = Seed(UUID), bytearray(BLOCK)
    layout.stamp_block(seed, 9, block, 0, 20, 3)
    with pytest.raises(CorruptionError, match="checksum"):
        layout.check_stamp_untrusted(seed, 10, block, 0, 20)
    with pytest.raises(CorruptionError, match="checksum"):
        layout.check_stamp_untrusted(Seed(bytes(16)), 9, block, 0, 20)
    with pytest.raises(CorruptionError, match="type is 20, expected 21"):
        layout.check_stamp_untrusted(seed, 9, block, 0, 21)
    with pytest.raises(CorruptionError):
        layout.check_stamp_untrusted(seed, 9, bytes(BLOCK), 0, 0)
