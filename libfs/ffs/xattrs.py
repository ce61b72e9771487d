"""Extended attributes: in the inode's block after offset 3584, the rest in one `ffs.xattr` block.

The access list (`system.posix_acl_access`) has a place of its own, in the form in which the acl UDF
evaluates it; every other attribute is a record. Values are small: what does not fit is ENOSPC.
Who may set what is decided by the POSIX layer and the acls.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final

from libfs.common.attributes import (
    Attributes,
    check_flags,
    parse_untrusted,
    record,
    split_name,
)
from libfs.ffs import format as f
from libfs.ffs.inode import Vnode
from libfs.ffs.place import Placer
from libfs.ffs.volume import Batch, Volume
from libfs.posix.interface import ACL_ACCESS, FsError
from xnfs import Caller, CorruptionError

ACL_VERSION: Final = b"\x02\0\0\0"
INSIDE: Final = f.BLOCK - f.RECORDS_AT
OUTSIDE: Final = f.BLOCK - f.XATTR_BLOCK_AT


class Xattrs:
    """Attributes of the inodes of a mount."""

    def __init__(self, vol: Volume, place: Placer) -> None:
        self._vol = vol
        self._place = place

    def get(self, v: Vnode, name: bytes) -> bytes:
        """Raises: ENODATA, EOPNOTSUPP (unknown namespace)."""
        if name == ACL_ACCESS:
            value = _acl_value(self._vol.block(v.ino))
        else:
            split_name(name)
            value = self._records(v).get(name)
        if value is None:
            raise FsError(errno.ENODATA)
        return value

    def list(self, v: Vnode) -> Sequence[bytes]:
        """All names."""
        names = list(self._records(v))
        if _acl_value(self._vol.block(v.ino)) is not None:
            names.append(ACL_ACCESS)
        return names

    def set(self, who: Caller, v: Vnode, name: bytes, value: bytes, flags: int) -> None:
        """Raises: EEXIST, ENODATA, ENOSPC, EOPNOTSUPP."""
        if name == ACL_ACCESS:
            there = _acl_value(self._vol.block(v.ino)) is not None
            check_flags(flags, there)
            self._store(who, v, acl=_acl_area(value))
            return
        split_name(name)
        records = self._records(v)
        check_flags(flags, name in records)
        records[name] = value
        self._store(who, v, records=records)

    def remove(self, who: Caller, v: Vnode, name: bytes) -> None:
        """Raises: ENODATA."""
        self.get(v, name)
        if name == ACL_ACCESS:
            self._store(who, v, acl=bytes(f.RECORDS_AT - f.ACL_AT))
            return
        records = self._records(v)
        del records[name]
        self._store(who, v, records=records)

    def finish(self, v: Vnode, xattrs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set those attributes of a new inode that `birth_areas` had no room for."""
        missing = [(n, value) for n, value in xattrs if n != ACL_ACCESS]
        if not missing:
            return
        records = self._records(v)
        for name, value in missing:
            if name not in records:
                self.set(self._vol.who, v, name, value, 0)

    def has_block(self, v: Vnode) -> bool:
        """Whether there is a block of attributes."""
        return self.block(v) != 0

    def drop_block(self, v: Vnode) -> None:
        """Give the block of attributes back, as the inode goes."""
        if block := self.block(v):
            batch = Batch(self._vol, self._vol.who)
            self._free(batch, v, block)
            batch.commit()
            self._vol.gone(block)

    # -- bytes

    def block(self, v: Vnode) -> int:
        """The block of attributes, with its home known; 0 if there is none."""
        raw = self._vol.block(v.ino)
        pointer: int = f.POINTER.unpack_from(raw, f.XATTR_POINTER)[0]
        if pointer and pointer >> f.KIND_SHIFT != f.P_XATTR:
            raise CorruptionError(v.ino, "xattr pointer", hex(pointer), "kind 4")
        block = pointer & f.BLOCK_MASK
        if block:
            self._vol.set_home(block, v.ino, 64 if v.is_dir else f.INODE_SLOTS)
        return block

    def _records(self, v: Vnode) -> Attributes:
        out: Attributes = {}
        parse_untrusted(v.ino, self._vol.block(v.ino)[f.RECORDS_AT :], out)
        if block := self.block(v):
            parse_untrusted(block, self._vol.block(block)[f.XATTR_BLOCK_AT :], out)
        return out

    def _store(
        self,
        who: Caller,
        v: Vnode,
        *,
        acl: bytes | None = None,
        records: Attributes | None = None,
    ) -> None:
        vol = self._vol
        if v.dirty:
            vol.flush(v)
        batch = Batch(vol, who)
        batch.set(v, ctime=vol.now())
        gone = 0
        if acl is not None:
            batch.edit(v.ino, f.ACL_AT, acl)
        if records is not None:
            gone = self._store_records(batch, v, records)
        batch.commit()
        v.rights.clear()
        if gone:
            vol.gone(gone)

    def _store_records(self, batch: Batch, v: Vnode, records: Attributes) -> int:
        """Lay all records out again; the block that was given back, or 0."""
        inside, outside = _pack(records.items())
        batch.edit(v.ino, f.RECORDS_AT, inside)
        block = self.block(v)
        if outside and block:
            batch.edit(block, f.XATTR_BLOCK_AT, outside)
            batch.witnesses[block] = v.ino
        elif outside:
            self._take(batch, v, outside)
        elif block:
            self._free(batch, v, block)
            return block
        return 0

    def _take(self, batch: Batch, v: Vnode, outside: bytes) -> None:
        block, _n = self._vol.find_free(self._place.near(v), 1)
        head = (f.XATTR_INO_AT, f.POINTER.pack(v.ino))
        batch.birth(f.P_XATTR, block, [head, (f.XATTR_BLOCK_AT, outside)], v.ino)
        pointer = f.POINTER.pack(f.pointer(f.P_XATTR, block))
        batch.edit(v.ino, f.XATTR_POINTER, pointer)
        batch.set(v, blocks=v.blocks + 1)

    def _free(self, batch: Batch, v: Vnode, block: int) -> None:
        batch.edit(v.ino, f.XATTR_POINTER, bytes(8))
        batch.free.append((self._vol.type[f.P_XATTR], block, 1))
        batch.set(v, blocks=max(v.blocks - 1, 0))


def _pack(records: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """The two areas, padded; the second empty if it isn't needed. Raises: ENOSPC."""
    inside, outside = bytearray(), bytearray()
    for name, value in records:
        if len(value) > OUTSIDE:
            raise FsError(errno.ENOSPC)
        packed = record(name, value)
        if len(inside) + len(packed) <= INSIDE:
            inside += packed
        else:
            outside += packed
    if len(outside) > OUTSIDE:
        raise FsError(errno.ENOSPC)
    padded = bytes(outside.ljust(OUTSIDE, b"\0")) if outside else b""
    return bytes(inside.ljust(INSIDE, b"\0")), padded


def _acl_area(value: bytes) -> bytes:
    """The bytes of an access list, from its value. Raises: EINVAL, ENOSPC."""
    body = value[len(ACL_VERSION) :]
    count, odd = divmod(len(body), f.ACL_ENTRY.size)
    if not value.startswith(ACL_VERSION) or odd or not count:
        raise FsError(errno.EINVAL)
    if count > f.ACL_ENTRIES:
        raise FsError(errno.ENOSPC)
    return (f.ACL_COUNT.pack(count) + body).ljust(f.RECORDS_AT - f.ACL_AT, b"\0")


def _acl_value(raw: bytes) -> bytes | None:
    """The value of the access list in an inode's block; None if there is none."""
    (count,) = f.ACL_COUNT.unpack_from(raw, f.ACL_AT)
    if count == 0:
        return None
    at = f.ACL_AT + f.ACL_COUNT.size
    end = at + min(count, f.ACL_ENTRIES) * f.ACL_ENTRY.size
    return ACL_VERSION + raw[at:end]


def birth_areas(xattrs: Sequence[tuple[bytes, bytes]]) -> list[tuple[int, bytes]]:
    """The attributes of a new inode, as far as its own block has room."""
    if not xattrs:
        return []
    out = []
    inside, outside = _pack((n, value) for n, value in xattrs if n != ACL_ACCESS)
    if outside:
        inside = _pack(
            [(n, v) for n, v in xattrs if n != ACL_ACCESS and len(v) + len(n) < INSIDE // 4]
        )[0]
    out.append((f.RECORDS_AT, inside))
    for name, value in xattrs:
        if name == ACL_ACCESS:
            out.append((f.ACL_AT, _acl_area(value)))
    return out
