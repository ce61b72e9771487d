"""The two copies of the superblock: finding the good one, replacing both safely.

The bytes are `layout.py`'s. What the fields mean for a mount (clean, damaged, features) is decided
by the caller. Relies on: a sector is written whole. Guarantees: at every moment of
`write_superblock` at least one whole copy is durable, and afterwards the newer one wins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import MAGIC, Superblock, decode_superblock_untrusted, encode_superblock
from xnfs.disk.records import BLOCK
from xnfs.errors import BadImage, DeviceError, VersionError, XnError

#: What an image may be instead of ours: (offset in the first block, bytes there, name).
_FOREIGN: Final = (
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\xfd7zXZ", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (3, b"NTFS", "an NTFS file system"),
    (4086, b"SWAPSPACE2", "a swap area"),
    (510, b"\x55\xaa", "a boot sector or partition table"),
)


def read_superblock_untrusted(device: BlockDevice) -> Superblock:
    """The newer whole copy. Raises BadImage, VersionError, DeviceError."""
    return read_copies_untrusted(device)[0]


def read_copies_untrusted(device: BlockDevice) -> tuple[Superblock, tuple[int, ...]]:
    """The newer whole copy; and the blocks where a copy is damaged, of another image, or can't be
    read. Raises BadImage, VersionError; DeviceError if neither can be read.
    """
    if device.blocks < 1:
        raise BadImage("the image is smaller than one block")
    first = bytearray(BLOCK)
    try:
        device.read(0, [memoryview(first)])
        front = decode_superblock_untrusted(first)
    except VersionError:
        raise
    except DeviceError as e:
        return _only_copy(device, e), (0,)
    except BadImage as e:
        return _only_copy(device, _describe(first, e)), (0,)
    if front.geometry.blocks > device.blocks:
        raise BadImage(
            f"the image is truncated: {device.blocks} blocks,"
            f" the superblock says {front.geometry.blocks}"
        )
    last = front.geometry.data_end
    try:
        back = decode_superblock_untrusted(_block(device, last))
    except VersionError:
        raise
    except (BadImage, DeviceError):
        return front, (last,)
    if back.uuid != front.uuid or back.geometry != front.geometry:
        # The rest of an older image on the same device: whoever made this one wrote block 0 last.
        return front, (last,)
    # The copy is written first, so on a tie it is the one that can't be older.
    return (back if back.generation >= front.generation else front), ()


def _only_copy(device: BlockDevice, reason: XnError) -> Superblock:
    """Block 0 is unusable: the copy must be in the last block, or the image is not ours."""
    try:
        back = decode_superblock_untrusted(_block(device, device.blocks - 1))
    except VersionError:
        raise
    except (BadImage, DeviceError):
        raise reason from None
    if back.geometry.blocks != device.blocks:
        raise reason
    return back


def _block(device: BlockDevice, bno: int) -> bytearray:
    block = bytearray(BLOCK)
    device.read(bno, [memoryview(block)])
    return block


def _describe(block: bytearray, why: BadImage) -> BadImage:
    """What to tell somebody who opened the wrong thing."""
    if block[: len(MAGIC)] == MAGIC:
        return BadImage(f"{why}, and there is no whole copy in the last block")
    if not any(block):
        return BadImage("not an xnfs image: its first block is all zeros (not formatted?)")
    for offset, magic, name in _FOREIGN:
        if block[offset : offset + len(magic)] == magic:
            return BadImage(f"not an xnfs image: it looks like {name}")
    return BadImage("not an xnfs image: no superblock in the first or the last block")


def write_superblock(device: BlockDevice, sb: Superblock) -> Superblock:
    """Write both copies with the next generation, and return what was written.

    Durable on return; two flushes. A cut in between leaves the old or the new fields.
    """
    new = replace(sb, generation=sb.generation + 1)
    block = encode_superblock(new).ljust(BLOCK, b"\0")
    device.write(new.geometry.data_end, [block])
    # The commit point: from here on the copy wins, whatever happens to block 0.
    device.flush()
    device.write(0, [block])
    device.flush()
    return new
