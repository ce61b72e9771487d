"""A flush: everything that changed in memory goes to the end of the log.

In this order: data, attributes, names, maps, which inodes went, inodes; for a checkpoint also the
inode map and the usage. Each needs the addresses of those before. It is whole in one XN transaction
or counts for nothing (`Log.push`). Nothing is durable on return.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.inode import Vnode, share
from libfs.lfs.tree import Write

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume


def flush_size(vol: Volume, *, checkpoint: bool = False) -> int:
    """How many blocks a flush would write, at most."""
    blocks, records, longest = 0, 0, 1
    for v in vol.dirty.values():
        blocks += len(v.data)
        if v.nlink:
            leaves = [number for number, leaf in v.leaves.items() if leaf.dirty and not v.inline]
            blocks += len(leaves) + v.xattrs_dirty + v.tree.would_write([*v.data, *leaves])
            record = v.record_bound()
            records += record
            longest = max(longest, record)
    # A block has no room for the next record; and two in a row have more than one is long.
    space = f.BLOCK - f.RECORDS_AT
    blocks += min(records // max(space - longest, 1), 2 * records // space) + 1
    blocks += len(vol.dirty) // f.MAX_RECORDS
    blocks += -(-len(vol.gone) // f.GONE_MAX)
    if checkpoint:
        blocks += vol.imap.would_write(vol.dirty)
    return blocks


def flush(vol: Volume, *, checkpoint: bool = False, cleaning: bool = False) -> bool:
    """Write what is dirty; whether there was anything. `checkpoint`: the inode map and the usage,
    too. `cleaning`: the usage, too; and old files first, so that what is seldom written comes to
    lie together. Raises FsError, XnError: then writes stop."""
    if not (vol.dirty or vol.gone or checkpoint or cleaning):
        return False
    try:
        _flush(vol, checkpoint, cleaning)
    except BaseException:
        vol.readonly = True  # part of it has an address and part has not
        raise
    return True


def _flush(vol: Volume, checkpoint: bool, cleaning: bool) -> None:
    log = vol.log
    log.begin()
    vnodes = [vol.dirty[ino] for ino in sorted(vol.dirty)]
    if cleaning:
        vnodes.sort(key=lambda v: v.mtime)
    for v in vnodes:
        vol.time = v.mtime
        _data(vol, v)
    named = [v for v in vnodes if v.nlink]
    vol.time = vol.now()
    for v in named:
        _attributes(vol, v)
        if v.is_dir and not v.inline:
            _leaves(vol, v)
    for v in named:
        v.tree.flush(_writer(vol))
    _gone(vol)
    _inodes(vol, named)
    if checkpoint:
        vol.imap.flush(_writer(vol))
    log.push(done=True, more=_usage(vol) if checkpoint or cleaning else None)
    vol.dirty.clear()
    vol.pending, vol.growth, vol.dirty_blocks = 0.0, 0.0, 0


def _usage(vol: Volume) -> dict[int, list[tuple[int, bytes]]]:
    """Diffs by block: the segment table is right as of the end of this flush."""
    edits = vol.segments.usage_edits()
    edits[vol.super] = [(f.SUPER_USAGE_AT, f.SUPER_USAGE.pack(vol.log.flush, vol.reserved))]
    return edits


def _write(vol: Volume, kind: int, ino: int, at: int, body: bytes) -> int:
    address = vol.log.append(kind, ino, at, body)
    vol.born(address, f.BLOCK)
    return address


def _writer(vol: Volume) -> Write:
    def write(kind: int, ino: int, index: int, values: bytes) -> int:
        head = f.NODE_HEAD.pack(ino, index).ljust(f.NODE_VALUES - f.NODE_AT, b"\0")
        return _write(vol, kind, ino, index, head + values)

    return write


def _data(vol: Volume, v: Vnode) -> None:
    """What has no name would not survive a power cut, so it does not count as live."""
    for at, end in _runs(v.data):
        while at < end:
            some = range(at, min(end, at + f.SLOTS))  # more do not find a place together
            addresses = vol.log.append_data(v.ino, at, [v.data[i] for i in some])
            before = v.tree.put(at, addresses)
            at += len(addresses)
            if v.nlink:
                vol.born(addresses[0], len(addresses) * f.BLOCK)
                for old in filter(None, before):
                    vol.died(old, f.BLOCK)
    v.data.clear()


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers as ranges [first, end), ascending."""
    first = end = 0
    for number in sorted(numbers):
        if number != end:
            if first < end:
                yield first, end
            first = number
        end = number + 1
    if first < end:
        yield first, end


def _attributes(vol: Volume, v: Vnode) -> None:
    if not v.xattrs_dirty:
        return
    v.xattrs_dirty = False
    if v.xattr_at:
        vol.died(v.xattr_at, f.BLOCK)
        v.xattr_at = 0
    packed = v.packed_xattrs()
    if len(packed) > f.XATTR_INLINE:
        head = f.XATTR_BLOCK.pack(v.ino, len(packed)).ljust(f.XATTR_AT - f.HEAD_SIZE, b"\0")
        v.xattr_at = _write(vol, f.P_XATTR, v.ino, 0, head + packed)


def _leaves(vol: Volume, v: Vnode) -> None:
    for number in sorted(n for n, leaf in v.leaves.items() if leaf.dirty):
        leaf = v.leaves[number]
        old = v.tree.set(number, _write(vol, f.P_NAMES, v.ino, leaf.lo >> 32, leaf.image(v.ino)))
        leaf.dirty = False
        if old:
            vol.died(old, f.BLOCK)


def _gone(vol: Volume) -> None:
    for first in range(0, len(vol.gone), f.GONE_MAX):
        some = vol.gone[first : first + f.GONE_MAX]
        head = f.GONE_COUNT.pack(len(some)).ljust(f.GONE_INOS - f.GONE_AT, b"\0")
        vol.log.append(f.P_GONE, 0, 0, head + array("I", some).tobytes())
    vol.gone.clear()


def _inodes(vol: Volume, vnodes: Iterable[Vnode]) -> None:
    """As many records to a block as fit; those of a size together."""
    some: list[tuple[Vnode, bytes]] = []
    size = f.RECORDS_AT
    records = [(v, v.record()) for v in vnodes]
    records.sort(key=lambda each: share(len(each[1])))
    for v, record in records:
        if size + len(record) > f.BLOCK or len(some) == f.MAX_RECORDS:
            _inode_block(vol, some)
            some, size = [], f.RECORDS_AT
        some.append((v, record))
        size += len(record)
    if some:
        _inode_block(vol, some)


def _inode_block(vol: Volume, some: list[tuple[Vnode, bytes]]) -> None:
    offsets = bytearray()
    at = f.RECORDS_AT
    for _v, record in some:
        offsets += f.OFFSET.pack(at)
        at += len(record)
    head = f.INODES_HEAD.pack(len(some)) + offsets.ljust(f.RECORDS_AT - f.OFFSETS_AT, b"\0")
    body = head + b"".join(record for _v, record in some)
    block = vol.log.append(f.P_INODES, some[0][0].ino if len(some) == 1 else 0, len(some), body)
    for index, (v, record) in enumerate(some):
        old = vol.imap.set(v.ino, block | index << f.INDEX_SHIFT)
        if old:
            vol.died(old, v.record_size)
        v.record_size = share(len(record))
        vol.born(block, v.record_size)
