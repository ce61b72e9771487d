"""Inodes in memory: the decoded header of an inode's block, and what is remembered beside it.

A `Vnode` is the truth about its header: times, and the size after a plain overwrite or a small
append, may be newer here than in the block (`dirty`); `Volume.flush` writes them. It does not read
or write blocks, and knows nothing of extents or names beyond the fields of the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from libfs.common.inodes import DT_DIR as DT_DIR
from libfs.common.inodes import DT_LNK as DT_LNK
from libfs.common.inodes import DT_REG as DT_REG
from libfs.common.inodes import attributes_of
from libfs.ffs import format as f
from libfs.posix.interface import Attr
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.ffs.slots import Slots

FIELDS: Final = (
    *("mode", "flags", "uid", "gid", "nlink", "size", "blocks"),
    *("atime", "mtime", "ctime", "crtime", "generation", "depth", "rmajor", "rminor"),
    *("key", "entries", "parent", "names", "heap"),
)
#: Fields on which the answer to `access` depends.
RIGHTS: Final = frozenset({"mode", "uid", "gid"})


class Piece(NamedTuple):
    """Consecutive file blocks that lie together: from `first` up to `end`. kind 0: a hole, which
    may go on after `end`. `owner`, `slot`: where the extent's pointer lies."""

    first: int
    end: int
    kind: int
    block: int
    owner: int
    slot: int


class Vnode:
    """One inode. The header's fields by name, then state of this mount."""

    __slots__ = (
        *FIELDS,
        "attr",  # Attr, as long as nothing changed
        "dirty",  # the header here is newer than in the block
        "hash_key",  # `key` as bytes
        "ino",
        "last",  # the extent used last
        "read_next",  # offset at which a sequential reader would go on
        "read_window",  # blocks to read ahead
        "rights",  # answers of the acl: caller -> bit set of granted masks
        "tail",  # disk block with the end of the file, if bytes after that end were written; or 0
        "slots",  # Slots of the inode's own block, once decoded
        "next_inode",  # where the search for a block of a directory's next inode starts
        "written",  # (lo, hi, epoch): disk blocks [lo, hi) were overwritten, and may not be durable
    )
    # Header
    mode: int
    flags: int
    uid: int
    gid: int
    nlink: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    crtime: int
    generation: int
    depth: int
    rmajor: int
    rminor: int
    key: int
    entries: int
    parent: int
    names: int
    heap: int
    # Memory
    attr: Attr | None
    slots: Slots | None
    last: Piece

    def __init__(self, ino: int, fields: Sequence[int]) -> None:
        self.ino = ino
        (
            self.mode,
            self.flags,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.crtime,
            self.generation,
            self.depth,
            self.rmajor,
            self.rminor,
            self.key,
            self.entries,
            self.parent,
            self.names,
            self.heap,
        ) = fields
        self.attr = None
        self.dirty = False
        self.rights: dict[object, int] = {}
        self.slots = None
        self.tail = 0
        self.last = NOTHING
        self.read_next = 0
        self.read_window = 0
        self.next_inode = ino + 1
        self.written: list[tuple[int, int, int]] = []
        self.hash_key = self.key.to_bytes(8, "little")

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.mode >> 12 == DT_DIR

    @property
    def kind(self) -> int:
        """The kind of a pointer to this inode."""
        return f.P_DIR if self.mode >> 12 == DT_DIR else f.P_INODE

    def pack(self) -> bytes:
        """The bytes of the header, from offset 16."""
        return f.HEADER.pack(
            self.mode,
            self.flags,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.crtime,
            self.generation,
            self.depth,
            self.rmajor,
            self.rminor,
            self.key,
            self.entries,
            self.parent,
            self.names,
            self.heap,
        )

    def wrote(self, lo: int, hi: int, epoch: int) -> None:
        """Note disk blocks [lo, hi) as overwritten."""
        runs = self.written
        if runs and runs[-1][2] == epoch:
            first, end, _epoch = runs[-1]
            if end == lo:
                runs[-1] = (first, hi, epoch)
                return
            if first <= lo and hi <= end:
                return
        runs.append((lo, hi, epoch))

    def attributes(self) -> Attr:
        """The `Attr` of this inode; the same object until something changes."""
        attr = self.attr
        if attr is None:
            attr = self.attr = attributes_of(self)
        return attr


#: No extent: covers no file block.
NOTHING: Final = Piece(0, 0, 0, 0, 0, 0)


def decode_untrusted(ino: int, raw: bytes | memoryview) -> Vnode:
    """The inode in the block `raw`. Raises CorruptionError where the header can't be used at all;
    the rest is for `check`."""
    v = Vnode(ino, f.HEADER.unpack_from(raw, f.HEADER_AT))
    if v.mode >> 12 not in (1, 2, 4, 6, 8, 10, 12):
        raise CorruptionError(ino, "mode", oct(v.mode), "a known type")
    if v.size > f.MAX_FILE_BLOCKS * f.BLOCK:
        raise CorruptionError(ino, "size", v.size, "at most 2**44")
    if v.depth > f.MAX_DEPTH:
        raise CorruptionError(ino, "depth", v.depth, f"at most {f.MAX_DEPTH}")
    if max(v.blocks, v.entries) > f.BLOCK_MASK:
        raise CorruptionError(ino, "blocks and entries", (v.blocks, v.entries), "below 2**56")
    if v.flags & f.I_INLINE and v.mode >> 12 != DT_DIR and v.size > f.INLINE_MAX:
        raise CorruptionError(ino, "size", v.size, f"at most {f.INLINE_MAX} inline")
    if v.mode >> 12 == DT_DIR and bool(v.flags & f.I_INLINE) == bool(v.flags & f.I_HASHED):
        raise CorruptionError(ino, "flags", v.flags, "inline or hashed")
    return v
