"""Changes of names: create, link, unlink, rename, exchange. Each is one change, atomic in memory
and over a power cut: the names, the link counts and times at both ends, and the inode that comes
or goes.

The directory's acl decides who may change names (rules A1, A2); the sticky rule needs the owner of
the victim, which no acl sees, and stands here. Room for a name is made before, by changes of their
own (`Directories.room`). Kinds, loops and emptiness of rename were checked by the POSIX layer.

An inode that loses its last name is freed in the same change if its own block tells all that it
owns; otherwise it is held by the temporary root, cut in slices and let go, so that a crash at
any point leaves either the name and the whole file or neither."""

from __future__ import annotations

import errno
from hashlib import blake2b
from typing import Final, NamedTuple

from libfs.common.devices import split_device
from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs.data import FileData
from libfs.ffs.directory import Directories
from libfs.ffs.extents import ExtentMap
from libfs.ffs.inode import DT_DIR, DT_LNK, DT_REG, Vnode
from libfs.ffs.nameblock import NameBlock
from libfs.ffs.place import Placer
from libfs.ffs.volume import Batch, Volume
from libfs.ffs.xattrs import Xattrs, birth_areas
from libfs.posix.interface import FsError, New, User
from xnfs import Caller

LINK_MAX: Final = 65000
STICKY: Final = 0o1000

#: What becomes of an inode that loses a name: it has others; it is freed by the same change; it is
#: kept by the temporary root for who has it open; or until it has been cut to nothing.
STAYS, GONE, HELD, CUT = range(4)


class End(NamedTuple):
    """An inode that loses the name in slot `slot` of `block`."""

    v: Vnode
    block: int
    slot: int
    fate: int


class Names:
    """The name operations of a mount."""

    def __init__(
        self,
        vol: Volume,
        place: Placer,
        directories: Directories,
        extents: ExtentMap,
        data: FileData,
        xattrs: Xattrs,
        uuid: bytes,
    ) -> None:
        self._vol = vol
        self._place = place
        self._dirs = directories
        self._map = extents
        self._data = data
        self._xattrs = xattrs
        self._uuid = uuid

    # -- new inodes

    def create(self, user: User, parent: Vnode, name: bytes, new: New) -> int:
        """A new inode with its first name. Raises: EEXIST, ENOENT (the directory was removed)."""
        who = self._vol.caller(user)
        nb = self.room(who, parent, name)
        is_dir = new.mode >> 12 == DT_DIR
        if is_dir and parent.nlink >= LINK_MAX:
            raise FsError(errno.EMLINK)
        block = self._place.directory(parent) if is_dir else self._place.inode(parent)
        v = self.inode(block, new, parent.ino)
        far = 0 if v.flags & f.I_INLINE or not new.target else self._target_block(v)
        batch = Batch(self._vol, who)
        self.add(batch, parent, nb, name, v, v.crtime)
        if is_dir:
            batch.set(parent, nlink=parent.nlink + 1)
        self._birth(batch, v, new, parent.ino, far)
        batch.commit()
        self._vol.vnodes[block] = v
        if far:
            self._vol.cache.wrote(far, 1)
        self._xattrs.finish(v, new.xattrs)
        return block

    def anonymous(self, user: User, new: New) -> int:
        """A new inode without a name, held by the temporary root."""
        vol = self._vol
        block, _n = vol.find_free(vol.super + 1, 1)
        v = self.inode(block, new, 0)
        v.nlink = 0
        diff = [(f.HEADER_AT, v.pack()), *birth_areas(new.xattrs)]
        extent = (vol.type[f.P_INODE], block, 1)
        # No directory to show to the acl: a group that comes from one is taken on trust.
        member = new.gid == user.gid or new.gid in user.groups
        who = vol.caller(user) if member else vol.who
        vol.retry(1, lambda: vol.xn.alloc_held(who, vol.super, extent, init=diff))
        vol.vnodes[block] = v
        vol.cache.touch(block)
        self._xattrs.finish(v, new.xattrs)
        return block

    def inode(self, block: int, new: New, parent: int) -> Vnode:
        """A new inode in memory."""
        now = self._vol.now()
        kind = new.mode >> 12
        major, minor = split_device(new.rdev)
        flags = 0
        names = heap = 0
        key = 0
        if kind == DT_DIR:
            flags, heap = f.I_INLINE, f.INLINE_NAMES.heap
            key = _key(self._uuid, block, now)
        elif kind == DT_REG or len(new.target) <= f.INLINE_MAX:
            flags = f.I_INLINE if kind in (DT_REG, DT_LNK) else 0
        fields = (
            *(new.mode, flags, new.uid, new.gid, 2 if kind == DT_DIR else 1),
            *(len(new.target), 0, now, now, now, now, now // 1000 & 0xFFFFFFFF, 0),
            *(major, minor, key, 0, parent if kind == DT_DIR else 0, names, heap),
        )
        return Vnode(block, fields)

    def _birth(self, batch: Batch, v: Vnode, new: New, witness: int, far: int) -> None:
        """Allocate the block of `v`, with what it starts with; `far`: a block for the target."""
        diff = birth_areas(new.xattrs)
        if far:
            batch.alloc.append((self._vol.type[f.P_DATA], far, 1))
            batch.fill(far, new.target)
            diff.append((f.INODE_SLOTS_AT, f.SLOT.pack(0, 1, f.pointer(f.P_DATA, far))))
            batch.set(v, blocks=1)
        elif new.target:
            diff.append((f.INLINE_AT, new.target))
        batch.birth(v.kind, v.ino, diff, witness)
        batch.set(v)

    def _target_block(self, v: Vnode) -> int:
        """A block for the target of a symlink that does not fit in the inode."""
        start, _n = self._vol.find_free(v.ino + 1, 1)
        if start == v.ino:
            raise FsError(errno.ENOSPC)
        return start

    # -- adding and removing

    def room(self, who: Caller, parent: Vnode, name: bytes) -> NameBlock:
        """Room for a name that must not be there."""
        if not parent.nlink:
            raise FsError(errno.ENOENT)
        return self._dirs.room(who, parent, name)

    def add(
        self, batch: Batch, parent: Vnode, nb: NameBlock, name: bytes, v: Vnode, now: int
    ) -> None:
        """Put a name into the block that has room for it."""
        slot = nb.add(name, v.ino, v.kind, v.mode >> 12)
        batch.home(v.ino, nb.block, slot)
        self._touch(batch, parent, nb, now, 1)

    def _touch(self, batch: Batch, parent: Vnode, nb: NameBlock, now: int, more: int) -> None:
        """The names of `nb` changed: so do times and counts of the directory."""
        batch.use(nb, parent.ino)
        batch.set(parent, mtime=now, ctime=now, entries=parent.entries + more)
        if nb.block == parent.ino:
            batch.set(parent, names=len(nb.names), heap=nb.end)

    def settle(self, user: User, *vnodes: Vnode) -> None:
        """Write what waits in headers that a user is about to change: the acl would take the times
        that wait for the user's own. Where he is the owner or uid 0 he might set them, and what
        waits goes with the change."""
        for v in vnodes:
            if v.dirty and user.uid not in (0, v.uid):
                self._vol.flush(v)

    def link(self, user: User, v: Vnode, parent: Vnode, name: bytes) -> None:
        """One more name. Raises: EEXIST, EMLINK."""
        if v.nlink >= LINK_MAX:
            raise FsError(errno.EMLINK)
        vol, who = self._vol, self._vol.caller(user)
        nb = self.room(who, parent, name)
        self.settle(user, v, parent)
        first, now = not v.nlink, vol.now()
        batch = Batch(vol, who)
        self.add(batch, parent, nb, name, v, now)
        batch.share.append((vol.type[v.kind], v.ino, 1))
        batch.set(v, nlink=v.nlink + 1, ctime=now)
        batch.commit()
        if first:
            vol.xn.drop(vol.who, v.ino)

    def unlink(self, user: User, parent: Vnode, name: bytes, *, keep: bool) -> None:
        """Remove a name. Raises: ENOENT, ENOTEMPTY, EPERM (sticky)."""
        nb = self._dirs.holder(parent, name)
        v = self._vol.vnode(self.located(nb, name))
        self._check_sticky(user, parent, v)
        if v.is_dir:
            self._check_empty(v)
        end = self._end(user, v, nb, name, keep)
        self.settle(user, parent)
        now = self._vol.now()
        batch = Batch(self._vol, self._vol.caller(user))
        self.remove(batch, parent, nb, name, now)
        if v.is_dir:
            batch.set(parent, nlink=parent.nlink - 1)
        self._lose(batch, end, now)
        self._commit(batch, end)
        if not nb.names and parent.flags & f.I_HASHED and parent.entries:
            self._dirs.drop_leaf(parent, name_hash(parent.hash_key, name))

    def located(self, nb: NameBlock, name: bytes) -> int:
        """The inode of a name, with its home known."""
        slot, ino, _kind, _d_type = nb.names[name]
        self._vol.home.setdefault(ino, nb.block << 10 | slot)
        return ino

    def remove(self, batch: Batch, parent: Vnode, nb: NameBlock, name: bytes, now: int) -> None:
        """Take a name out of the block that has it."""
        nb.remove(name)
        self._touch(batch, parent, nb, now, -1)

    def _check_sticky(self, user: User, parent: Vnode, victim: Vnode) -> None:
        if parent.mode & STICKY and user.uid not in (0, parent.uid, victim.uid):
            raise FsError(errno.EPERM)

    def _check_empty(self, v: Vnode) -> None:
        if v.entries:
            raise FsError(errno.ENOTEMPTY)
        self._dirs.empty(v)

    # -- the last name

    def _end(self, user: User, v: Vnode, nb: NameBlock, name: bytes, keep: bool) -> End:
        """What becomes of `v` when it loses this name; what waits in its header is written, unless
        the inode goes with the name."""
        slot = nb.names[name][0]
        if v.nlink > 1 and not v.is_dir:
            fate = STAYS
        elif keep:
            fate = HELD
        else:
            fate = GONE if self._owns_little(v) else CUT
        if fate != GONE:
            self.settle(user, v)
        return End(v, nb.block, slot, fate)

    def _owns_little(self, v: Vnode) -> bool:
        """Whether all that `v` owns are extents named in its own block."""
        if not v.blocks:
            return True
        return not v.is_dir and v.depth == 0 and not self._xattrs.has_block(v)

    def _lose(self, batch: Batch, end: End, now: int) -> None:
        """The inode of `end` loses its name in this batch."""
        v, vol = end.v, self._vol
        batch.free.append((vol.type[v.kind], v.ino, 1))
        if end.fate == STAYS:
            batch.set(v, nlink=v.nlink - 1, ctime=now)
        elif end.fate != GONE:
            batch.set(v, nlink=0, ctime=now)
            if v.is_dir:
                batch.witnesses[v.ino] = v.parent  # whose names these are
            vol.ensure(v.ino)
            vol.xn.hold(vol.who, v.ino)
        elif v.blocks:
            root = self._map.root(v)
            for kind, block, n in self._map.cut(batch, v, root, 0, f.MAX_FILE_BLOCKS):
                batch.free.append((vol.type[kind], block, n))

    def _commit(self, batch: Batch, end: End | None) -> None:
        """Commit a batch in which the inode of `end`, if any, lost a name."""
        if end is None:
            batch.commit()
            return
        vol, v = self._vol, end.v
        try:
            batch.commit()
        except BaseException:
            if end.fate in (HELD, CUT):
                vol.xn.drop(vol.who, v.ino)
            raise
        if end.fate == GONE:
            vol.gone(v.ino)
        elif end.fate == STAYS:
            vol.lose_home(v.ino, end.block, end.slot)
        else:
            vol.home.pop(v.ino, None)
            if end.fate == CUT:
                self.reclaim(v)

    def reclaim(self, v: Vnode) -> None:
        """Free an inode without a name, and all that it owns."""
        vol = self._vol
        data: list[tuple[int, int, int]] = []
        if v.is_dir:
            self._dirs.empty(v)
        elif not self._owns_little(v):
            self._data.remove(vol.who, v, 0, f.MAX_FILE_BLOCKS, shrink_to=0)
        elif v.blocks:
            entries = self._map.root(v).entries
            data = [(vol.type[kind], block, n) for _fb, n, kind, block, _slot in entries]
        if v.blocks and not data:
            self._xattrs.drop_block(v)
        vol.ensure(v.ino)
        vol.xn.drop(vol.who, v.ino, free=data)
        vol.gone(v.ino)

    # -- rename

    def rename(
        self, user: User, src: Vnode, name: bytes, dst: Vnode, new_name: bytes, *, keep: bool
    ) -> None:
        """Move a name, replacing what is at the target. Raises: ENOENT, EPERM (sticky), EMLINK."""
        vol, who = self._vol, self._vol.caller(user)
        old = self._dirs.holder(src, name)
        v = vol.vnode(self.located(old, name))
        self._check_sticky(user, src, v)
        if not dst.nlink:
            raise FsError(errno.ENOENT)
        target = self._target(user, dst, new_name)
        if target is v:
            return
        if v.is_dir and src is not dst and target is None and dst.nlink >= LINK_MAX:
            raise FsError(errno.EMLINK)
        if target is None:
            new = self._dirs.room(who, dst, new_name)
            old = self._dirs.holder(src, name)  # a split may have moved it
        else:
            new = self._dirs.holder(dst, new_name)
        end = None if target is None else self._end(user, target, new, new_name, keep)
        self.settle(user, v, src, dst)
        batch, now = Batch(vol, who), vol.now()
        self.remove(batch, src, old, name, now)
        if end is None:
            self.add(batch, dst, new, new_name, v, now)
        else:
            self._replace(batch, dst, new, new_name, v, end, now)
        self._reparent(batch, v, src, dst)
        batch.set(v, ctime=now)
        self._commit(batch, end)
        if not old.names and src.flags & f.I_HASHED and src.entries:
            self._dirs.drop_leaf(src, name_hash(src.hash_key, name))

    def _target(self, user: User, dst: Vnode, name: bytes) -> Vnode | None:
        """What a rename would replace."""
        if self._dirs.find(dst, name) is None:
            return None
        nb = self._dirs.holder(dst, name)
        target = self._vol.vnode(self.located(nb, name))
        self._check_sticky(user, dst, target)
        if target.is_dir:
            self._check_empty(target)
        return target

    def _replace(
        self,
        batch: Batch,
        dst: Vnode,
        nb: NameBlock,
        name: bytes,
        v: Vnode,
        end: End,
        now: int,
    ) -> None:
        """Put `v` under a name that the inode of `end` loses."""
        slot = nb.point(name, v.ino, v.kind, v.mode >> 12)
        batch.home(v.ino, nb.block, slot)
        self._touch(batch, dst, nb, now, 0)
        if end.v.is_dir:
            batch.set(dst, nlink=dst.nlink - 1)
        self._lose(batch, end, now)

    def _reparent(self, batch: Batch, v: Vnode, src: Vnode, dst: Vnode) -> None:
        """A directory that changes its parent."""
        if v.is_dir and src is not dst:
            batch.set(src, nlink=src.nlink - 1)
            batch.set(dst, nlink=dst.nlink + 1)
            batch.set(v, parent=dst.ino)

    def exchange(self, user: User, a: Vnode, a_name: bytes, b: Vnode, b_name: bytes) -> None:
        """Each of two names gets the other's inode. Raises: ENOENT, EPERM (sticky)."""
        vol = self._vol
        a_nb, b_nb = self._dirs.holder(a, a_name), self._dirs.holder(b, b_name)
        v, w = vol.vnode(self.located(a_nb, a_name)), vol.vnode(self.located(b_nb, b_name))
        if v is w:
            return
        self._check_sticky(user, a, v)
        self._check_sticky(user, b, w)
        self.settle(user, a, b, v, w)
        now = vol.now()
        batch = Batch(vol, vol.caller(user))
        for parent, nb, name, inode in ((a, a_nb, a_name, w), (b, b_nb, b_name, v)):
            slot = nb.point(name, inode.ino, inode.kind, inode.mode >> 12)
            batch.home(inode.ino, nb.block, slot)
            self._touch(batch, parent, nb, now, 0)
        self._reparent(batch, v, a, b)
        self._reparent(batch, w, b, a)
        batch.set(v, ctime=now)
        batch.set(w, ctime=now)
        batch.commit()


def _key(uuid: bytes, block: int, now: int) -> int:
    """The hash key of a new directory: not to be guessed, and the same in a replay."""
    digest = blake2b(b"%d %d" % (block, now), digest_size=8, key=uuid).digest()
    return int.from_bytes(digest, "little")
