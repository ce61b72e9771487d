"""Inodes in memory, and as records of the log.

A `Vnode` is the truth about its inode; what differs from the disk is in `dirty` sets until a flush.
Records have the length that they need: attributes, content or the tops of the map follow a fixed
part. Nothing here reads or writes blocks.
"""

from __future__ import annotations

from array import array
from operator import attrgetter
from typing import Final

from libfs.common import attributes as xa
from libfs.common.inodes import DT_DIR as DT_DIR
from libfs.common.inodes import DT_LNK as DT_LNK
from libfs.common.inodes import DT_REG as DT_REG
from libfs.common.inodes import attributes_of
from libfs.lfs import format as f
from libfs.lfs.names import Leaf, pack, unpack_untrusted
from libfs.lfs.tree import Store, Tree
from libfs.posix.interface import Attr
from xnfs import CorruptionError

_TYPES: Final = (1, 2, 4, 6, 8, 10, 12)

_FIELDS: Final = (
    *("ino", "mode", "flags", "uid", "gid", "nlink", "generation", "size", "blocks"),
    *("atime", "mtime", "ctime", "crtime", "rmajor", "rminor", "parent"),
)
_fields_of = attrgetter(*_FIELDS)


class Vnode:
    """One inode. The record's fields by name; then content; then state of this mount."""

    __slots__ = (
        *_FIELDS,
        *("bits", "key", "entries", "xattr_at"),
        "attr",  # Attr, as long as nothing changed
        "content",  # inline bytes of a file
        "data",  # file block -> its bytes, not in the log yet (bytes: written whole)
        "leaves",  # of a hashed directory: number -> Leaf; of an inline one {0: Leaf}
        "record_size",  # bytes that the record in the log counts as (`share`)
        "read_next",  # offset at which a sequential reader would go on
        "read_window",  # blocks that are read ahead of him
        "rights",  # answers to `access`: user -> bit set of masks
        "tree",
        "xattrs",  # None: they lie in a block that was not read yet
        "xattrs_dirty",  # they differ from that block
    )
    ino: int
    mode: int
    flags: int
    uid: int
    gid: int
    nlink: int
    generation: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    crtime: int
    rmajor: int
    rminor: int
    parent: int

    def __init__(self, ino: int, mode: int, store: Store) -> None:
        self.ino, self.mode, self.flags = ino, mode, f.I_INLINE
        self.uid = self.gid = self.nlink = self.generation = self.size = self.blocks = 0
        self.atime = self.mtime = self.ctime = self.crtime = 0
        self.rmajor = self.rminor = self.parent = self.bits = self.entries = self.xattr_at = 0
        self.key = bytes(8)
        self.attr: Attr | None = None
        self.content = b""
        self.data: dict[int, bytes | bytearray] = {}
        self.leaves: dict[int, Leaf] = {0: Leaf(0, 0)} if mode >> 12 == DT_DIR else {}
        self.read_next = self.read_window = 0
        self.record_size = 0
        self.rights: dict[object, int] = {}
        self.tree = Tree(store, ino)
        self.xattrs: xa.Attributes | None = {}
        self.xattrs_dirty = False

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.mode >> 12 == DT_DIR

    @property
    def inline(self) -> bool:
        """Whether bytes or names lie in the record."""
        return bool(self.flags & f.I_INLINE)

    def attributes(self) -> Attr:
        """The `Attr` of this inode; the same object until something changes."""
        attr = self.attr
        if attr is None:
            attr = self.attr = attributes_of(self)
        return attr

    def packed_xattrs(self) -> bytes:
        """The records of the attributes, which must be known."""
        return b"".join(xa.record(name, value) for name, value in (self.xattrs or {}).items())

    def record_bound(self) -> int:
        """The length of its record, at most, whatever addresses it gets."""
        inside = 0 if self.xattrs is None else min(len(self.packed_xattrs()), f.XATTR_INLINE)
        if not self.inline:
            return f.RECORD.size + inside + 8 * (f.TOPS if self.data else len(self.tree.tops) + 1)
        content = self.leaves[0].size if self.is_dir else len(self.content)
        return f.RECORD.size + inside + content

    def record(self) -> bytes:
        """The inode as it goes to the log; everything that it names has an address."""
        inside = b"" if self.xattr_at else self.packed_xattrs()
        content, tops = b"", []
        if not self.inline:
            tops = self.tree.tops
        elif self.is_dir:
            content = pack(self.leaves[0].names.items())
        else:
            content = self.content
        head = f.RECORD.pack(
            *_fields_of(self),
            self.tree.depth,
            self.bits,
            len(tops),
            int.from_bytes(self.key, "little"),
            self.entries,
            self.xattr_at,
            len(inside),
            len(content),
        )
        return head + inside + array("Q", tops).tobytes() + content


def share(length: int) -> int:
    """The bytes of a block that a record of this length costs, if all in the block are as long: so
    what is live, as the usage counts it, can be packed into as many blocks."""
    return f.BLOCK // min((f.BLOCK - f.RECORDS_AT) // length, f.MAX_RECORDS)


def records_untrusted(block: int, raw: bytes) -> list[tuple[int, int]]:
    """(offset, inode) of each record of a block. Raises CorruptionError."""
    return [record_untrusted(block, raw, index) for index in range(_count_untrusted(block, raw))]


def record_untrusted(block: int, raw: bytes, index: int) -> tuple[int, int]:
    """(offset, inode) of one record of a block. Raises CorruptionError."""
    count = _count_untrusted(block, raw)
    if index >= count:
        raise CorruptionError(block, "record", index, f"one of {count}")
    (at,) = f.OFFSET.unpack_from(raw, f.OFFSETS_AT + index * f.OFFSET.size)
    if not f.RECORDS_AT <= at <= f.BLOCK - f.RECORD.size:
        raise CorruptionError(block, "offset of a record", at, "inside the block")
    (ino,) = f.OFFSET_INO.unpack_from(raw, at)
    if not 0 < ino <= f.INO_MAX:
        raise CorruptionError(block, "inode", ino, "a number")
    return at, ino


def _count_untrusted(block: int, raw: bytes) -> int:
    (count,) = f.INODES_HEAD.unpack_from(raw, f.INODES_AT)
    if not 0 < count <= f.MAX_RECORDS:
        raise CorruptionError(block, "records", count, f"1 to {f.MAX_RECORDS}")
    return int(count)


def decode_untrusted(block: int, raw: bytes, at: int, store: Store) -> Vnode:
    """The inode whose record begins at `at`. Raises CorruptionError."""
    values = f.RECORD.unpack_from(raw, at)
    v = Vnode(values[0], values[1], store)
    v.ino, v.mode, v.flags, v.uid, v.gid, v.nlink, v.generation, v.size, v.blocks = values[:9]
    v.atime, v.mtime, v.ctime, v.crtime, v.rmajor, v.rminor, v.parent = values[9:16]
    depth, v.bits, tops, key, v.entries, v.xattr_at, inside, content = values[16:]
    v.key = key.to_bytes(8, "little")
    start = at + f.RECORD.size
    middle = start + inside
    rest = middle + tops * 8
    for field, got, good in (
        ("mode", oct(v.mode), v.mode >> 12 in _TYPES),
        ("flags", v.flags, v.flags in (0, f.I_INLINE)),
        ("size", v.size, v.size <= f.MAX_FILE_BLOCKS * f.BLOCK),
        ("blocks and entries", (v.blocks, v.entries), max(v.blocks, v.entries) < 1 << 56),
        ("depth of the map", depth, depth <= f.MAX_DEPTH),
        ("bits of the hash", v.bits, v.bits <= f.MAX_BITS),
        ("addresses", tops, tops <= (0 if v.inline else f.TOPS)),
        ("inline content", content, content <= (f.INLINE_MAX if v.inline else 0)),
        ("length of the record", rest + content - at, rest + content <= f.BLOCK),
        ("attributes", (inside, v.xattr_at), inside == 0 or v.xattr_at == 0),
    ):
        if not good:
            raise CorruptionError(block, f"{field} of inode {v.ino}", got, "sane")
    _decode_rest_untrusted(block, v, raw[start:middle], raw[rest : rest + content])
    v.record_size = share(rest + content - at)
    v.tree.depth, v.tree.tops = depth, array("Q", raw[middle:rest]).tolist()
    return v


def _decode_rest_untrusted(block: int, v: Vnode, inside: bytes, content: bytes) -> None:
    if v.xattr_at:
        v.xattrs = None
    else:
        found: xa.Attributes = {}
        xa.parse_untrusted(block, inside, found)
        v.xattrs = found
    if not v.inline:
        v.leaves = {}
    elif v.is_dir:
        unpack_untrusted(block, content, v.leaves[0])
        if len(v.leaves[0].names) != v.entries:
            raise CorruptionError(block, "entries", v.entries, len(v.leaves[0].names))
    elif v.size != len(content):
        raise CorruptionError(block, f"size of inode {v.ino}", v.size, f"{len(content)}, inline")
    else:
        v.content = content
