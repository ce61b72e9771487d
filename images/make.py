"""Make the images of this folder again: `python -m images.make`. Deterministic: fixed clock, UUIDs
and seeds.

Golden images are sound. Each damaged one is a golden one with one thing wrong, named for it;
README.md lists them.
"""

from __future__ import annotations

import lzma
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from images.damage import forge, forge_bytes, peek, poke, set_totals, superblock
from images.damage_lfs import DAMAGED_LFS
from images.golden import (
    BLOCKS,
    Golden,
    golden_crashed,
    golden_empty,
    golden_ffs,
    golden_two,
)
from images.golden_lfs import golden_both, golden_lfs, golden_lfs_crashed, golden_lfs_snapshot
from xnfs import BLOCK, SECTOR, MemoryDevice
from xnfs.disk.geometry import COUNT_BLOCKS
from xnfs.disk.layout import Seed

HERE = Path(__file__).parent
DATA, K_INODE, K_DIR, K_LEAF = 1, 8, 9, 10  # kinds of FFS pointers
INODE_SLOTS, DIR_TABLE = 256, 512

# -- damage: each takes a golden_ffs


def _pointer(kind: int, block: int) -> bytes:
    return (kind << 56 | block).to_bytes(8, "little")


def _slot(first: int, count: int, kind: int, block: int) -> bytes:
    return struct.pack("<II", first, count) + _pointer(kind, block)


def _extent(g: Golden, path: str, index: int = 0) -> tuple[int, int, int, int]:
    """(first, count, kind, block) of a slot of a file."""
    raw = peek(g.disk, g.at[path])
    first, count, pointer = struct.unpack_from("<IIQ", raw, INODE_SLOTS + 16 * index)
    return first, count, pointer >> 56, pointer & (1 << 56) - 1


def _put_slot(g: Golden, path: str, index: int, raw: bytes) -> None:
    forge_bytes(g.disk, g.at[path], INODE_SLOTS + 16 * index, raw)


def _leaf(g: Golden) -> int:
    """A leaf of the large directory."""
    for (pointer,) in struct.iter_unpack("<Q", peek(g.disk, g.at["/many"])[512:1024]):
        if pointer >> 56 == K_LEAF:
            return int(pointer & (1 << 56) - 1)
    raise ValueError("/many is not hashed")


def f_superblock(g: Golden) -> None:
    """Block 0 is overwritten."""
    poke(g.disk, 0, 0, b"\xff" * SECTOR)


def f_superblock_copy(g: Golden) -> None:
    """The copy in the last block has a flipped bit."""
    poke(g.disk, BLOCKS - 1, 100, b"\x55")


def f_map_sector(g: Golden) -> None:
    """A sector of the free map has a wrong checksum."""
    poke(g.disk, superblock(g.disk).geometry.map_start, 17, b"\xa5\xa5")


def f_map_zeroed(g: Golden) -> None:
    """The free map is all zeros."""
    poke(g.disk, superblock(g.disk).geometry.map_start, 0, bytes(BLOCK))


def f_map_missing(g: Golden) -> None:
    """The map calls blocks free that files use."""
    set_totals(g.disk, {_extent(g, "/large")[3]: 0, g.at["/dir/deep"]: 0})


def f_leak(g: Golden) -> None:
    """A cleanly unmounted image has blocks in use that nobody owns."""
    set_totals(g.disk, dict.fromkeys(range(480, 500), 1))


def f_refs_sector(g: Golden) -> None:
    """A sector of the reference counts has a wrong checksum."""
    poke(g.disk, superblock(g.disk).geometry.refs_start, 99, b"\x12\x34")


def f_versions_sector(g: Golden) -> None:
    """A sector of the versions has a wrong checksum."""
    poke(g.disk, superblock(g.disk).geometry.refs_start + COUNT_BLOCKS, 99, b"\x12\x34")


def f_inode_stale(g: Golden) -> None:
    """The last write of a file's inode was lost."""
    forge(g.disk, g.at["/large"], lambda raw: None, seq=1)


def f_refs_low(g: Golden) -> None:
    """A file with many names counts two."""
    set_totals(g.disk, {g.at["/small"]: 2})


def f_refs_high(g: Golden) -> None:
    """A file with one name counts five."""
    set_totals(g.disk, {g.at["/large"]: 5})


def f_pointer_outside(g: Golden) -> None:
    """An extent reaches past the end of the image."""
    _put_slot(g, "/large", 11, _slot(100, 9, DATA, BLOCKS - 4))


def f_pointer_kernel(g: Golden) -> None:
    """An extent lies in the log."""
    _put_slot(g, "/large", 11, _slot(100, 2, DATA, 2))


def f_extent_huge(g: Golden) -> None:
    """An extent has 2^32-1 blocks."""
    _put_slot(g, "/large", 11, _slot(100, 2**32 - 1, DATA, 2**55))


def f_extent_twice(g: Golden) -> None:
    """Two files own the same data blocks."""
    first, count, kind, block = _extent(g, "/large")
    _put_slot(g, "/reserved", 11, _slot(first + 100, min(count, 2), kind, block))


def f_extent_over_inode(g: Golden) -> None:
    """A data extent covers another file's inode."""
    _put_slot(g, "/large", 11, _slot(100, 1, DATA, g.at["/dir/deep"]))


def f_data_as_inode(g: Golden) -> None:
    """A name points at a data block."""
    block = _extent(g, "/large")[3]
    forge_bytes(g.disk, g.at["/dir/deep/deeper"], DIR_TABLE + 8 * 63, _pointer(K_INODE, block))


def f_inode_as_dir(g: Golden) -> None:
    """A name calls a file a directory."""
    where = g.at["/dir/deep/deeper"]
    forge_bytes(g.disk, where, DIR_TABLE + 8 * 63, _pointer(K_DIR, g.at["/fifo"]))


def f_inode_destroyed(g: Golden) -> None:
    """A file's inode is overwritten."""
    poke(g.disk, g.at["/dir/deep/deeper/bottom"], 0, b"\xde\xad" * 2048)


def f_inode_bit(g: Golden) -> None:
    """One bit of a file's inode is flipped."""
    at = g.at["/shreds"]
    poke(g.disk, at, 33, bytes([peek(g.disk, at)[33] ^ 4]))


def f_dir_zeroed(g: Golden) -> None:
    """A directory's inode is all zeros."""
    poke(g.disk, g.at["/dir/deep/deeper"], 0, bytes(BLOCK))


def f_leaf_destroyed(g: Golden) -> None:
    """A leaf of a large directory is overwritten."""
    poke(g.disk, _leaf(g), 1000, b"rubbish" * 100)


def f_leaf_misdirected(g: Golden) -> None:
    """A leaf was written to the place of an inode."""
    poke(g.disk, g.at["/sparse"], 0, bytes(peek(g.disk, _leaf(g))))


def f_dir_cycle(g: Golden) -> None:
    """A directory holds its own grandparent."""
    where = g.at["/dir/deep/deeper"]
    forge_bytes(g.disk, where, DIR_TABLE + 8 * 63, _pointer(K_DIR, g.at["/dir"]))


def f_roots_block(g: Golden) -> None:
    """The root catalogue has a wrong checksum."""
    poke(g.disk, superblock(g.disk).geometry.roots_start, 3000, b"\x01")


def f_root_slot(g: Golden) -> None:
    """A second root names a block outside the image."""

    def change(raw: bytearray) -> None:
        raw[256:384] = raw[128:256]
        raw[256:260] = b"evil"
        raw[256 + 64 : 256 + 72] = (10**9).to_bytes(8, "little")

    forge(g.disk, superblock(g.disk).geometry.roots_start, change)


def f_root_destroyed(g: Golden) -> None:
    """The first block of the file system is overwritten: nothing below it may be freed."""
    raw = peek(g.disk, superblock(g.disk).geometry.roots_start)
    poke(g.disk, int.from_bytes(raw[192:200], "little"), 500, b"\xff" * 100)


def f_type_record(g: Golden) -> None:
    """The record of a type has a flipped bit: its blocks are untouchable."""
    poke(g.disk, superblock(g.disk).geometry.types_start + 3, 300, b"\x00\x01")


def f_type_unverified(g: Golden) -> None:
    """The code of a type does not verify any more: its blocks are untouchable."""
    sb = superblock(g.disk)
    for block in range(sb.geometry.types_start, sb.geometry.types_start + sb.geometry.types_blocks):
        raw = peek(g.disk, block)
        at = raw.find(b"kind == 3")
        if at >= 0:
            raw[at : at + 9] = b"kind == q"
            raw[:4] = Seed(sb.uuid).crc(block, bytes(raw[4:])).to_bytes(4, "little")
            g.disk.write(block, [bytes(raw)])
            return
    raise ValueError("no type to damage")


def f_truncated(g: Golden) -> None:
    """The last quarter of the image is missing."""
    g.disk = MemoryDevice(BLOCKS * 3 // 4, {b: d for b, d in g.disk._contents.items() if b < 384})


GOLDEN: tuple[Callable[[], Golden], ...] = (golden_empty, golden_ffs, golden_two, golden_crashed)
GOLDEN_LFS: tuple[Callable[[], Golden], ...] = (
    golden_lfs,
    golden_lfs_crashed,
    golden_lfs_snapshot,
    golden_both,
)

#: damage, what fsck must call it
DAMAGED: tuple[tuple[Callable[[Golden], None], str], ...] = (
    (f_superblock, "superblock"),
    (f_superblock_copy, "superblock"),
    (f_map_sector, "map-sector"),
    (f_map_zeroed, "map-sector"),
    (f_map_missing, "map-missing"),
    (f_leak, "leak"),
    (f_refs_sector, "refs-sector"),
    (f_versions_sector, "versions-sector"),
    (f_inode_stale, "stale"),
    (f_refs_low, "refs-low"),
    (f_refs_high, "refs-high"),
    (f_pointer_outside, "pointer"),
    (f_pointer_kernel, "pointer"),
    (f_extent_huge, "pointer"),
    (f_extent_twice, "refs-low"),
    (f_extent_over_inode, "two-types"),
    (f_data_as_inode, "two-types"),
    (f_inode_as_dir, "two-types"),
    (f_inode_destroyed, "destroyed-block"),
    (f_inode_bit, "flipped-bit"),
    (f_dir_zeroed, "destroyed-block"),
    (f_leaf_destroyed, "destroyed-block"),
    (f_leaf_misdirected, "destroyed-block"),
    (f_dir_cycle, "cycle"),
    (f_roots_block, "roots-block"),
    (f_root_slot, "root-slot"),
)
#: What fsck can only report.
HOPELESS: tuple[tuple[Callable[[Golden], None], str], ...] = (
    (f_root_destroyed, "root-destroyed"),
    (f_type_record, "type-record"),
    (f_type_unverified, "type-unusable"),
    (f_truncated, "bad image"),
)


def make() -> dict[str, bytes]:
    """All images: file name -> compressed bytes."""
    out = {golden.__name__: golden().disk for golden in GOLDEN + GOLDEN_LFS}
    for damage, _code in DAMAGED + HOPELESS:
        g = golden_ffs()
        damage(g)
        out[damage.__name__] = g.disk
    out |= {damage.name: damage.make().disk for damage in DAMAGED_LFS}
    return {f"{name}.img.xz": _packed(disk) for name, disk in out.items()}


def _packed(disk: MemoryDevice) -> bytes:
    image = bytearray(disk.blocks * BLOCK)
    disk.read(0, [memoryview(image)])
    return lzma.compress(bytes(image), preset=9)


def load(name: str) -> MemoryDevice:
    """An image of this folder, unpacked in memory."""
    image = lzma.decompress((HERE / f"{name}.img.xz").read_bytes())
    blocks = {at // BLOCK: image[at : at + BLOCK] for at in range(0, len(image), BLOCK)}
    return MemoryDevice(len(blocks), {b: raw for b, raw in blocks.items() if raw.strip(b"\0")})


def main() -> int:
    """Write all images."""
    for name, data in make().items():
        (HERE / name).write_bytes(data)
        print(f"{len(data):8} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
