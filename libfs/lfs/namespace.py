"""What a request does to names: create, link, unlink, rename, exchange; times, link counts.

Everything happens in memory, between two flushes: a flush takes all of it or nothing, so each
request is atomic over a power cut as well. The POSIX layer has checked what POSIX asks for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from libfs.common.devices import split_device
from libfs.common.naming import name_hash
from libfs.lfs import format as f
from libfs.lfs.inode import DT_DIR, DT_LNK, Vnode
from libfs.lfs.names import Entry, Leaf
from libfs.lfs.volume import Volume
from libfs.posix.interface import Dirent, FsError, Ino, New

#: Blocks that a record may cost: several share one.
RECORD_COST = 0.5
#: Cookies have 62 bits.
COOKIE_SHIFT = 2


class Namespace:
    """The directories of a mount."""

    def __init__(self, vol: Volume) -> None:
        self._vol = vol

    # -- looking

    def find(self, v: Vnode, name: bytes) -> Entry | None:
        """(inode, d_type) of a name."""
        leaf = v.leaves[0] if v.inline else self._leaf(v, name_hash(v.key, name))
        return leaf.names.get(name)

    def _leaf(self, v: Vnode, h: int) -> Leaf:
        """The leaf of a hash: the nearest at or before its number."""
        number = h >> (64 - v.bits)
        for clear in range(v.bits + 1):
            leaf = self._vol.leaf(v, number >> clear << clear)
            if leaf is not None:
                return leaf
        raise FsError(errno.EUCLEAN, f"directory {v.ino} has no leaf for a hash")

    def entries(self, v: Vnode, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie`, in the order of their hash."""
        h = cookie << COOKIE_SHIFT
        while h <= f.HASH_MAX:
            leaf = v.leaves[0] if v.inline else self._leaf(v, h)
            after = f.HASH_MAX + 1 if v.inline else leaf.hi + 1
            for found, name in list(leaf.sorted(v.key)):
                entry = leaf.names.get(name)
                if found >= h and entry is not None:
                    yield Dirent(name, Ino(entry[0]), entry[1], (found >> COOKIE_SHIFT) + 1)
            h = after

    # -- one name

    def _enter(self, v: Vnode, name: bytes, ino: int, d_type: int) -> None:
        """Let `name` be `ino`, whether it was there or not."""
        leaf = self._place(v, name)
        v.entries += name not in leaf.names
        leaf.put(name, (ino, d_type))
        self._touch(v)

    def _place(self, v: Vnode, name: bytes) -> Leaf:
        """The leaf where a name is or can be added."""
        if v.inline:
            leaf = v.leaves[0]
            if name in leaf.names or leaf.fits(name, f.INLINE_MAX):
                return leaf
            v.flags &= ~f.I_INLINE
            leaf.dirty = True
            v.blocks += 1
        while True:
            leaf = self._leaf(v, name_hash(v.key, name))
            if name in leaf.names or leaf.fits(name):
                return leaf
            self._split(v, leaf)

    def _split(self, v: Vnode, leaf: Leaf) -> None:
        if leaf.bits == v.bits:
            self._double(v)
        upper = leaf.split(v.key)
        v.leaves[upper.lo >> (64 - v.bits)] = upper
        v.blocks += 1
        self._vol.pending += 2

    def _double(self, v: Vnode) -> None:
        """Decide one more bit: every leaf's number doubles."""
        if v.bits == f.MAX_BITS:
            raise FsError(errno.ENOSPC)
        numbers = v.tree.clear(0, f.MAX_FILE_BLOCKS)
        for number, address in numbers:
            v.tree.set(2 * number, address)
        v.leaves = {2 * number: leaf for number, leaf in v.leaves.items()}
        v.bits += 1
        self._vol.pending += len(v.tree.dirty)

    def _leave(self, v: Vnode, name: bytes) -> Entry:
        """Take a name away. Raises: ENOENT."""
        leaf = v.leaves[0] if v.inline else self._leaf(v, name_hash(v.key, name))
        if name not in leaf.names:
            raise FsError(errno.ENOENT)
        entry = leaf.remove(name)
        v.entries -= 1
        if not v.entries and not v.inline:
            self._empty(v)
        self._touch(v)
        return entry

    def _empty(self, v: Vnode) -> None:
        """No name is left: back to a record."""
        for _number, address in v.tree.clear(0, f.MAX_FILE_BLOCKS):
            self._vol.died(address, f.BLOCK)
        v.leaves = {0: Leaf(0, 0)}
        v.bits = v.blocks = 0
        v.flags |= f.I_INLINE

    def _cost(self, v: Vnode, name: bytes) -> float:
        """Blocks that a flush may write more if a name of the directory changes."""
        cost = 0.0 if v.ino in self._vol.dirty else RECORD_COST
        if v.inline:
            return cost if v.leaves[0].fits(name, f.INLINE_MAX) else cost + 2
        leaf = self._leaf(v, name_hash(v.key, name))
        return cost if leaf.dirty else cost + 1 + v.tree.depth

    def _touch(self, v: Vnode) -> None:
        v.mtime = v.ctime = self._vol.now()
        self._vol.changed(v)

    # -- requests

    def new(self, new: New, parent: int) -> Vnode:
        """An inode without a name."""
        vol = self._vol
        now = vol.now()
        v = Vnode(vol.new_ino(), new.mode, vol)
        v.uid, v.gid, v.parent = new.uid, new.gid, parent
        v.rmajor, v.rminor = split_device(new.rdev)
        v.atime = v.mtime = v.ctime = v.crtime = now
        v.generation = now // 1000 & 0xFFFFFFFF
        v.xattrs = dict(new.xattrs)
        v.xattrs_dirty = bool(new.xattrs)
        if v.is_dir:
            v.key = name_hash(vol.uuid[:8], b"%d %d" % (v.ino, now)).to_bytes(8, "little")
        elif v.mode >> 12 == DT_LNK:
            self._set_target(v, new.target)
        vol.vnodes[v.ino] = v
        vol.changed(v)
        return v

    def _set_target(self, v: Vnode, target: bytes) -> None:
        v.size = len(target)
        if len(target) <= f.INLINE_MAX:
            v.content = target
        else:
            v.flags &= ~f.I_INLINE
            v.data[0] = bytearray(target.ljust(f.BLOCK, b"\0"))
            v.blocks = 1
            self._vol.dirty_blocks += 1

    def create(self, parent: Vnode, name: bytes, new: New) -> Vnode:
        """Raises: EEXIST, ENOSPC."""
        if self.find(parent, name) is not None:
            raise FsError(errno.EEXIST)
        more = RECORD_COST + len(new.target) // f.INLINE_MAX
        self._vol.want(self._cost(parent, name) + more, more)
        v = self.new(new, parent.ino)
        self._enter(parent, name, v.ino, v.mode >> 12)
        v.nlink = 1
        if v.is_dir:
            v.nlink = 2
            parent.nlink += 1
        return v

    def link(self, v: Vnode, parent: Vnode, name: bytes) -> None:
        """Raises: EEXIST, ENOSPC."""
        if self.find(parent, name) is not None:
            raise FsError(errno.EEXIST)
        self._vol.want(self._cost(parent, name) + RECORD_COST, RECORD_COST)
        self._enter(parent, name, v.ino, v.mode >> 12)
        if not v.nlink:
            self._vol.all_of(v, self._vol.born)
        v.nlink += 1
        v.ctime = self._vol.now()
        self._vol.changed(v)

    def attach(self, parent: Vnode, name: bytes, v: Vnode) -> None:
        """For the checker: a name, whatever it stood for; counts are its own to mend."""
        self._enter(parent, name, v.ino, v.mode >> 12)
        self._vol.changed(v)

    def unlink(self, parent: Vnode, name: bytes, *, keep: bool) -> None:
        """Raises: ENOENT, ENOTEMPTY."""
        entry = self.find(parent, name)
        if entry is None:
            raise FsError(errno.ENOENT)
        v = self._vol.vnode(entry[0])
        if v.entries:
            raise FsError(errno.ENOTEMPTY)
        self._vol.want(self._cost(parent, name) + RECORD_COST, delete=True)
        self._leave(parent, name)
        self._drop(parent, v, keep=keep)

    def rename(self, src: Vnode, name: bytes, dst: Vnode, new_name: bytes, *, keep: bool) -> None:
        """Raises: ENOENT, ENOSPC."""
        entry, replaced = self.find(src, name), self.find(dst, new_name)
        if entry is None:
            raise FsError(errno.ENOENT)
        v = self._vol.vnode(entry[0])
        victim = None if replaced is None else self._vol.vnode(replaced[0])
        cost = self._cost(src, name) + self._cost(dst, new_name) + 2 * RECORD_COST
        self._vol.want(cost, RECORD_COST)
        self._enter(dst, new_name, *entry)  # the one that may find no place
        self._leave(src, name)
        self._moved(src, dst, v)
        if victim is not None:
            self._drop(dst, victim, keep=keep)

    def exchange(self, a: Vnode, a_name: bytes, b: Vnode, b_name: bytes) -> None:
        """Raises: ENOENT, ENOSPC."""
        one, other = self.find(a, a_name), self.find(b, b_name)
        if one is None or other is None:
            raise FsError(errno.ENOENT)
        first, second = self._vol.vnode(one[0]), self._vol.vnode(other[0])
        self._vol.want(self._cost(a, a_name) + self._cost(b, b_name) + 2 * RECORD_COST)
        self._enter(a, a_name, *other)
        self._enter(b, b_name, *one)
        self._moved(a, b, first)
        self._moved(b, a, second)

    def _moved(self, src: Vnode, dst: Vnode, v: Vnode) -> None:
        """`v` went from one directory to another."""
        v.ctime = self._vol.now()
        if v.is_dir:
            v.parent = dst.ino
            src.nlink -= 1
            dst.nlink += 1
        self._vol.changed(v)

    def _drop(self, parent: Vnode, v: Vnode, *, keep: bool) -> None:
        """`v` lost a name in `parent`."""
        vol = self._vol
        v.ctime = vol.now()
        v.nlink -= 1
        if v.mode >> 12 == DT_DIR:
            parent.nlink -= 1
            v.nlink = 0
        vol.changed(v)
        if v.nlink:
            return
        # The map forgets it now: open or not, it does not survive a power cut.
        old = vol.imap.set(v.ino, 0) if vol.imap.get(v.ino) else 0
        if old:
            vol.gone.append(v.ino)
            vol.died(old, v.record_size)
        vol.all_of(v, vol.died)
        if not keep:
            vol.release(v)

    def forget(self, v: Vnode) -> None:
        """The last user of an inode without a name is gone."""
        self._vol.release(v)
