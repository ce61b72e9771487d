"""Every field of every structure on an image, found by the declarations of the formats.

`xnfs.disk.layout`, `libfs.ffs.format` and `libfs.lfs.format` declare with construct where each byte
lies; this module walks those declarations over the bytes of a sound image, so that a field that is
added there is attacked here without further work. What they leave to prose (heaps of names, records
of attributes) is found as the prose says; that of LFS is in `fields_lfs`.

Of an array those elements count that are in use, at most `MOST` of them, then the first that is
not, and the last.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import construct as c

from libfs.common.attributes import HEAD
from libfs.ffs import format as f
from xnfs import BLOCK, SECTOR
from xnfs.disk import layout as k
from xnfs.disk.numbers import COUNT, column_of
from xnfs_trials.damage import fields_lfs
from xnfs_trials.damage.fields_lfs import LFS, STAMPED
from xnfs_trials.damage.subject import Subject

MOST: Final = 6


@dataclass(frozen=True, slots=True)
class Field:
    """Some bytes with a name. `blocks`: all of them get the same damage (copies)."""

    structure: str
    name: str
    blocks: tuple[int, ...]
    offset: int
    size: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.blocks))
        return f"{self.structure} in block {where}: {self.name}"


#: Name of a field, where it begins, its bytes.
Leaf = tuple[str, int, int]


def leaves(layout: Any, raw: bytes, at: int = 0) -> Iterator[Leaf]:
    """The fields of a declared structure that begins at `at`; of arrays the chosen elements."""
    stream = io.BytesIO(raw)
    stream.seek(at)
    yield from _leaves(layout, stream, "", {})


def _leaves(part: Any, stream: io.BytesIO, name: str, context: dict[str, Any]) -> Iterator[Leaf]:
    while isinstance(part, c.Renamed):
        name = f"{name}.{part.name}" if name else str(part.name)
        part = part.subcon
    if isinstance(part, c.Struct):
        yield from _struct(part, stream, name)
    elif isinstance(part, c.Array):
        yield from _array(part, stream, name, context)
    else:
        start = stream.tell()
        value = part.parse_stream(stream, **context)
        if size := stream.tell() - start:
            yield name, start, size
        context[name.rpartition(".")[2]] = value


def _struct(part: Any, stream: io.BytesIO, name: str) -> Iterator[Leaf]:
    inside: dict[str, Any] = {}  # what lengths refer to
    for member in part.subcons:
        yield from _leaves(member, stream, name, inside)


def _array(part: Any, stream: io.BytesIO, name: str, context: dict[str, Any]) -> Iterator[Leaf]:
    count = part.count(c.Container(context)) if callable(part.count) else part.count
    elements = []
    for index in range(count):
        start = stream.tell()
        found = list(_leaves(part.subcon, stream, f"{name}[{index}]", {}))
        elements.append((any(stream.getvalue()[start : stream.tell()]), found))
    for index in _chosen([used for used, _found in elements]):
        yield from elements[index][1]


def _chosen(used: Sequence[bool]) -> list[int]:
    full = [i for i, it in enumerate(used) if it]
    step = max(-(-len(full) // MOST), 1)
    free = next((i for i, it in enumerate(used) if not it), 0)
    return sorted({*full[::step], free, len(used) - 1}) if used else []


# -- the structures of FFS: type -> (structure, declaration, offset). A stamp is the kernel's.

_HEADER: Final = ("inode header", f.HEADER_LAYOUT, f.HEADER_AT)
_ACCESS: Final = ("access list", f.ACL_LAYOUT, f.ACL_AT)
_RESERVED: Final = c.Struct("reserved" / c.Bytes(f.RESERVED[1] - f.RESERVED[0]))
_XATTR: Final = ("attribute pointer", c.Struct("pointer" / c.Int64ul), f.XATTR_POINTER)
_INODE: Final = (
    _HEADER,
    ("inode header", _RESERVED, f.RESERVED[0]),
    _XATTR,
    _ACCESS,
)
_SLOTS: Final = c.Struct("slots" / c.Array(f.INODE_SLOTS, f.SLOT_LAYOUT))
_INLINE: Final = c.Struct("bytes" / c.Bytes(f.INLINE_MAX))


def _names(area: f.NameArea) -> Any:
    return c.Struct("pointers" / c.Array(area.slots, c.Int64ul)), c.Struct(
        "records" / c.Array(area.slots, f.RECORD_LAYOUT),
        "tags" / c.Array(area.slots, c.Int32ul),
    )


_DIR_POINTERS, _DIR_RECORDS = _names(f.INLINE_NAMES)

FFS: Final[dict[str, tuple[tuple[str, Any, int], ...]]] = {
    "ffs.super": (("ffs.super", f.SUPER_LAYOUT, 0),),
    "ffs.inode": (
        *_INODE,
        ("extent slots", _SLOTS, f.INODE_SLOTS_AT),
        ("inline bytes", _INLINE, f.INLINE_AT),
    ),
    "ffs.dir": (
        *_INODE,
        ("ffs.dir names", _DIR_POINTERS, f.INLINE_NAMES.pointers),
        ("ffs.dir names", _DIR_RECORDS, f.INLINE_NAMES.records),
    ),
    "ffs.leaf": (("ffs.leaf", f.LEAF_LAYOUT, 0),),
    "ffs.index": (("ffs.index", f.INDEX_LAYOUT, 0),),
    "ffs.node": (("ffs.node", f.NODE_LAYOUT, 0),),
    "ffs.xattr": (("ffs.xattr", c.Struct("ino" / c.Int64ul), f.XATTR_INO_AT),),
}


class Finder:
    """The fields of one image."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._g = subject.geometry

    def all(self) -> list[Field]:
        """All of them, in the order of the disk."""
        found = [*self._log_structured()]
        if not found:
            found = [*self._kernel(), *self._metadata()]
        return list(dict.fromkeys(found))

    def _raw(self, block: int) -> bytes:
        return self._subject.contents.get(block, bytes(BLOCK))

    def _of(
        self, structure: str, layout: Any, block: int, at: int = 0, prefix: str = ""
    ) -> Iterator[Field]:
        for name, start, size in leaves(layout, self._raw(block), at):
            if name != "stamp":
                yield Field(structure, prefix + name, (block,), start, size)

    # -- the kernel's

    def _kernel(self) -> Iterator[Field]:
        g = self._g
        for copies, name in (
            ((0,), "superblock"),
            ((g.data_end,), "superblock, copy"),
            ((0, g.data_end), "superblock, both"),
        ):
            for field in self._of(name, k.SuperblockLayout, copies[0]):
                yield Field(name, field.name, copies, field.offset, field.size)
        yield from self._log()
        for group in range(g.groups):
            block, sector = g.map_start + group // k.SECTORS, group % k.SECTORS
            yield from self._of("free map", k.MapSectorLayout, block, sector * SECTOR)
        for block in range(g.refs_start, g.refs_start + g.refs_blocks):
            for sector in range(k.SECTORS):
                at = sector * SECTOR
                if any(self._raw(block)[at : at + SECTOR]) or sector == k.SECTORS - 1:
                    prefix = f"[{sector}]"
                    counts = column_of(block - g.refs_start) is COUNT
                    name = "reference counts" if counts else "versions"
                    layout = k.RefsSectorLayout if counts else k.VersionsSectorLayout
                    yield from self._of(name, layout, block, at, prefix)
        yield from self._types()
        for block in range(g.roots_start, g.data_start):
            slots = c.Struct("slots" / c.Array(k.SLOTS, k.RootSlotLayout))
            yield from self._of("stamp", k.StampLayout, block)
            yield from self._of("root catalogue", slots, block, k.SLOTS_AT)

    def _log(self) -> Iterator[Field]:
        """Descriptors, and images as far as the log itself looks at them: as stamped blocks."""
        g = self._g
        for block in range(g.log_start, g.log_start + g.log_blocks):
            raw = self._raw(block)
            if raw[: len(k.LOG_MAGIC)] == k.LOG_MAGIC:
                yield from self._of("log descriptor", k.DescriptorLayout, block)
            elif any(raw):
                yield from self._of("log image", k.StampLayout, block)
                yield Field("log image", "body", (block,), k.STAMP_SIZE, BLOCK - k.STAMP_SIZE)

    def _types(self) -> Iterator[Field]:
        """Blocks of the catalogue, and the records in them, which may take several blocks."""
        g = self._g
        head_size = k.TYPE_BLOCK.size
        record: list[int] = []
        payload = b""
        for block in range(g.types_start, g.types_start + g.types_blocks):
            raw = self._raw(block)
            if not any(raw):
                continue
            yield from self._of("type catalogue", k.TypeBlockLayout, block)
            head = k.TypeBlockLayout.parse(raw)
            record.append(block)
            payload += raw[head_size : head_size + head.length]
            if head.part + 1 == head.parts:
                for name, start, size in leaves(k.TypeSpecLayout, payload):
                    part, offset = divmod(start, k.TYPE_PAYLOAD)
                    size = min(size, k.TYPE_PAYLOAD - offset)
                    where = (record[part],)
                    yield Field("type record", name, where, head_size + offset, size)
                record, payload = [], b""

    # -- those of FFS

    def _metadata(self) -> Iterator[Field]:
        for block, kind in sorted(self._subject.kinds.items()):
            if kind not in FFS or block in self._subject.witness:
                continue
            yield from self._of("stamp", k.StampLayout, block)
            for structure, layout, at in FFS[kind]:
                yield from self._of(structure, layout, block, at)
            if kind == "ffs.leaf":
                yield from self._heap(block, f.LEAF_NAMES, kind)
            elif kind == "ffs.dir":
                yield from self._heap(block, f.INLINE_NAMES, "ffs.dir names")
            if kind in ("ffs.dir", "ffs.inode"):
                yield from self._records(block, f.RECORDS_AT)
            elif kind == "ffs.xattr":
                yield from self._records(block, f.XATTR_BLOCK_AT)

    # -- those of LFS; the kernel's are in the other images

    def _log_structured(self) -> Iterator[Field]:
        for block, kind in sorted(self._subject.kinds.items()):
            if kind not in LFS:
                continue
            if kind in STAMPED:
                yield from self._of("stamp", k.StampLayout, block)
            for structure, layout, at in LFS[kind]:
                yield from self._of(structure, layout, block, at)
            for structure, name, at, size in fields_lfs.inside(kind, block, self._raw(block), MOST):
                yield Field(structure, name, (block,), at, size)

    def _heap(self, block: int, area: f.NameArea, structure: str) -> Iterator[Field]:
        records = self._raw(block)[area.records : area.records + 4 * area.slots]
        for slot, (offset, length, _d_type) in enumerate(f.RECORD.iter_unpack(records)):
            if length and slot < MOST:
                yield Field(structure, f"name[{slot}]", (block,), offset, length)

    def _records(self, block: int, at: int) -> Iterator[Field]:
        """Attributes: each record's head, name and value; then where the next would begin."""
        raw = self._raw(block)
        index = 0
        while at + HEAD.size <= BLOCK:
            space, name, value = HEAD.unpack_from(raw, at)
            prefix = f"[{index}]."
            yield from self._of("attribute record", f.XATTR_LAYOUT, block, at, prefix)
            if not space:
                return
            at += HEAD.size
            yield Field("attribute record", prefix + "name bytes", (block,), at, name)
            if value:
                where = (block,), at + name, value
                yield Field("attribute record", prefix + "value bytes", *where)
            at += name + value
            index += 1


def fields(subject: Subject) -> list[Field]:
    """Every field of an image."""
    return Finder(subject).all()
