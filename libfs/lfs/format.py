"""Every byte of LFS on the disk, declared once: for mkfs, mount, fsck and dump.

`construct` is the authority (what a reader or a dump looks at); the `struct.Struct` beside it is
what hot paths use, and a property test holds both to the same bytes. Nothing here interprets.
SPEC.md says the same in prose.

All numbers are little-endian. Blocks of the super block's tree (`lfs.super`, `lfs.segments`,
`lfs.summary`) begin with the kernel's stamp; all others but data begin with a head of LFS's own.
"""

from __future__ import annotations

import struct
from typing import Final

from construct import Array, Bytes, Const, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul, Padding
from construct import Struct as Layout

BLOCK: Final = 4096
VERSION: Final = 1

# --- pointers that own: kind in the top 8 bits, count in the next 8, block in the low 48 --------

P_DATA, P_INODES, P_MAP1, P_MAP2, P_MAP3, P_NAMES, P_XATTR, P_GONE, P_SNAPSHOT = range(1, 10)
P_UNWRITTEN: Final = 10  # of a summary: the rest of its segment
KINDS: Final = 10
P_CHECKPOINT, P_SEGMENTS, P_SUMMARY = 1, 2, 3  # in lfs.super and lfs.segments

KIND_SHIFT: Final = 56
COUNT_SHIFT: Final = 48
COUNT_MASK: Final = 255
BLOCK_MASK: Final = (1 << COUNT_SHIFT) - 1
POINTER: Final = struct.Struct("<Q")


def pointer(kind: int, block: int, count: int = 1) -> int:
    """The u64 that owns `count` blocks of `kind` from `block` on."""
    return kind << KIND_SHIFT | count << COUNT_SHIFT | block


# --- addresses, which own nothing: block in the low 34 bits, index of a record in the next 8, epoch
# --- (snapshots taken before it was written) in the top 22. 0: nothing.

INDEX_SHIFT: Final = 34
EPOCH_SHIFT: Final = 42
AT_MASK: Final = (1 << INDEX_SHIFT) - 1
INDEX_MASK: Final = 255
EPOCH_MAX: Final = (1 << 22) - 1


def address(block: int, epoch: int, index: int = 0) -> int:
    """The u64 that says where something is."""
    return epoch << EPOCH_SHIFT | index << INDEX_SHIFT | block


#: In the map of a file: a block that is promised (fallocate), reads as zeros and lies nowhere.
RESERVED: Final = 2

# --- lfs.super --------------------------------------------------------------------------------

SUPER_MAGIC: Final = 0x3153464C  # "LFS1"
SUPER_AT: Final = 16
SUPER_REGIONS: Final = 64  # two pointers
SUPER_TABLE: Final = 128  # pointers to lfs.segments
TABLES: Final = 496
MAX_RUN: Final = 84  # blocks of lfs.segments that a pointer owns, at most: half a segment
SUPER_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "magic" / Const(SUPER_MAGIC, Int32ul),  # 16
    "version" / Int32ul,  # 20
    "segment" / Int32ul,  # 24
    "run" / Int32ul,  # 28
    "created" / Int64ul,  # 32
    "uuid" / Bytes(16),  # 40
    "zero" / Padding(8),  # 56
    "regions" / Array(2, Int64ul),  # 64
    "usage" / Int64ul,  # 80
    "promised" / Int32ul,  # 88
    "zero" / Padding(36),  # 92
    "tables" / Array(TABLES, Int64ul),  # 128
)
SUPER: Final = struct.Struct(
    "<"
    "I"  # 16 magic
    "I"  # 20 version
    "I"  # 24 blocks of a segment
    "I"  # 28 blocks of the segment table behind each pointer
    "Q"  # 32 created
    "16s"  # 40 uuid
)
SUPER_USAGE_AT: Final = 80
SUPER_USAGE: Final = struct.Struct(
    "<"
    "Q"  # 80 the segment table has the usage as it was at the end of this flush
    "I"  # 88 blocks that were promised then
)

# --- lfs.segments: 168 entries of the segment table ---------------------------------------------

SLOTS: Final = 168  # of a summary and of a block of the segment table
#: Blocks of a segment, its summary among them: as many as that can describe, or less in small
#: images. All of them divide the 4032 blocks of a sector of the free map.
SEGMENT_SIZES: Final = (168, 84, 42, 21, 12)
#: An image has so many segments, or the smallest ones, and not less than so many of these.
GOOD_SEGMENTS: Final = 64
MIN_SEGMENTS: Final = 12

ENTRIES_AT: Final = 64
ENTRY_SIZE: Final = 24
ENTRY: Final = struct.Struct(
    "<"
    "Q"  # 0 pointer to the summary
    "I"  # 8 live bytes
    "I"  # 12 blocks, the summary among them
    "q"  # 16 time of the youngest block, ns
)
ENTRY_LAYOUT: Final = Layout(
    "pointer" / Int64ul, "live" / Int32ul, "blocks" / Int32ul, "youngest" / Int64sl
)
USAGE: Final = struct.Struct("<IIq")  # an entry without its pointer
SEGMENTS_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "unused" / Padding(48),  # 16
    "entries" / Array(SLOTS, ENTRY_LAYOUT),  # 64
)

# --- lfs.summary ------------------------------------------------------------------------------

SUMMARY_AT: Final = 16
SUMMARY_HEAD: Final = struct.Struct(
    "<"
    "Q"  # 16 serial number of the segment in the log
    "I"  # 24 segment
    "I"  # 28 the segment after it in the log, + 1; 0: none yet
    "Q"  # 32 done: flushes from `first` to this one are whole
    "Q"  # 40 first flush of the mount that began the segment
)
SUMMARY_NEXT_AT: Final = 28
SUMMARY_NEXT: Final = struct.Struct("<I")
SUMMARY_DONE_AT: Final = 32
#: The pointer that owns what is not written yet. Slot i owns the i-th block after the summary.
REST_AT: Final = 56
SLOTS_AT: Final = 64
SLOT_SIZE: Final = 24
SLOT: Final = struct.Struct(
    "<"
    "Q"  # 0 pointer
    "I"  # 8 inode
    "I"  # 12 place in it
    "Q"  # 16 number of the flush
)
SLOT_OF: Final = struct.Struct("<II")  # inode and place of a slot
SLOT_LAYOUT: Final = Layout("pointer" / Int64ul, "ino" / Int32ul, "at" / Int32ul, "flush" / Int64ul)
SUMMARY_LAYOUT: Final = Layout(
    "stamp" / Bytes(16),  # 0
    "serial" / Int64ul,  # 16
    "segment" / Int32ul,  # 24
    "next" / Int32ul,  # 28
    "done" / Int64ul,  # 32
    "first" / Int64ul,  # 40
    "unused" / Padding(8),  # 48
    "rest" / Int64ul,  # 56
    "slots" / Array(SLOTS, SLOT_LAYOUT),  # 64
)

# --- the head of blocks that the kernel does not stamp ------------------------------------------

HEAD_SIZE: Final = 16
HEAD: Final = struct.Struct(
    "<"
    "I"  # 0 crc
    "I"  # 4 kind; of a checkpoint: its magic
    "Q"  # 8 number of the flush
)
CRC: Final = struct.Struct("<I")

# --- the map of an inode, and the inode map -----------------------------------------------------

TOPS: Final = 34  # addresses in the record
FAN: Final = 504  # addresses in a block
MAX_DEPTH: Final = 3
NODE_AT: Final = 16
NODE_HEAD: Final = struct.Struct(
    "<"
    "I"  # 16 inode; 0: the inode map
    "I"  # 20 index of the node in its level
)
NODE_VALUES: Final = 64
NODE_LAYOUT: Final = Layout(
    "crc" / Int32ul,  # 0
    "kind" / Int32ul,  # 4
    "flush" / Int64ul,  # 8
    "ino" / Int32ul,  # 16
    "index" / Int32ul,  # 20
    "unused" / Padding(40),  # 24
    "values" / Array(FAN, Int64ul),  # 64
)
MAX_FILE_BLOCKS: Final = 1 << 32

# --- lfs.checkpoint ---------------------------------------------------------------------------

CHECKPOINT_MAGIC: Final = 0x50434B43  # "CKCP"
CHECKPOINT_AT: Final = 16
CHECKPOINT: Final = struct.Struct(
    "<"
    "Q"  # 16 number of the checkpoint
    "Q"  # 24 flush: the last one that the map knows
    "Q"  # 32 serial of the segment where the log goes on
    "I"  # 40 that segment
    "I"  # 44 offset in it
    "q"  # 48 time, ns
    "I"  # 56 next inode number
    "I"  # 60 epoch
    "I"  # 64 depth of the inode map
    "I"  # 68 number of its addresses
    "I"  # 72 number of snapshots
    "4x"  # 76
)
CHECKPOINT_TOPS: Final = 80
CHECKPOINT_SNAPSHOTS: Final = 352  # addresses of lfs.snapshot blocks
MAX_SNAPSHOTS: Final = 128
CHECKPOINT_LAYOUT: Final = Layout(
    "crc" / Int32ul,  # 0
    "magic" / Int32ul,  # 4
    "zero" / Padding(8),  # 8
    "number" / Int64ul,  # 16
    "flush" / Int64ul,  # 24
    "serial" / Int64ul,  # 32
    "segment" / Int32ul,  # 40
    "offset" / Int32ul,  # 44
    "time" / Int64sl,  # 48
    "next_ino" / Int32ul,  # 56
    "epoch" / Int32ul,  # 60
    "depth" / Int32ul,  # 64
    "tops" / Int32ul,  # 68
    "snapshots" / Int32ul,  # 72
    "zero" / Padding(4),  # 76
    "map" / Array(TOPS, Int64ul),  # 80
    "names" / Array(MAX_SNAPSHOTS, Int64ul),  # 352
)

# --- lfs.inodes: records ------------------------------------------------------------------------

INODES_AT: Final = 16
INODES_HEAD: Final = struct.Struct("<H14x")  # 16 number of records
OFFSETS_AT: Final = 32
OFFSET: Final = struct.Struct("<H")  # where each record begins
OFFSET_INO: Final = struct.Struct("<I")  # the inode number, with which a record begins
MAX_RECORDS: Final = 64
RECORDS_AT: Final = OFFSETS_AT + MAX_RECORDS * OFFSET.size  # 160

I_INLINE: Final = 1  # bytes or names lie in the record
RECORD: Final = struct.Struct(
    "<"
    "I"  # 0 inode number
    "H"  # 4 mode
    "H"  # 6 flags
    "I"  # 8 uid
    "I"  # 12 gid
    "I"  # 16 nlink
    "I"  # 20 generation
    "Q"  # 24 size
    "Q"  # 32 blocks of data or names
    "q"  # 40 atime
    "q"  # 48 mtime
    "q"  # 56 ctime
    "q"  # 64 crtime
    "I"  # 72 rdev major
    "I"  # 76 rdev minor
    "I"  # 80 parent directory
    "B"  # 84 depth of the map
    "B"  # 85 bits of the hash that the map of a directory decides
    "H"  # 86 number of addresses
    "Q"  # 88 key of the name hash
    "Q"  # 96 entries
    "Q"  # 104 address of a block of attributes
    "H"  # 112 bytes of attributes in the record
    "H"  # 114 bytes of content in the record
    "4x"  # 116
)
RECORD_LAYOUT: Final = Layout(
    "ino" / Int32ul,  # 0
    "mode" / Int16ul,  # 4
    "flags" / Int16ul,  # 6
    "uid" / Int32ul,  # 8
    "gid" / Int32ul,  # 12
    "nlink" / Int32ul,  # 16
    "generation" / Int32ul,  # 20
    "size" / Int64ul,  # 24
    "blocks" / Int64ul,  # 32
    "atime" / Int64sl,  # 40
    "mtime" / Int64sl,  # 48
    "ctime" / Int64sl,  # 56
    "crtime" / Int64sl,  # 64
    "rmajor" / Int32ul,  # 72
    "rminor" / Int32ul,  # 76
    "parent" / Int32ul,  # 80
    "depth" / Int8ul,  # 84
    "bits" / Int8ul,  # 85
    "tops" / Int16ul,  # 86
    "key" / Int64ul,  # 88
    "entries" / Int64ul,  # 96
    "xattr" / Int64ul,  # 104
    "xattr_size" / Int16ul,  # 112
    "content" / Int16ul,  # 114
    "zero" / Padding(4),  # 116
)
#: Inline content, at most: bytes of a file, or names.
INLINE_MAX: Final = 2560
#: Attributes in the record, at most; in all: a block.
XATTR_INLINE: Final = 640
XATTR_MAX: Final = BLOCK - 64
XATTR_AT: Final = 64  # in lfs.xattr; at 16: u32 inode, u32 length
XATTR_BLOCK: Final = struct.Struct("<II")

# --- names: in a record, or in lfs.names ----------------------------------------------------------

NAME: Final = struct.Struct("<IBB")  # inode, d_type, length; then the name
NAMES_AT: Final = 16
NAMES_HEAD: Final = struct.Struct(
    "<"
    "I"  # 16 directory
    "I"  # 20 lowest hash, its high 32 bits
    "H"  # 24 bits of the hash that all its names share
    "H"  # 26 names
    "H"  # 28 bytes of them
    "2x"
)
NAMES_CONTENT: Final = 32
MAX_BITS: Final = 32
HASH_MAX: Final = (1 << 64) - 1

# --- lfs.gone: inodes that are no more ------------------------------------------------------------

GONE_AT: Final = 16
GONE_COUNT: Final = struct.Struct("<I")
GONE_INOS: Final = 32
GONE_MAX: Final = (BLOCK - GONE_INOS) // 4

# --- lfs.snapshot ---------------------------------------------------------------------------------

SNAPSHOT_AT: Final = 16
SNAPSHOT: Final = struct.Struct(
    "<"
    "64s"  # 16 name
    "q"  # 80 time
    "I"  # 88 epoch
    "I"  # 92 next inode
    "I"  # 96 depth of the inode map
    "I"  # 100 number of its addresses
    "Q"  # 104 flush: the newest one that it has
)
SNAPSHOT_LAYOUT: Final = Layout(
    "crc" / Int32ul,  # 0
    "kind" / Int32ul,  # 4
    "flush" / Int64ul,  # 8
    "name" / Bytes(64),  # 16
    "time" / Int64sl,  # 80
    "epoch" / Int32ul,  # 88
    "next_ino" / Int32ul,  # 92
    "depth" / Int32ul,  # 96
    "tops" / Int32ul,  # 100
    "last" / Int64ul,  # 104
    "unused" / Padding(16),  # 112
    "map" / Array(TOPS, Int64ul),  # 128
)
SNAPSHOT_TOPS: Final = 128


ROOT_INO: Final = 1
INO_MAX: Final = (1 << 32) - 2
