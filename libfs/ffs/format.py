"""Every byte of FFS on the disk, declared once: for mkfs, mount, fsck and dump.

`construct` is the authority (what a reader or a dump looks at); the `struct.Struct` beside it is
what hot paths use, and a property test holds both to the same bytes. Nothing here interprets:
meaning lies in `inode`, `directory`, `extents` and `xattrs`. SPEC.md says the same in prose.

All numbers are little-endian. The first 16 bytes of every block but data are the kernel's stamp.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from construct import (
    Array,
    Bytes,
    Const,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64sl,
    Int64ul,
    Padding,
)
from construct import Struct as Layout

BLOCK: Final = 4096
GROUP: Final = 4032  # blocks of a cylinder group
VERSION: Final = 1
NO_STAMP: Final = bytes(16)

# --- pointers: kind in the top 8 bits, block number in the low 56 -----------------------------

P_DATA, P_UNWRITTEN, P_NODE, P_XATTR = 1, 2, 3, 4
P_INODE, P_DIR, P_LEAF, P_INDEX = 8, 9, 10, 11

KIND_SHIFT: Final = 56
BLOCK_MASK: Final = (1 << 56) - 1
POINTER: Final = struct.Struct("<Q")


def pointer(kind: int, block: int) -> int:
    """The u64 that names `block` as a block of `kind`."""
    return kind << KIND_SHIFT | block


# --- ffs.super --------------------------------------------------------------------------------

SUPER_MAGIC: Final = 0x31534646  # "FFS1"
SUPER_AT: Final = 16
SUPER_ROOT: Final = 64
F_GROUPING: Final = 1  # small files of a directory lie and are read together (C-FFS)

SUPER_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "magic" / Const(SUPER_MAGIC, Int32ul),  # 16
    "version" / Int32ul,  # 20
    "flags" / Int32ul,  # 24
    "group" / Int32ul,  # 28
    "created" / Int64ul,  # 32
    "uuid" / Bytes(16),  # 40
    "zero" / Padding(8),  # 56
    "root" / Int64ul,  # 64
)
SUPER: Final = struct.Struct(
    "<"
    "I"  # 16 magic
    "I"  # 20 version
    "I"  # 24 flags
    "I"  # 28 group
    "Q"  # 32 created
    "16s"  # 40 uuid
    "8x"  # 56
    "Q"  # 64 root directory
)

# --- the inode header, of ffs.inode and ffs.dir -----------------------------------------------

HEADER_AT: Final = 16
HEADER_LAYOUT: Final = Layout(
    "mode" / Int16ul,  # 16
    "flags" / Int16ul,  # 18
    "uid" / Int32ul,  # 20
    "gid" / Int32ul,  # 24
    "nlink" / Int32ul,  # 28
    "size" / Int64ul,  # 32
    "blocks" / Int64ul,  # 40: owned beyond the inode's own
    "atime" / Int64sl,  # 48
    "mtime" / Int64sl,  # 56
    "ctime" / Int64sl,  # 64
    "crtime" / Int64sl,  # 72
    "generation" / Int32ul,  # 80
    "depth" / Int32ul,  # 84: of the extent tree
    "rmajor" / Int32ul,  # 88
    "rminor" / Int32ul,  # 92
    "key" / Int64ul,  # 96: of the name hash
    "entries" / Int64ul,  # 104
    "parent" / Int64ul,  # 112
    "names" / Int16ul,  # 120: inline names
    "heap" / Int16ul,  # 122: end of the inline names' heap
)
#: Where the size stands, and how.
SIZE_AT: Final = 32
SIZE: Final = struct.Struct("<Q")
HEADER: Final = struct.Struct(
    "<"
    "H"  # 16 mode
    "H"  # 18 flags
    "I"  # 20 uid
    "I"  # 24 gid
    "I"  # 28 nlink
    "Q"  # 32 size
    "Q"  # 40 blocks
    "q"  # 48 atime
    "q"  # 56 mtime
    "q"  # 64 ctime
    "q"  # 72 crtime
    "I"  # 80 generation
    "I"  # 84 depth
    "I"  # 88 rmajor
    "I"  # 92 rminor
    "Q"  # 96 key
    "Q"  # 104 entries
    "Q"  # 112 parent
    "H"  # 120 names
    "H"  # 122 heap
)
RESERVED: Final = (124, 256)

I_INLINE: Final = 1  # bytes or names lie in the inode's block
I_HASHED: Final = 2  # names lie in leaves

XATTR_POINTER: Final = 448
INLINE_AT: Final = 512
INLINE_MAX: Final = 2560
ACL_AT: Final = 3072
ACL_ENTRIES: Final = 63
ACL_COUNT: Final = struct.Struct("<H6x")
ACL_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id
RECORDS_AT: Final = 3584  # extended attributes, to the end of the block
ACL_LAYOUT: Final = Layout(
    "count" / Int16ul,  # 3072
    "zero" / Padding(6),
    "entries"
    / Array(ACL_ENTRIES, Layout("tag" / Int16ul, "perm" / Int16ul, "id" / Int32ul)),  # 3080
)

# --- extents: 16-byte slots -------------------------------------------------------------------

SLOT: Final = struct.Struct("<IIQ")  # first file block, count, pointer
SLOT_LAYOUT: Final = Layout("first" / Int32ul, "count" / Int32ul, "pointer" / Int64ul)
SLOT_SIZE: Final = 16
INODE_SLOTS_AT: Final = 256
INODE_SLOTS: Final = 12
NODE_AT: Final = 16
NODE_HEAD: Final = struct.Struct("<IIQ")  # level, zero, inode
NODE_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "level" / Int32ul,  # 16
    "zero" / Int32ul,  # 20
    "ino" / Int64ul,  # 24
    "unused" / Padding(32),  # 32
    "slots" / Array(250, SLOT_LAYOUT),  # 64
)
NODE_SLOTS_AT: Final = 64
NODE_SLOTS: Final = 250
MAX_DEPTH: Final = 3
MAX_FILE_BLOCKS: Final = 1 << 32

# --- directories ------------------------------------------------------------------------------

RECORD: Final = struct.Struct("<HBB")  # offset of the name in the block, its length, d_type
RECORD_LAYOUT: Final = Layout("offset" / Int16ul, "length" / Int8ul, "d_type" / Int8ul)
TAG: Final = struct.Struct("<I")  # the low 32 bits of the name's hash
TAG_MASK: Final = 0xFFFFFFFF
ENDS: Final = struct.Struct("<HH")  # names in use, end of the heap
LEAF_AT: Final = 16
LEAF_HEAD: Final = struct.Struct(
    "<"
    "Q"  # 16 directory
    "Q"  # 24 lowest hash
    "Q"  # 32 highest hash
    "H"  # 40 names
    "H"  # 42 heap end
)
LEAF_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "ino" / Int64ul,  # 16
    "lo" / Int64ul,  # 24
    "hi" / Int64ul,  # 32
    "names" / Int16ul,  # 40
    "heap" / Int16ul,  # 42
    "unused" / Padding(20),  # 44
    "pointers" / Array(128, Int64ul),  # 64
    "records" / Array(128, RECORD_LAYOUT),  # 1088
    "tags" / Array(128, Int32ul),  # 1600
)
INDEX_HEAD: Final = struct.Struct(
    "<"
    "Q"  # 16 directory
    "Q"  # 24 lowest hash
    "I"  # 32 level
    "4x"
)
INDEX_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "ino" / Int64ul,  # 16
    "lo" / Int64ul,  # 24
    "level" / Int32ul,  # 32
    "unused" / Padding(28),  # 36
    "pointers" / Array(256, Int64ul),  # 64
)


class NameArea(NamedTuple):
    """Where names lie in a block: the one shape of an inline directory and of a leaf."""

    pointers: int  # u64 each
    slots: int
    records: int  # RECORD each
    tags: int  # TAG each
    heap: int
    limit: int  # end of the heap
    ends: int  # ENDS


INLINE_NAMES: Final = NameArea(512, 64, 1024, 1280, 1536, 3072, 120)
LEAF_NAMES: Final = NameArea(64, 128, 1088, 1600, 2112, 4096, 40)

DIR_TABLE_AT: Final = 512
DIR_TABLE_SLOTS: Final = 64
DIR_TABLE_SHIFT: Final = 58
INDEX_TABLE_AT: Final = 64
INDEX_TABLE_SLOTS: Final = 256
INDEX_FIRST_LEVEL: Final = 6
INDEX_LAST_LEVEL: Final = 54
HASH_MAX: Final = (1 << 64) - 1

# --- extended attributes ----------------------------------------------------------------------

XATTR_LAYOUT: Final = Layout("namespace" / Int8ul, "name" / Int8ul, "value" / Int16ul)
XATTR_INO_AT: Final = 16  # of ffs.xattr
XATTR_BLOCK_AT: Final = 64
