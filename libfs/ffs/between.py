"""A file goes from one FFS to another on the same image, without being copied.

Types belong to the image, not to a root: the same inode, with the same number, data and attributes,
is as good an FFS inode there as here. So nothing is changed but two names, in one change, atomic
over a power cut: XN moves the pointer and lets the file's blocks cross (`Xn.move`).

What XN asks for: that who moves it holds both roots; that nobody else owns a part of it, so a file
with two names stays; that all its metadata is cached. What FFS asks for: that it is no directory,
since one can't show that everything below has one owner without being read whole.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs.directory import Directories
from libfs.ffs.extents import ExtentMap
from libfs.ffs.names import Names
from libfs.ffs.syncing import Sync
from libfs.ffs.volume import Batch, Volume
from libfs.ffs.xattrs import Xattrs
from libfs.posix.interface import FsError
from xnfs import Caller, NotCached, Refused

_TURNS = 4


class Side(NamedTuple):
    """One of the two file systems."""

    vol: Volume
    dirs: Directories
    names: Names
    map: ExtentMap
    xattrs: Xattrs


def send(
    who: Caller, src: Side, parent: int, name: bytes, dst: Side, target: int, new_name: bytes
) -> None:
    """Move the file `name` of the directory `parent` to the name `new_name` in `target`.

    Its bytes are durable before. Raises: see `Ffs.send`.
    """
    if src.vol.xn is not dst.vol.xn:
        raise FsError(errno.EXDEV)
    source, sink = src.vol.directory(parent), dst.vol.directory(target)
    nb = src.dirs.holder(source, name)
    v = src.vol.vnode(src.names.located(nb, name))
    if v.is_dir:
        raise FsError(errno.EISDIR)
    if v.nlink > 1:
        raise FsError(errno.EMLINK, "the file has other names")
    room = dst.names.room(dst.vol.who, sink, new_name)
    # Nothing that waits in memory here has to be known there.
    sync = Sync(src.vol, [v], data_only=False)
    sync.wait()
    sync.done()
    for side, directory in ((src, source), (dst, sink)):
        if directory.dirty:
            side.vol.flush(directory)
    slots = src.map.blocks(v)
    xattr = src.xattrs.block(v)
    metadata = [each.block for each in slots] + [xattr] * (xattr > 0)
    now = src.vol.now()
    out, into = Batch(src.vol, who), Batch(dst.vol, who)
    src.names.remove(out, source, nb, name, now)
    out.set(v, ctime=now)
    dst.names.add(into, sink, room, new_name, v, now)
    try:
        _commit(who, out, into, metadata)
    except Refused as error:
        raise FsError(errno.EBUSY, str(error)) from error
    for block in reversed(metadata):
        src.vol.gone(block)
        dst.vol.cache.touch(block)
    for each in slots:
        for _fb, count, kind, block, _slot in each.entries:
            if kind == f.P_DATA:
                dst.vol.cache.touch_run(block, count)
    if not nb.names and source.flags & f.I_HASHED and source.entries:
        src.dirs.drop_leaf(source, name_hash(source.hash_key, name))


def _commit(who: Caller, out: Batch, into: Batch, metadata: Iterable[int]) -> None:
    """Both batches as one change. Raises XnError, with memory as before."""
    out.prepare()
    into.prepare()
    edits = [*out.edits.items(), *into.edits.items()]
    witnesses = {**out.witnesses, **into.witnesses}
    try:
        for turn in range(_TURNS):
            try:
                out.vol.xn.change(who, edits, witnesses=witnesses)
                break
            except NotCached:
                if turn == _TURNS - 1:
                    raise
                for block in metadata:
                    out.vol.ensure(block)
                out.ensure()
                into.ensure()
    except BaseException:
        out.abandon()
        into.abandon()
        raise
    out.done()
    into.done()
