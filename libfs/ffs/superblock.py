"""The super block of FFS, and making an empty file system."""

from __future__ import annotations

import stat
import uuid as uuids
from typing import NamedTuple

from libfs.ffs import format as f
from libfs.ffs import types as t
from libfs.ffs.inode import Vnode
from xnfs import Caller, CorruptionError, NoSpace, RootInfo, Xn


class Super(NamedTuple):
    """What the super block says."""

    flags: int
    created: int
    uuid: bytes
    root: int


def decode_super_untrusted(block: int, raw: bytes) -> Super:
    """Raises CorruptionError: not an FFS, or one of a later version."""
    magic, version, flags, group, created, uuid, pointer = f.SUPER.unpack_from(raw, f.SUPER_AT)
    for field, got, want in (
        ("magic", magic, f.SUPER_MAGIC),
        ("version", version, f.VERSION),
        ("flags", flags & ~f.F_GROUPING, 0),
        ("group size", group, f.GROUP),
        ("kind of the root", pointer >> f.KIND_SHIFT, f.P_DIR),
    ):
        if got != want:
            raise CorruptionError(block, field, got, want)
    return Super(flags, created, uuid, pointer & f.BLOCK_MASK)


def make(
    xn: Xn, cap: bytes, name: str, *, uid: int, gid: int, mode: int, flags: int, uuid: bytes | None
) -> None:
    """Install the types, a root, and in it an empty directory. Durable on return.

    Raises XnError: the name is taken, no space, the capability is not for the whole disk.
    """
    who = Caller(cap)
    for spec in t.TYPES:
        xn.install_type(who, spec)
    number = xn.type_number(t.SUPER)
    assert number is not None  # just installed
    info = xn.install_root(who, name, number)
    identity = uuid or uuids.uuid4().bytes
    _make_root(xn, info, name, identity, flags, (stat.S_IFDIR | mode, uid, gid))
    xn.sync(who)


def _make_root(
    xn: Xn, info: RootInfo, name: str, uuid: bytes, flags: int, owner: tuple[int, int, int]
) -> None:
    mode, uid, gid = owner
    now = xn.now()
    block, found = xn.find_free(info.block + 1, 1)
    number = xn.type_number(t.DIR)
    if not found or number is None:
        raise NoSpace("no block for the root directory")
    pointer = f.pointer(f.P_DIR, block)
    head = f.SUPER.pack(f.SUPER_MAGIC, f.VERSION, flags, f.GROUP, now, uuid, pointer)
    key = int.from_bytes(uuids.uuid5(uuids.UUID(bytes=uuid), name).bytes[:8], "little")
    fields = (
        *(mode, f.I_INLINE, uid, gid, 2, 0, 0, now, now, now, now),
        *(now // 1000 & 0xFFFFFFFF, 0, 0, 0, key, 0, block, 0, f.INLINE_NAMES.heap),
    )
    xn.change(
        Caller(info.cap),
        [(info.block, [(f.SUPER_AT, head)])],
        alloc=[(number, block, 1)],
        inits={block: [(f.HEADER_AT, Vnode(block, fields).pack())]},
    )
