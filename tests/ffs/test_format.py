"""The two declarations of each structure give the same bytes, and the spec's offsets are theirs."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libfs.common.attributes import HEAD
from libfs.ffs import format as f

_RANGES = {"H": (0, 2**16 - 1), "I": (0, 2**32 - 1), "Q": (0, 2**64 - 1), "B": (0, 255)}


def _integers(codes: str) -> st.SearchStrategy[tuple[int, ...]]:
    signed = (-(2**63), 2**63 - 1)
    ranges = [signed if c == "q" else _RANGES[c] for c in codes]
    return st.tuples(*(st.integers(lo, hi) for lo, hi in ranges))


def _built(layout: Any, names: list[str], values: tuple[int, ...]) -> bytes:
    raw: bytes = layout.build(dict(zip(names, values, strict=True)))
    return raw


@given(_integers("HHIIIQQqqqqIIIIQQQHH"))
def test_format_header(values: tuple[int, ...]) -> None:
    names = [str(c.name) for c in f.HEADER_LAYOUT.subcons]
    assert _built(f.HEADER_LAYOUT, names, values) == f.HEADER.pack(*values)
    assert f.HEADER_AT + f.HEADER.size == f.RESERVED[0]


@given(_integers("IIQ"))
def test_format_slot(values: tuple[int, ...]) -> None:
    assert _built(f.SLOT_LAYOUT, ["first", "count", "pointer"], values) == f.SLOT.pack(*values)


@given(_integers("HBB"))
def test_format_record(values: tuple[int, ...]) -> None:
    names = ["offset", "length", "d_type"]
    assert _built(f.RECORD_LAYOUT, names, values) == f.RECORD.pack(*values)


@given(_integers("BBH"))
def test_format_xattr(values: tuple[int, ...]) -> None:
    names = ["namespace", "name", "value"]
    assert _built(f.XATTR_LAYOUT, names, values) == HEAD.pack(*values)


@given(_integers("IIIQQ"), st.binary(min_size=16, max_size=16))
def test_format_super(values: tuple[int, ...], uuid: bytes) -> None:
    version, flags, group, created, root = values
    packed = f.SUPER.pack(f.SUPER_MAGIC, version, flags, group, created, uuid, root)
    built = f.SUPER_LAYOUT.build(
        {
            "stamp": f.NO_STAMP,
            "version": version,
            "flags": flags,
            "group": group,
            "created": created,
            "uuid": uuid,
            "root": root,
        }
    )
    assert built == f.NO_STAMP + packed
    assert len(built) - 8 == f.SUPER_ROOT


@given(_integers("QQQHH"))
def test_format_leaf(values: tuple[int, ...]) -> None:
    raw = f.NO_STAMP + f.LEAF_HEAD.pack(*values)
    parsed = f.LEAF_LAYOUT.parse(raw.ljust(f.BLOCK, b"\0"))
    assert (parsed.ino, parsed.lo, parsed.hi, parsed.names, parsed.heap) == values
    assert f.LEAF_LAYOUT.sizeof() == f.LEAF_NAMES.heap


@given(_integers("QQI"))
def test_format_index(values: tuple[int, ...]) -> None:
    raw = f.NO_STAMP + f.INDEX_HEAD.pack(*values)
    parsed = f.INDEX_LAYOUT.parse(raw.ljust(f.BLOCK, b"\0"))
    assert (parsed.ino, parsed.lo, parsed.level) == values


@given(_integers("IIQ"))
def test_format_node(values: tuple[int, ...]) -> None:
    raw = f.NO_STAMP + f.NODE_HEAD.pack(*values)
    parsed = f.NODE_LAYOUT.parse(raw.ljust(f.BLOCK, b"\0"))
    assert (parsed.level, parsed.zero, parsed.ino) == values
    assert f.NODE_LAYOUT.sizeof() == f.NODE_SLOTS_AT + f.NODE_SLOTS * f.SLOT_SIZE <= f.BLOCK


def test_format_areas_do_not_overlap() -> None:
    for area in (f.INLINE_NAMES, f.LEAF_NAMES):
        assert area.pointers + 8 * area.slots <= area.records
        assert area.records + 4 * area.slots <= area.tags
        assert area.tags + 4 * area.slots <= area.heap < area.limit <= f.BLOCK
    assert f.INODE_SLOTS_AT + f.INODE_SLOTS * f.SLOT_SIZE <= f.XATTR_POINTER
    assert f.INLINE_AT + f.INLINE_MAX == f.ACL_AT
    assert f.ACL_AT + f.ACL_LAYOUT.sizeof() == f.RECORDS_AT
    assert struct.calcsize("<HHI") == f.ACL_ENTRY.size
