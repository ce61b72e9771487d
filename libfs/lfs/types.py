"""The block types of LFS and their downloaded code: what XN knows about this file system.

Three types own: the super block its checkpoint regions and the segment table, the table the
summaries, a summary the blocks of its segment. All others are plain data to XN: written once, in
any order, never through XN's log. What they mean is checked by whoever reads them (`blocks.py`).

The acls let uid 0 change what is owned, and nobody else: a flush brings the changes of many users
at once, so the rules of POSIX are kept above, and the kernel keeps one file system from another.
"""

from __future__ import annotations

from typing import Final

from libfs.lfs import format as f
from xnfs import T_UNREADABLE, TypeSpec

SUPER: Final = "lfs.super"
CHECKPOINT: Final = "lfs.checkpoint"
SEGMENTS: Final = "lfs.segments"
SUMMARY: Final = "lfs.summary"
DATA: Final = "lfs.data"
INODES: Final = "lfs.inodes"
MAP: Final = "lfs.map"
NAMES: Final = "lfs.names"
XATTR: Final = "lfs.xattr"
GONE: Final = "lfs.gone"
SNAPSHOT: Final = "lfs.snapshot"
UNWRITTEN: Final = "lfs.unwritten"

#: The type of each kind of pointer in a summary, from kind 1 on.
KIND_TYPES: Final = (DATA, INODES, MAP, MAP, MAP, NAMES, XATTR, GONE, SNAPSHOT, UNWRITTEN)

_ACL: Final = """\
def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):
    if op > 0 and uid > 0:
        return 1
    return 0
"""

_SUPER_OWNS: Final = """\
def owns(meta, part):
    at = 64 + part * 8 if part < 2 else 112 + part * 8
    p = u64(meta, at)
    kind = p >> 56
    if kind == 1 or kind == 2:
        emit(kind - 1, p & 0xffffffffffff, p >> 48 & 255)
"""

_SEGMENTS_OWNS: Final = """\
def owns(meta, part):
    p = u64(meta, 64 + part * 24)
    if p >> 56 == 3:
        emit(0, p & 0xffffffffffff, p >> 48 & 255)
"""

_SUMMARY_OWNS: Final = f"""\
def owns(meta, part):
    at = 56 if part == 0 else 40 + part * 24
    p = u64(meta, at)
    kind = p >> 56
    if kind >= 1 and kind <= {f.KINDS}:
        emit(kind - 1, p & 0xffffffffffff, p >> 48 & 255)
"""

TYPES: Final = (
    TypeSpec(DATA),
    TypeSpec(INODES),
    TypeSpec(MAP),
    TypeSpec(NAMES),
    TypeSpec(XATTR),
    TypeSpec(GONE),
    TypeSpec(SNAPSHOT),
    TypeSpec(CHECKPOINT),
    TypeSpec(UNWRITTEN, flags=T_UNREADABLE),
    TypeSpec(
        SUMMARY,
        owns=_SUMMARY_OWNS,
        acl=_ACL,
        parts=((f.REST_AT, 8, 8, 1), (f.SLOTS_AT, f.SLOT_SIZE, 8, f.SLOTS)),
        stamp=0,
        refs=KIND_TYPES,
    ),
    TypeSpec(
        SEGMENTS,
        owns=_SEGMENTS_OWNS,
        acl=_ACL,
        parts=((f.ENTRIES_AT, f.ENTRY_SIZE, 8, f.SLOTS),),
        stamp=0,
        refs=(SUMMARY,),
    ),
    TypeSpec(
        SUPER,
        owns=_SUPER_OWNS,
        acl=_ACL,
        parts=((f.SUPER_REGIONS, 8, 8, 2), (f.SUPER_TABLE, 8, 8, f.TABLES)),
        stamp=0,
        refs=(CHECKPOINT, SEGMENTS),
    ),
)
