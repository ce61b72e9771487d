"""Damaging an image on purpose: bytes changed with or without their checksums. For tests and
`make.py`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import Seed, Superblock, stamp_block
from xnfs.disk.records import BLOCK
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import Tables


def superblock(device: BlockDevice) -> Superblock:
    """The newer whole copy."""
    return read_superblock_untrusted(device)


def peek(device: BlockDevice, block: int) -> bytearray:
    """The bytes of a block."""
    raw = bytearray(BLOCK)
    device.read(block, [memoryview(raw)])
    return raw


def poke(device: BlockDevice, block: int, at: int, data: bytes) -> None:
    """Change bytes and leave all checksums alone: what a bad disk does."""
    raw = peek(device, block)
    raw[at : at + len(data)] = data
    device.write(block, [bytes(raw)])


def forge(
    device: BlockDevice, block: int, change: Callable[[bytearray], None], seq: int | None = None
) -> None:
    """Change a block of metadata and stamp it again: what a faulty kernel does. `seq`: another
    version."""
    raw = peek(device, block)
    number, was = struct.unpack_from("<IQ", raw, 4)
    change(raw)
    stamp_block(Seed(superblock(device).uuid), block, raw, 0, number, was if seq is None else seq)
    device.write(block, [bytes(raw)])


def forge_bytes(device: BlockDevice, block: int, at: int, data: bytes) -> None:
    """The same for a few bytes."""

    def change(raw: bytearray) -> None:
        raw[at : at + len(data)] = data

    forge(device, block, change)


def tables(device: BlockDevice) -> Tables:
    """The free map and the reference counts."""
    sb = superblock(device)
    return Tables.load(device, sb.geometry, Seed(sb.uuid))


def set_totals(device: BlockDevice, totals: Mapping[int, int]) -> None:
    """Make the tables say something else, with right checksums."""
    found = tables(device)
    for block, total in totals.items():
        found.set_total(block, total)
    for block in reversed(found.dirty_blocks()):
        device.write(block, [found.encode(block)])
