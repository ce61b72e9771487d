"""The image of an LFS that is damaged: every kind of block, a checkpoint, a snapshot, and what was
synced after them, which a mount rolls forward.

Here inodes are no blocks, and pointers that own lead to segments. So who needs which block is asked
of the file system itself, while it is sound.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Final

from libfs.lfs import Lfs
from libfs.lfs import format as f
from libfs.lfs.checkpoint import make_durable
from libfs.lfs.volume import Volume
from libfs.posix.interface import Change, Ino, New, User
from xnfs import BLOCK, Xn

UUID: Final = bytes(range(2, 18))
#: Twelve segments of twelve blocks, the least that there may be, and room for others.
BLOCKS: Final = 400
#: Room for the types of two formats.
TYPES: Final = 32
_ROOT: Final = User(0, 0)


def make(xn: Xn, name: str) -> None:
    """An LFS as the root of that name, left as after a power cut."""
    Lfs.mkfs(xn, xn.admin, name, uuid=UUID)
    fs = Lfs.mount(xn, xn.admin, name)
    top = fs.root
    _file(fs, top, b"small", b"inline " * 30)
    large = _file(fs, top, b"large", b"blocks! " * 20_480)  # lfs.map: more than a record names
    fs.setxattr(_ROOT, large, b"user.long", b"x" * 2000, 0)  # lfs.xattr
    note = _file(fs, top, b"noted", b"n" * 5000)
    fs.setxattr(_ROOT, note, b"user.note", b"kept inside", 0)
    fs.create(_ROOT, top, b"symlink", New(stat.S_IFLNK | 0o777, 1000, 100, target=b"small"))
    fs.create(_ROOT, top, b"device", New(stat.S_IFCHR | 0o600, 0, 0, rdev=1 << 8 | 3))
    many = fs.create(_ROOT, top, b"many", New(stat.S_IFDIR | 0o755, 1000, 100))  # lfs.names
    for i in range(30):
        fs.link(_ROOT, note, many, b"%d-" % i + b"n" * 200)
    for i in range(30):  # lfs.map of the inode map: more than a checkpoint names
        fs.create(_ROOT, many, b"%d" % i, New(stat.S_IFIFO | 0o600, 0, 0))
    _file(fs, top, b"gone", b"g" * 3000)
    fs.snapshot("then")  # lfs.snapshot
    for ino, _at in list(fs.volume.imap.items()):  # it shares no inode with what is live
        fs.setattr(_ROOT, Ino(ino), Change(uid=1001))
    for _region in range(2):
        make_durable(fs.volume, checkpoint=True)
    fs.unlink(_ROOT, top, b"gone", keep=False)  # lfs.gone
    fs.write(_ROOT, large, 3 * BLOCK, b"after the checkpoint", kill_suid=False)
    below = fs.create(_ROOT, many, b"below", New(stat.S_IFDIR | 0o755, 0, 0))
    _file(fs, below, b"late", b"l" * 9000)
    fs.sync(None)
    xn.sync(fs.volume.who)


def _file(fs: Lfs, parent: Ino, name: bytes, data: bytes) -> Ino:
    ino = fs.create(_ROOT, parent, name, New(stat.S_IFREG | 0o644, 1000, 100))
    fs.write(_ROOT, ino, 0, data, kill_suid=False)
    return ino


def needs(vol: Volume) -> dict[int, frozenset[int]]:
    """Inode -> all blocks without which it is not what it is. The map of inodes is none of them:
    the summaries have it, too."""
    found = {}
    for ino, at in vol.imap.items():
        v = vol.vnode(ino)
        addresses = [at, v.xattr_at, *(each for _level, _index, each in v.tree.nodes())]
        addresses += [each for _i, each in v.tree.items()]
        found[ino] = _with_owners(vol, addresses)
    return found


def live(vol: Volume) -> frozenset[int]:
    """All blocks that say something."""
    blocks = {vol.super, *vol.checkpoint.regions, *vol.segments.tables.values()}
    blocks |= {usage.summary for usage in vol.segments.usage.values()}
    for tree in (vol.imap, *(vol.snapshots.tree(each) for each in vol.snapshots.all)):
        blocks |= {at & f.AT_MASK for _level, _index, at in tree.nodes()}
    blocks |= {each.address & f.AT_MASK for each in vol.snapshots.all}
    return frozenset(blocks.union(*needs(vol).values()) | _of_kind(vol, f.P_GONE))


def _of_kind(vol: Volume, kind: int) -> set[int]:
    return {
        usage.summary + 1 + slot[0]
        for segment, usage in vol.segments.usage.items()
        for slot in vol.segments.slots_untrusted(segment)[1]
        if slot[1] == kind
    }


def _with_owners(vol: Volume, addresses: Iterable[int]) -> frozenset[int]:
    """Blocks at these addresses, and those that own them."""
    blocks = {at & f.AT_MASK for at in addresses if at > f.RESERVED}
    segments = {block // vol.segments.size for block in blocks}
    owners = {vol.segments.usage[segment].summary for segment in segments}
    return frozenset(blocks | owners | {vol.super, *vol.segments.tables.values()})
