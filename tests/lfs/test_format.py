"""The two declarations of each structure give the same bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libfs.lfs import format as f

#: layout, struct, where it begins, the layout's names for the struct's fields
PAIRS = {
    "super": (f.SUPER_LAYOUT, f.SUPER, f.SUPER_AT, "magic version segment run created uuid"),
    "summary": (f.SUMMARY_LAYOUT, f.SUMMARY_HEAD, f.SUMMARY_AT, "serial segment next done first"),
    "slot": (f.SLOT_LAYOUT, f.SLOT, 0, "pointer ino at flush"),
    "entry": (f.ENTRY_LAYOUT, f.ENTRY, 0, "pointer live blocks youngest"),
    "node": (f.NODE_LAYOUT, f.NODE_HEAD, f.NODE_AT, "ino index"),
    "checkpoint": (
        f.CHECKPOINT_LAYOUT,
        f.CHECKPOINT,
        f.CHECKPOINT_AT,
        "number flush serial segment offset time next_ino epoch depth tops snapshots",
    ),
    "snapshot": (
        f.SNAPSHOT_LAYOUT,
        f.SNAPSHOT,
        f.SNAPSHOT_AT,
        "name time epoch next_ino depth tops last",
    ),
    "record": (
        f.RECORD_LAYOUT,
        f.RECORD,
        0,
        "ino mode flags uid gid nlink generation size blocks atime mtime ctime crtime rmajor"
        " rminor parent depth bits tops key entries xattr xattr_size content",
    ),
}
_RANGES = {"B": 8, "H": 16, "I": 32, "Q": 64}


def _value(letter: str, size: int) -> st.SearchStrategy[Any]:
    if letter == "s":
        return st.binary(min_size=size, max_size=size)
    if letter == "q":
        return st.integers(-(1 << 63), (1 << 63) - 1)
    return st.integers(0, (1 << _RANGES[letter]) - 1)


def _letters(packed: struct.Struct) -> list[tuple[str, int]]:
    out, number = [], ""
    for letter in packed.format.lstrip("<"):
        if letter.isdigit():
            number += letter
            continue
        if letter != "x":
            out.append((letter, int(number or 1)))
        number = ""
    return out


@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
def test_format_struct_and_layout_agree(name: str, data: st.DataObject) -> None:
    layout, packed, at, fields = PAIRS[name]
    values = [data.draw(_value(*letter)) for letter in _letters(packed)]
    if name == "super":
        values[0] = f.SUPER_MAGIC
    raw = bytearray(layout.sizeof())
    packed.pack_into(raw, at, *values)
    parsed = layout.parse(bytes(raw))
    assert [parsed[field] for field in fields.split()] == values
    assert layout.build(parsed) == bytes(raw)


def test_format_layouts_end_inside_the_block() -> None:
    for layout in (f.SUPER_LAYOUT, f.SEGMENTS_LAYOUT, f.SUMMARY_LAYOUT, f.NODE_LAYOUT):
        assert layout.sizeof() == f.BLOCK
    assert f.CHECKPOINT_LAYOUT.sizeof() <= f.BLOCK
    assert f.RECORDS_AT + f.RECORD.size + f.XATTR_INLINE + f.INLINE_MAX <= f.BLOCK
    assert all(4032 % size == 0 and size <= f.SLOTS for size in f.SEGMENT_SIZES)


@given(st.integers(1, f.AT_MASK), st.integers(0, f.EPOCH_MAX), st.integers(0, f.INDEX_MASK))
def test_format_addresses(block: int, epoch: int, index: int) -> None:
    at = f.address(block, epoch, index)
    assert (at & f.AT_MASK, at >> f.EPOCH_SHIFT, at >> f.INDEX_SHIFT & f.INDEX_MASK) == (
        block,
        epoch,
        index,
    )
