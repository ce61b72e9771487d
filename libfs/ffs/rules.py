"""What the `acl` UDFs of FFS check, as text: fragments that `types` puts together.

The language of downloaded code has no functions, so a rule that two types share is a fragment;
words in capitals are places that `types` fills in. Offsets are those of `format`. A fragment
either returns an errno or falls through. Numbers: 1 EPERM, 13 EACCES, 17 EEXIST, 20 ENOTDIR, 22
EINVAL, 117 EUCLEAN."""

from __future__ import annotations

from typing import Final

#: Ends an acl: may the caller do `want` with the inode in BUF? Linux's order: owner, list, group.
ACCESS: Final = """\
mode = u16(BUF, 16)
if uid == 0:
    if want & 1 and mode >> 12 != 4 and mode & 73 == 0:
        return 13
    return 0
bits = mode & 7
group = u32(BUF, 24)
count = u16(BUF, 3072)
if uid == u32(BUF, 20):
    bits = mode >> 6 & 7
elif count > 0:
    hit = 0
    for i in range(63):
        if i >= count:
            break
        tag, perm, id = u16(BUF, 3080 + i * 8), u16(BUF, 3082 + i * 8), u32(BUF, 3084 + i * 8)
        perm = perm & mode >> 3 & 7
        if tag == 2 and id == uid:
            return 0 if perm & want == want else 13
        if tag == 4:
            id = group
        if tag == 4 or tag == 8:
            if id == gid or id in groups:
                hit = 1
                if perm & want == want:
                    return 0
    if hit:
        return 13
elif gid == group or group in groups:
    bits = mode >> 3 & 7
return 0 if bits & want == want else 13
"""

#: A1, for a block of names after a change. A name appended to the heap is checked alone; any other
#: change must leave the block in its canonical form (sorted by hash), which is checked whole.
NAMES: Final = """\
moved = MOVED
at = 0
where = 0
for c in range(CHUNKS):
    fixed = same(old, RECORDS + c * 64, new, RECORDS + c * 64, 64)
    if not fixed or not same(old, TAGS + c * 64, new, TAGS + c * 64, 64):
        was = u32s(old, RECORDS + c * 64, 16)
        now_is = u32s(new, RECORDS + c * 64, 16)
        tag_was = u32s(old, TAGS + c * 64, 16)
        tag_is = u32s(new, TAGS + c * 64, 16)
        for i in range(16):
            r = now_is[i] & 0xffffff
            if r == was[i] & 0xffffff:
                if tag_is[i] != tag_was[i]:
                    moved = 1
            elif r > 0:
                if at > 0:
                    moved = 1
                at = r
                where = c * 64 + i * 4
begin = u16(old, ENDS + 2)
end = u16(new, ENDS + 2)
if end < HEAP or end > LIMIT:
    return 117
single = 0
if moved == 0 and begin >= HEAP and begin <= LIMIT:
    if at == 0 and begin == end and same(old, HEAP, new, HEAP, LIMIT - HEAP):
        single = 1
    if at & 0xffff == begin and same(old, HEAP, new, HEAP, begin - HEAP):
        single = 2
if single == 2:
    size = at >> 16
    if size == 0 or begin + size != end:
        return 117
    for k in range(255):
        p = begin + k
        if p >= end:
            break
        if u8(new, p) in (0, 47):
            return 22
    if begin + size > len(new):
        return 117
    h = hash64(new, begin, size, KEY)
    if h < LO or h > HI:
        return 22
    tag = h & 0xffffffff
    if u32(new, TAGS + where) != tag:
        return 117
    if tag == 0 or tag in u32s(old, TAGS, SLOTS):
        for k in range(SLOTS):
            r = u32(new, RECORDS + k * 4)
            if u32(new, TAGS + k * 4) == tag and r >> 16 & 255 == size and k * 4 != where:
                off = r & 0xffff
                if off + size > len(new):
                    return 117
                if same(new, off, new, begin, size):
                    return 17
if single == 0:
    low = LO
    for k in range(SLOTS):
        r = u32(new, RECORDS + k * 4)
        size = r >> 16 & 255
        off = r & 0xffff
        if size > 0:
            if off < HEAP or off + size > len(new) or off + size > end:
                return 117
            h = hash64(new, off, size, KEY)
            if h < low or h > HI:
                return 17
            if u32(new, TAGS + k * 4) != h & 0xffffffff:
                return 117
            low = min(h, 0xfffffffffffffffe) + 1
        elif r & 0xffffff > 0:
            return 117
    for k in range(WORDS):
        p = HEAP + k * 8
        if p + 8 > end:
            for j in range(7):
                q = p + j
                if q >= end:
                    break
                if u8(new, q) in (0, 47):
                    return 22
            break
        w = u64(new, p)
        x = w ^ 0x2f2f2f2f2f2f2f2f
        m = 0x7f7f7f7f7f7f7f7f
        t = ((w & m) + m | w) & ((x & m) + m | x) & 0x8080808080808080
        if t != 0x8080808080808080:
            return 22
"""

#: A3 and A4: the header of an inode that exists. Sets `want` if the caller needs more than that.
#: Size and times of a regular file are set by who writes to it, which is asked when it is opened;
#: nobody opens a directory, a link or a device for writing here. Links of a directory: in its acl.
HEADER: Final = """\
if uid > 0:
    om = u16(old, 16)
    nm = u16(new, 16)
    flip = om ^ nm
    if flip >> 12 > 0 or not same(old, 72, new, 72, 12) or not same(old, 88, new, 88, 16):
        return 1
    before, after = u32(old, 28), u32(new, 28)
    if om >> 12 != 4 and (before > after + 2 or after > before + 1):
        return 1
    stamp = u64(new, 64)
    if stamp != u64(old, 64) and (stamp > now or now - stamp > SLACK):
        return 1
    if u32(old, 20) != u32(new, 20):
        return 1
    owned = u32(new, 24)
    if uid == u32(old, 20):
        member = 0
        if owned == gid or owned in groups:
            member = 1
        if owned != u32(old, 24) and member == 0:
            return 1
        if flip & nm & 1024 > 0 and member == 0:
            return 1
    else:
        if flip & 0xf3ff > 0 or flip & nm > 0 or owned != u32(old, 24):
            return 1
        stamp = u64(new, 56)
        if stamp != u64(old, 56):
            if stamp > now or now - stamp > SLACK:
                return 1
            if om >> 12 != 8:
                want = 2
        if om >> 12 == 4 and u64(old, 40) != u64(new, 40):
            want = 2
        if u64(new, 48) != u64(old, 48) and u64(new, 48) > now:
            return 1
        if not same(old, 3072, new, 3072, 512):
            return 1
        if not same(old, 448, new, 448, 8) or not same(old, 3584, new, 3584, 512):
            want = 2
"""

#: A6: the header of any inode, old or new, can be decoded (`inode.decode_untrusted` asks the same).
SANE: Final = """\
size = u64(new, 32)
if size > MOST or (u64(new, 40) | u64(new, 104)) >> 56 > 0 or u32(new, 84) > DEPTH:
    return 117
inline = u16(new, 18) & 1
if KIND:
    return 117
"""

#: A5: the header of a new inode. A directory with the set-group-id bit gives its own group; which
#: block the witness is, the caller chose (or it is the leaf that got the name). Only an inode has
#: times at 48..64: the acls of leaves, indexes and attribute blocks keep those bytes zero.
BIRTH: Final = """\
if uid > 0:
    owned = u32(new, 24)
    if u32(new, 20) != uid:
        return 1
    if owned != gid and owned not in groups:
        if u16(wit, 16) & 0xf400 != 0x4400 or u16(wit, 18) not in (1, 2):
            return 1
        if u64(wit, 48) | u64(wit, 56) == 0 or owned != u32(wit, 24):
            return 1
    if u64(new, 48) > now or u64(new, 56) > now or u64(new, 64) > now or u64(new, 72) > now:
        return 1
"""
