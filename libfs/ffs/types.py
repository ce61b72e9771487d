"""The nine block types of FFS and their downloaded code: what XN knows about this file system.

`owns` says which blocks a block points at; `acl` says who may change what. Both run inside the
kernel, verified; `rules` has the text of the larger checks. Not here: what only the file system
knows (`check`), and rules that need more than two blocks to decide (the sticky bit, two leaves
with one range): `names`, `check`.

What the acls guarantee, whatever libFS makes the call:

- A1 names are well formed, lie in the leaf that their hash belongs to, and are unique in it; a
  directory is born without any;
- A2 only who may write and search a directory changes its names, and what its header says of them
  but for the link count of an empty one, which goes to 0 with its name: who may write and search
  its parent, which is the witness then;
- A3 only the owner changes mode, group, access list, and times at will; only root changes owners;
- A4 who writes to a file changes none of that: set-id bits can only go, times are now; who has no
  right to write to a directory, symlink or device does not move the time of its last write;
- A5 a new inode belongs to who made it;
- A6 the header of an inode can be decoded: nobody's own makes the file system unreadable to others.

The right to write data is checked when a file is opened (`op` 0): POSIX keeps it after a chmod.
Root repairs: A3 to A5 don't bind uid 0, A1 and A6 do.
"""

from __future__ import annotations

from textwrap import indent
from typing import Final

from libfs.ffs import format as f
from libfs.ffs.rules import ACCESS, BIRTH, HEADER, NAMES, SANE
from xnfs import T_UNREADABLE, TypeSpec

SUPER: Final = "ffs.super"
DIR: Final = "ffs.dir"
LEAF: Final = "ffs.leaf"
INDEX: Final = "ffs.index"
INODE: Final = "ffs.inode"
NODE: Final = "ffs.node"
XATTR: Final = "ffs.xattr"
DATA: Final = "ffs.data"
UNWRITTEN: Final = "ffs.unwritten"

#: How old the time of a change may be when it reaches the kernel, ns.
SLACK: Final = 10_000_000_000


def _acl(body: str) -> str:
    signature = "def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):\n"
    return signature + indent(body, "    ")


def _fill(text: str, **words: object) -> str:
    for word, value in words.items():
        text = text.replace(word, str(value))
    return text


_CHANGED: Final = HEADER.replace("SLACK", str(SLACK))
_BOUNDS: Final = {"MOST": f.MAX_FILE_BLOCKS * f.BLOCK, "DEPTH": f.MAX_DEPTH}
_SANE_FILE: Final = _fill(SANE, **_BOUNDS, KIND=f"inline > 0 and size > {f.INLINE_MAX}")
_SANE_DIR: Final = _fill(SANE, **_BOUNDS, KIND="inline == u16(new, 18) >> 1 & 1")


def _names(area: f.NameArea, key: str, moved: str, lo: str, hi: str) -> str:
    """The rule A1 for one shape of name block. `key`, `lo` and `hi` are expressions."""
    return _fill(
        NAMES,
        CHUNKS=area.slots // 16,
        RECORDS=area.records,
        TAGS=area.tags,
        SLOTS=area.slots,
        WORDS=(area.limit - area.heap) // 8,
        HEAP=area.heap,
        LIMIT=area.limit,
        ENDS=area.ends,
        MOVED=moved,
        KEY=key,
        LO=lo,
        HI=hi,
    )


_SUPER_ACL: Final = """\
if op == 1 and uid > 0:
    return 1
return 0
"""

_INODE_ACL: Final = f"""\
want = mask
if op == 3:
    return mask if uid > 0 else 0
if op > 0:
{indent(_SANE_FILE, "    ")}\
if op == 2:
    if u16(new, 16) >> 12 not in (1, 2, 6, 8, 10, 12):
        return 22
{indent(BIRTH, "    ")}\
    return 0
if op == 1:
    want = 0
    if u16(old, 16) >> 12 == 10 and uid > 0:
        if not same(old, 512, new, 512, 2560) or not same(old, 32, new, 32, 8):
            return 1
        if mask == 0 and not same(old, {f.INODE_SLOTS_AT}, new, {f.INODE_SLOTS_AT}, 192):
            return 1
{indent(_CHANGED, "    ")}\
    if want == 0:
        return 0
{ACCESS.replace("BUF", "old")}"""

_DIR_ACL: Final = f"""\
want = mask
if op == 3:
    return mask if uid > 0 else 0
if op > 0:
{indent(_SANE_DIR, "    ")}\
if op == 2:
    if u16(new, 16) >> 12 != 4:
        return 20
    if not zero(new, 512, 2560) or u32(new, 120) != {f.INLINE_NAMES.heap << 16}:
        return 117
{indent(BIRTH, "    ")}\
    return 0
if op == 1:
    want = 0
{indent(_CHANGED, "    ")}\
    if u64(old, 112) != u64(new, 112):
        want = 2
    orphan = 0
    if uid > 0:
        links, entries = u32(new, 28), u64(new, 104)
        if links != u32(old, 28):
            if links | entries == 0 and witno == u64(old, 112):
                orphan = 1
            else:
                want = 3
        if entries != u64(old, 104) or u64(new, 32) != u64(old, 32):
            want = 3
        elif u16(old, 18) != u16(new, 18) or u32(old, 84) != u32(new, 84):
            want = 3
        elif not same(old, 124, new, 124, 324) or not same(old, 456, new, 456, 56):
            want = 3
    if not same(old, 512, new, 512, 2560) or u32(old, 120) != u32(new, 120):
        want = 3
        if u16(new, 18) & 2 > 0:
            if not zero(new, 1024, 2048):
                return 117
        else:
{indent(_names(f.INLINE_NAMES, "u64(new, 96)", "0", "0", str(f.HASH_MAX)), " " * 12)}\
    if orphan and want == 0:
        want = 3
{indent(ACCESS.replace("BUF", "wit"), "        ")}\
    if orphan:
        want = 3
    if want == 0:
        return 0
{ACCESS.replace("BUF", "old")}"""

#: A leaf or an index knows its directory's inode; the caller shows it (A2).
_BELOW_DIR: Final = """\
if op == 0 or op == 3:
    return 0
want = 3
if witno != u64(new, 16):
    return 22
"""

_LEAF_ACL: Final = f"""\
{_BELOW_DIR}\
if op == 1 and uid > 0 and witno != u64(old, 16):
    return 22
if not same(old, 44, new, 44, 20):
    return 117
fresh = 0
if op == 2 or not same(old, 24, new, 24, 16):
    fresh = 1
key, lo, hi = u64(wit, 96), u64(new, 24), u64(new, 32)
{_names(f.LEAF_NAMES, "key", "fresh", "lo", "hi")}\
{ACCESS.replace("BUF", "wit")}"""

_INDEX_ACL: Final = f"""\
{_BELOW_DIR}\
if not same(old, 36, new, 36, 28):
    return 117
if op == 1 and uid > 0 and not same(old, 16, new, 16, 48):
    return 117
{ACCESS.replace("BUF", "wit")}"""

_XATTR_ACL: Final = f"""\
if op == 0 or op == 3:
    return 0
want = 2
if witno != u64(new, 16):
    return 22
if not same(old, 24, new, 24, 40):
    return 117
if uid == u32(wit, 20):
    return 0
{ACCESS.replace("BUF", "wit")}"""

_NODE_ACL: Final = """\
if op == 1 and uid > 0 and not same(old, 16, new, 16, 48):
    return 117
if u32(new, 16) > 2:
    return 117
return 0
"""

_SUPER_OWNS: Final = """\
def owns(meta, part):
    p = u64(meta, 64)
    if p >> 56 == 9:
        emit(0, p & 0xffffffffffffff, 1)
"""

_DIR_OWNS: Final = """\
def owns(meta, part):
    at = 448 if part == 64 else 512 + part * 8
    p = u64(meta, at)
    kind = p >> 56
    if part == 64:
        if kind == 4:
            emit(4, p & 0xffffffffffffff, 1)
    elif kind >= 8 and kind <= 11:
        emit(kind - 8, p & 0xffffffffffffff, 1)
"""

#: Pointers of 8 bytes from offset 64, whose kinds are LOW and LOW + 1.
_TABLE_OWNS: Final = """\
def owns(meta, part):
    p = u64(meta, 64 + part * 8)
    kind = p >> 56
    if kind >= LOW and kind <= LOW + 1:
        emit(kind - LOW, p & 0xffffffffffffff, 1)
"""

_INODE_OWNS: Final = """\
def owns(meta, part):
    if part == 12:
        p = u64(meta, 448)
        if p >> 56 == 4:
            emit(3, p & 0xffffffffffffff, 1)
    else:
        count, p = u32(meta, 260 + part * 16), u64(meta, 264 + part * 16)
        kind = p >> 56
        if kind == 1 or kind == 2:
            emit(kind - 1, p & 0xffffffffffffff, count)
        elif kind == 3:
            emit(2, p & 0xffffffffffffff, 1)
"""

_NODE_OWNS: Final = """\
def owns(meta, part):
    count, p = u32(meta, 68 + part * 16), u64(meta, 72 + part * 16)
    kind = p >> 56
    if kind == 1 or kind == 2:
        emit(kind - 1, p & 0xffffffffffffff, count)
    elif kind == 3:
        emit(2, p & 0xffffffffffffff, 1)
"""

_SLOT_REFS: Final = (DATA, UNWRITTEN, NODE)

TYPES: Final = (
    TypeSpec(DATA),
    TypeSpec(UNWRITTEN, flags=T_UNREADABLE),
    TypeSpec(XATTR, acl=_acl(_XATTR_ACL), stamp=0),
    TypeSpec(
        NODE,
        owns=_NODE_OWNS,
        acl=_acl(_NODE_ACL),
        parts=((f.NODE_SLOTS_AT, 16, 16, f.NODE_SLOTS),),
        stamp=0,
        refs=_SLOT_REFS,
    ),
    TypeSpec(
        INODE,
        owns=_INODE_OWNS,
        acl=_acl(_INODE_ACL),
        parts=((f.INODE_SLOTS_AT, 16, 16, f.INODE_SLOTS), (f.XATTR_POINTER, 8, 8, 1)),
        stamp=0,
        refs=(*_SLOT_REFS, XATTR),
    ),
    TypeSpec(
        LEAF,
        owns=_fill(_TABLE_OWNS, LOW=f.P_INODE),
        acl=_acl(_LEAF_ACL),
        parts=((f.LEAF_NAMES.pointers, 8, 8, f.LEAF_NAMES.slots),),
        stamp=0,
        refs=(INODE, DIR),
    ),
    TypeSpec(
        INDEX,
        owns=_fill(_TABLE_OWNS, LOW=f.P_LEAF),
        acl=_acl(_INDEX_ACL),
        parts=((f.INDEX_TABLE_AT, 8, 8, f.INDEX_TABLE_SLOTS),),
        stamp=0,
        refs=(LEAF, INDEX),
    ),
    TypeSpec(
        DIR,
        owns=_DIR_OWNS,
        acl=_acl(_DIR_ACL),
        parts=((f.DIR_TABLE_AT, 8, 8, f.DIR_TABLE_SLOTS), (f.XATTR_POINTER, 8, 8, 1)),
        stamp=0,
        refs=(INODE, DIR, LEAF, INDEX, XATTR),
    ),
    TypeSpec(
        SUPER,
        owns=_SUPER_OWNS,
        acl=_acl(_SUPER_ACL),
        parts=((f.SUPER_ROOT, 8, 8, 1),),
        stamp=0,
        refs=(DIR,),
    ),
)
