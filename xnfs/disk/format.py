"""Making an empty image: the kernel's tables and nothing else. File systems install themselves.

Relies on: the caller has asked whether the old contents may go. Guarantees: the device is an xnfs
image only once everything else on it is durable; a cut before leaves no image, never a bad one.
"""

from __future__ import annotations

from typing import Final

from xnfs.disk.device import BlockDevice
from xnfs.disk.geometry import geometry
from xnfs.disk.layout import CLEAN, ROOTS_TYPE, Seed, Superblock, encode_superblock, stamp_block
from xnfs.disk.records import BLOCK
from xnfs.disk.superblock import write_superblock
from xnfs.disk.tables import Tables

_CHUNK: Final = 256  # blocks: 1 MiB
_ZEROS: Final = bytes(_CHUNK * BLOCK)


def format_image(
    device: BlockDevice,
    *,
    uuid: bytes,
    label: str,
    log_blocks: int | None = None,
    types_blocks: int | None = None,
    roots_blocks: int | None = None,
    now: int = 0,
) -> None:
    """Format the whole device; durable on return. Raises Refused, DeviceError."""
    layout = geometry(device.blocks, log_blocks, types_blocks, roots_blocks)
    sb = Superblock(uuid, label, layout, created=now, generation=0, state=CLEAN)
    encode_superblock(sb)  # refuses a bad label before anything is lost
    seed = Seed(uuid)
    # Old superblocks go first: they must never be seen over new tables.
    for bno in (0, layout.data_end):
        device.write(bno, [_ZEROS[:BLOCK]])
    device.flush()
    _zero(device, layout.log_start, layout.log_blocks)
    _zero(device, layout.refs_start, layout.refs_blocks)
    _zero(device, layout.types_start, layout.types_blocks)
    _write_map(device, Tables.fresh(device, layout, seed))
    for bno in range(layout.roots_start, layout.data_start):
        device.write(bno, [_empty_roots(seed, bno)])
    device.flush()
    # The commit point: the device becomes an image.
    write_superblock(device, sb)


def _zero(device: BlockDevice, start: int, count: int) -> None:
    for at in range(start, start + count, _CHUNK):
        size = min(_CHUNK, start + count - at)
        if not device.is_zero(at, size):
            device.write(at, [memoryview(_ZEROS)[: size * BLOCK]])


def _write_map(device: BlockDevice, tables: Tables) -> None:
    blocks = tables.dirty_blocks()
    for index in range(0, len(blocks), _CHUNK):
        chunk = blocks[index : index + _CHUNK]
        device.write(chunk[0], [tables.encode(bno) for bno in chunk])


def _empty_roots(seed: Seed, bno: int) -> bytes:
    block = bytearray(BLOCK)
    stamp_block(seed, bno, block, 0, ROOTS_TYPE, 0)
    return bytes(block)
