"""The format of NoteFs: what is on the disk, and what XN is told of it.

A *node* (file, directory, symbolic link, ...) is one block: a header, 128 slots, and for a
directory its names. A file's slots point at its data, 512 KiB at most; a directory's point at its
nodes, 128 at most. The number of a node is the number of its block. The root directory is the block
that XN names in its catalogue, so there is no superblock.

       0  the kernel's stamp: checksum, type, transaction
      16  header: mode, links, owner, group, device, size, four times
     128  128 slots of 8 bytes: what kind of block in the highest byte, which one in the others
    1152  names, one behind the other: slot, length, bytes

`OWNS` says which blocks a node points at: each slot is one *partition*. `ACL` says who may change
what. Both run inside the kernel, which has proved that they end and read nothing but what they are
given.
"""

from __future__ import annotations

import errno
import stat
import struct
from dataclasses import dataclass, field, replace
from itertools import pairwise

from libfs.posix.interface import FsError
from xnfs import BLOCK, CorruptionError, Diff, TypeSpec

#: mode, links, owner, group, device, size, times of birth, reading, writing, change
HEADER = struct.Struct("<IIIIQQQQQQ")
HEADER_AT, SLOTS_AT, SLOTS, NAMES_AT = 16, 128, 128, 1152
#: What a slot points at.
DATA, NODE = 1, 2
#: Where a node is cut into pieces, so that a change names only those that differ.
CUTS = (HEADER_AT, *range(SLOTS_AT, NAMES_AT + 1, 8), BLOCK)

OWNS = """\
def owns(meta, part):
    pointer = u64(meta, 128 + 8 * part)
    kind = pointer >> 56
    if kind == 1 or kind == 2:
        emit(kind - 1, pointer & 0xffffffffffffff, 1)
"""

# op: 0 = may I read 4, write 2, search 1 (mask); 1 = change; 2 = birth; 3 = death.
ACL = """\
def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):
    mode, owner, group = u32(old, 16), u32(old, 24), u32(old, 28)
    if op == 3:
        return mask if uid > 0 else 0
    if uid == 0:
        return 13 if op == 0 and mask & 1 == 1 and mode & 0x4049 == 0 else 0
    if op == 2:
        return 0 if u32(new, 24) == uid else 1
    want = mask
    if op == 1:
        if owner != u32(new, 24) or (uid != owner and u32(new, 16) | mode != mode):
            return 1
        want = 0 if mode >> 12 != 4 or same(old, 128, new, 128, 3968) else 3
    have = mode
    if uid == owner:
        have = mode >> 6
    elif gid == group or group in groups:
        have = mode >> 3
    return 0 if have & want == want else 13
"""

TYPES = (
    TypeSpec("notefs.data"),
    TypeSpec(
        "notefs.node",
        owns=OWNS,
        acl=ACL,
        parts=((SLOTS_AT, 8, 8, SLOTS),),
        stamp=0,
        refs=("notefs.data", "notefs.node"),
    ),
)


@dataclass(slots=True)
class Node:
    """One node in memory. `names`: of a directory, name -> slot."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    crtime: int
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    slots: list[int] = field(default_factory=lambda: [0] * SLOTS)
    names: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ctime:  # it is new
            self.atime = self.mtime = self.ctime = self.crtime

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def copy(self) -> Node:
        """One to be changed."""
        return replace(self, slots=self.slots[:], names=dict(self.names))

    def at(self, slot: int) -> int:
        """The block that a slot points at; 0 = none."""
        return self.slots[slot] & (1 << 56) - 1

    def point(self, slot: int, kind: int, block: int) -> None:
        """Let a slot point at a block."""
        self.slots[slot] = kind << 56 | block

    def pack(self) -> bytes:
        """The block. Raises ENOSPC if the names do not fit."""
        head = HEADER.pack(
            *(self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size),
            *(self.crtime, self.atime, self.mtime, self.ctime),
        )
        names = b"".join(bytes((slot, len(name))) + name for name, slot in self.names.items())
        if len(names) > BLOCK - NAMES_AT:
            raise FsError(errno.ENOSPC, "the directory is full")
        head = (bytes(HEADER_AT) + head).ljust(SLOTS_AT, b"\0")
        return (head + struct.pack(f"<{SLOTS}Q", *self.slots) + names).ljust(BLOCK, b"\0")


def diff(old: bytes, new: bytes) -> Diff:
    """What a change of a node says to XN."""
    return [(lo, new[lo:hi]) for lo, hi in pairwise(CUTS) if old[lo:hi] != new[lo:hi]]


def decode_untrusted(block: int, raw: bytes) -> Node:
    """A node from its block. Raises CorruptionError."""
    node = Node(*HEADER.unpack_from(raw, HEADER_AT))
    node.slots = list(struct.unpack_from(f"<{SLOTS}Q", raw, SLOTS_AT))
    at = NAMES_AT
    while node.is_dir and at + 2 <= BLOCK and raw[at + 1]:
        slot, end = raw[at], at + 2 + raw[at + 1]
        if end > BLOCK or slot >= SLOTS or node.slots[slot] >> 56 != NODE:
            raise CorruptionError(block, "name", slot, "a slot that points at a node")
        node.names[raw[at + 2 : end]] = slot
        at = end
    return node
