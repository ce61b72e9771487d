"""An image with three groups of blocks, and its tables, for the tests of both."""

from __future__ import annotations

from xnfs.disk.device import MemoryDevice
from xnfs.disk.format import format_image
from xnfs.disk.layout import Seed
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import Tables

UUID = bytes(range(16))
SEED = Seed(UUID)
BLOCKS = 9000  # three groups, the last one partial


def new_disk(blocks: int = BLOCKS) -> MemoryDevice:
    disk = MemoryDevice(blocks)
    format_image(disk, uuid=UUID, label="", now=0)
    return disk


DISK = new_disk()
G = read_superblock_untrusted(DISK).geometry


def load(disk: MemoryDevice | RecordingDevice) -> Tables:
    return Tables.load(disk, G, SEED)


def fresh() -> Tables:
    return load(DISK.fork())


def write_out(tables: Tables, disk: MemoryDevice | RecordingDevice) -> None:
    for bno in reversed(tables.dirty_blocks()):
        disk.write(bno, [tables.encode(bno)])
        tables.mark_written(bno)


def sync(tables: Tables, disk: MemoryDevice | RecordingDevice) -> None:
    write_out(tables, disk)
    disk.flush()
