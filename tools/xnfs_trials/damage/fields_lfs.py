"""The fields of the blocks of an LFS, by the declarations in `libfs.lfs.format`; what these leave
to prose (records of inodes one after the other, names) is found as the prose says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import construct as c

from libfs.lfs import format as f
from libfs.lfs.inode import records_untrusted

#: Structure, name, offset and size.
Found = tuple[str, str, int, int]

_HEAD: Final = c.Struct("crc" / c.Int32ul, "kind" / c.Int32ul, "flush" / c.Int64ul)
_INODES: Final = c.Struct(
    "records" / c.Int16ul, "zero" / c.Padding(14), "offsets" / c.Array(f.MAX_RECORDS, c.Int16ul)
)
_NAMES: Final = c.Struct(
    "directory" / c.Int32ul,
    "lowest" / c.Int32ul,
    "bits" / c.Int16ul,
    "names" / c.Int16ul,
    "bytes" / c.Int16ul,
)
_XATTR: Final = c.Struct("ino" / c.Int32ul, "bytes" / c.Int32ul)
_GONE: Final = c.Struct("count" / c.Int32ul, "zero" / c.Padding(12), "inos" / c.Array(8, c.Int32ul))

#: type -> (structure, declaration, offset)
LFS: Final[dict[str, tuple[tuple[str, Any, int], ...]]] = {
    "lfs.super": (("lfs.super", f.SUPER_LAYOUT, 0),),
    "lfs.segments": (("lfs.segments", f.SEGMENTS_LAYOUT, 0),),
    "lfs.summary": (("lfs.summary", f.SUMMARY_LAYOUT, 0),),
    "lfs.checkpoint": (("lfs.checkpoint", f.CHECKPOINT_LAYOUT, 0),),
    "lfs.map": (("lfs.map", f.NODE_LAYOUT, 0),),
    "lfs.snapshot": (("lfs.snapshot", f.SNAPSHOT_LAYOUT, 0),),
    "lfs.inodes": (("lfs.inodes", _HEAD, 0), ("lfs.inodes", _INODES, f.INODES_AT)),
    "lfs.names": (("lfs.names", _HEAD, 0), ("lfs.names", _NAMES, f.NAMES_AT)),
    "lfs.xattr": (("lfs.xattr", _HEAD, 0), ("lfs.xattr", _XATTR, f.HEAD_SIZE)),
    "lfs.gone": (("lfs.gone", _HEAD, 0), ("lfs.gone", _GONE, f.GONE_AT)),
}
#: Those with the kernel's stamp; all others have a checksum of LFS's own.
STAMPED: Final = frozenset({"lfs.super", "lfs.segments", "lfs.summary"})


def inside(kind: str, block: int, raw: bytes, most: int) -> Iterator[Found]:
    """What lies where other fields say: records of inodes, entries of names."""
    if kind == "lfs.inodes":
        for index, (at, _ino) in enumerate(records_untrusted(block, raw)[:most]):
            yield from _record(f"[{index}].", raw, at)
    elif kind == "lfs.names":
        yield from _entries(raw, f.NAMES_CONTENT, most)


def _record(prefix: str, raw: bytes, at: int) -> Iterator[Found]:
    start = at
    for part in f.RECORD_LAYOUT.subcons:
        size = part.sizeof()
        yield "lfs inode", f"{prefix}{part.name}", at, size
        at += size
    fields = f.RECORD_LAYOUT.parse(raw[start:at])
    for name, size in (
        ("attributes", fields.xattr_size),
        ("addresses", 8 * fields.tops),
        ("content bytes", fields.content),
    ):
        if size:
            yield "lfs inode", prefix + name, at, size
        at += size


def _entries(raw: bytes, at: int, most: int) -> Iterator[Found]:
    for index in range(most):
        ino, _d_type, length = f.NAME.unpack_from(raw, at)
        if not ino:
            return
        for name, start, size in (("ino", 0, 4), ("d_type", 4, 1), ("length", 5, 1)):
            yield "lfs.names", f"[{index}].{name}", at + start, size
        yield "lfs.names", f"[{index}].name", at + f.NAME.size, length
        at += f.NAME.size + length
