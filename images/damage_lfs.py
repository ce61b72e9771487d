"""What can go wrong in an LFS: each function damages a golden image in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from images.damage import forge_bytes, peek, poke
from images.golden import Clock, Golden
from images.golden_lfs import IDENTITY, NAME, golden_lfs, golden_lfs_crashed, golden_lfs_snapshot
from libfs.lfs import Lfs
from libfs.lfs import format as f
from libfs.lfs.inode import records_untrusted
from libfs.lfs.volume import Volume
from xnfs import BLOCK, SECTOR, FramePool, Xn
from xnfs.disk.layout import Seed


def volume(g: Golden) -> Volume:
    """The file system as a mount finds it, on a copy of the disk."""
    xn = Xn(g.disk.fork(), frames=FramePool(600), clock=Clock())
    return Lfs.mount(xn, xn.admin, NAME, readonly=True).volume


def forge_lfs(g: Golden, block: int, at: int, data: bytes) -> None:
    """Change a block that LFS gave its checksum, and that too."""
    raw = peek(g.disk, block)
    raw[at : at + len(data)] = data
    raw[:4] = Seed(IDENTITY).crc(block, bytes(raw[4:])).to_bytes(4, "little")
    g.disk.write(block, [bytes(raw)])


def _flip(g: Golden, block: int) -> None:
    poke(g.disk, block, 2000, bytes([peek(g.disk, block)[2000] ^ 4]))


def _node(vol: Volume, g: Golden, path: str) -> int:
    """The first block of the map of a large file."""
    return vol.vnode(g.at[path]).tree.tops[0] & f.AT_MASK


def _slot(vol: Volume, kind: int) -> tuple[int, int]:
    """(summary, offset in it) of the newest slot of a kind."""
    log = vol.log
    index = max(s[0] for s in vol.segments.slots_untrusted(log.segment)[1] if s[1] == kind)
    return log.summary, f.SLOTS_AT + index * f.SLOT_SIZE


def _synced(vol: Volume, g: Golden) -> tuple[int, int]:
    """(block, offset in it) of the newest record of the file that was synced last."""
    block = vol.imap.get(g.at["/synced"]) & f.AT_MASK
    raw = bytes(peek(g.disk, block))
    return block, next(at for at, ino in records_untrusted(block, raw) if ino == g.at["/synced"])


# -- checkpoints


def l_region_torn(g: Golden, vol: Volume) -> None:
    """The write of the newest checkpoint was torn."""
    number, regions = vol.checkpoint.number, vol.checkpoint.regions
    older = peek(g.disk, regions[1 - number % 2])
    poke(g.disk, regions[number % 2], 0, bytes(older[:SECTOR]))


def l_regions_torn(g: Golden, vol: Volume) -> None:
    """Both checkpoints are torn."""
    for region in vol.checkpoint.regions:
        poke(g.disk, region, 0, bytes(SECTOR))


# -- summaries, with a right stamp


def l_summary_kind(g: Golden, vol: Volume) -> None:
    """The summary calls a block of inodes data."""
    summary, at = _slot(vol, f.P_INODES)
    forge_bytes(g.disk, summary, at + 7, bytes([f.P_DATA]))


def l_summary_place(g: Golden, vol: Volume) -> None:
    """The summary says that a block is another one of its file."""
    summary, at = _slot(vol, f.P_DATA)
    forge_bytes(g.disk, summary, at + 12, b"\x55")


def l_summary_inode(g: Golden, vol: Volume) -> None:
    """The summary says that a block is another file's."""
    summary, at = _slot(vol, f.P_DATA)
    forge_bytes(g.disk, summary, at + 8, b"\x02")


def l_summary_serial(g: Golden, vol: Volume) -> None:
    """The summary has a serial number of its own."""
    forge_bytes(g.disk, vol.log.summary, f.SUMMARY_AT, b"\x99")


# -- after the checkpoint


def l_forward_garbage(g: Golden, vol: Volume) -> None:
    """Garbage where inodes were written after the checkpoint."""
    poke(g.disk, _synced(vol, g)[0], 0, b"\xde\xad\xbe\xef" * (BLOCK // 4))


# -- blocks


def l_map_bit(g: Golden, vol: Volume) -> None:
    """A bit of the map of a file is flipped."""
    _flip(g, _node(vol, g, "/sparse"))


def l_leaf_bit(g: Golden, vol: Volume) -> None:
    """A bit of a leaf of a large directory is flipped."""
    many = vol.vnode(g.at["/many"])
    _flip(g, next(at for _number, at in many.tree.items()) & f.AT_MASK)


def l_inode_record(g: Golden, vol: Volume) -> None:
    """A record of an inode is nonsense, with a right checksum."""
    block = vol.imap.get(g.at["/large"]) & f.AT_MASK
    raw = bytes(peek(g.disk, block))
    at = next(at for at, ino in records_untrusted(block, raw) if ino == g.at["/large"])
    forge_lfs(g, block, at + 84, b"\xff" * 4)


def l_root_record(g: Golden, vol: Volume) -> None:
    """The block with the inode of the root directory is overwritten."""
    poke(g.disk, vol.imap.get(f.ROOT_INO) & f.AT_MASK, 0, b"\xff" * SECTOR)


# -- the segment table


def l_table_usage(g: Golden, vol: Volume) -> None:
    """The segment table calls a full segment empty."""
    full = max(vol.segments.usage, key=lambda segment: vol.segments.usage[segment].live)
    table, at = vol.segments.entry(full)
    forge_bytes(g.disk, table, at + 8, bytes(4))


def l_table_bit(g: Golden, vol: Volume) -> None:
    """A bit of the segment table is flipped."""
    _flip(g, next(iter(vol.segments.tables.values())))


def l_table_destroyed(g: Golden, vol: Volume) -> None:
    """The segment table is overwritten."""
    poke(g.disk, next(iter(vol.segments.tables.values())), 0, b"\xff" * BLOCK)


def l_summary_bit(g: Golden, vol: Volume) -> None:
    """A bit of the summary of the segment in use is flipped."""
    _flip(g, vol.log.summary)


# -- snapshots


def l_snapshot_bit(g: Golden, vol: Volume) -> None:
    """A bit of the checkpoint that a snapshot is, is flipped."""
    _flip(g, vol.snapshots.all[0].address & f.AT_MASK)


def l_snapshot_inodes(g: Golden, vol: Volume) -> None:
    """A block of inodes that only a snapshot has is overwritten."""
    at = vol.snapshots.tree(vol.snapshots.all[0]).get(5)  # `/sparse`
    poke(g.disk, at & f.AT_MASK, 0, b"\xff" * SECTOR)


@dataclass(frozen=True)
class Damage:
    """A damaged image. `finding`: what fsck calls it; `mount`: words of the error of a mount, or
    None if that succeeds; `lost`: beginnings of the paths that go with it, by their nature;
    `touch`: a path at which a mount sees it, and stops writing."""

    apply: Callable[[Golden, Volume], None]
    golden: Callable[[], Golden]
    finding: str
    mount: str | None = None
    lost: tuple[str, ...] = ()
    touch: str | None = None

    @property
    def name(self) -> str:
        """Of the image."""
        return self.apply.__name__

    def make(self) -> Golden:
        """The image. XN's log is replayed before it is damaged, so that this mends nothing."""
        g = self.golden()
        Xn(g.disk, frames=FramePool(600), clock=Clock()).close()
        self.apply(g, volume(g))
        return g


DAMAGED_LFS: tuple[Damage, ...] = (
    Damage(l_region_torn, golden_lfs_crashed, "region"),
    Damage(l_regions_torn, golden_lfs_crashed, "log", mount="checkpoint"),
    Damage(l_summary_kind, golden_lfs_crashed, "log", mount="slot"),
    Damage(l_summary_place, golden_lfs_crashed, "slot"),
    Damage(l_summary_inode, golden_lfs_crashed, "slot"),
    Damage(l_summary_serial, golden_lfs_crashed, "log", mount="serial"),
    Damage(
        l_forward_garbage,
        golden_lfs_crashed,
        "log",
        mount="checksum",
        lost=("/synced", "/renamed", "/fifo", "/symlink"),
    ),
    Damage(l_map_bit, golden_lfs, "map-lost", lost=("/sparse",), touch="/sparse"),
    Damage(l_leaf_bit, golden_lfs, "leaf-lost", lost=("/many/",), touch="/many"),
    Damage(l_inode_record, golden_lfs, "inode-lost", lost=("/large",), touch="/large"),
    Damage(l_root_record, golden_lfs, "root-lost", mount="checksum", lost=("/",)),
    Damage(l_table_usage, golden_lfs, "usage"),
    Damage(l_table_bit, golden_lfs, "flipped-bit", mount="checksum"),
    Damage(l_table_destroyed, golden_lfs_snapshot, "rebuilt", mount="checksum"),
    Damage(l_summary_bit, golden_lfs_crashed, "flipped-bit", mount="checksum"),
    Damage(l_snapshot_bit, golden_lfs_snapshot, "snapshot", mount="checksum"),
    Damage(l_snapshot_inodes, golden_lfs_snapshot, "snapshot-damaged"),
)
