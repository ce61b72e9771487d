"""The independent reader of LFS: it sees what a mount shows, and what is wrong with the bytes."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable

import pytest
from xnfs_trials.crash.base import Shape, new_image, open_subject
from xnfs_trials.crash.explore import contents
from xnfs_trials.crash.lfswalk import LfsWalk
from xnfs_trials.crash.rawdisk import BLOCK, RawDisk
from xnfs_trials.crash.subject import load
from xnfs_trials.crash.trees import ROOT, Tree, differences, read_tree

from libfs.posix import Ino, Posix
from xnfs import MemoryDevice

LFS = load("lfs")
SHAPE = Shape(blocks=1024, frames=512, log_blocks=16)


def populate(posix: Posix) -> None:
    """Something of everything that the format has."""
    large, small = file(posix, b"large", b"x" * 4096 * 40), file(posix, b"small", b"y" * 700)
    posix.link(ROOT, small, posix.root, b"other name")
    posix.setxattr(ROOT, large, b"user.few", b"v" * 20)
    posix.setxattr(ROOT, small, b"user.many", b"w" * 2000)
    posix.symlink(ROOT, posix.root, b"short", b"to")
    posix.symlink(ROOT, posix.root, b"long", b"a/" * 1500)
    posix.mknod(ROOT, posix.root, b"fifo", 0o010644)
    names = posix.mkdir(ROOT, posix.root, b"names", 0o755).ino
    for i in range(60):
        posix.mknod(ROOT, names, b"%03d" % i + b"n" * 120, 0o100600)
    posix.mkdir(ROOT, names, b"below", 0o700)
    promised = posix.open(ROOT, file(posix, b"promised", b"z" * 5000), os.O_RDWR)
    posix.fallocate(promised, 0, 8192, 20000)
    posix.release(promised)
    file(posix, b"gone", b"q" * 9000)
    posix.sync()
    posix.unlink(ROOT, posix.root, b"gone")
    posix.truncate(ROOT, large, 4096 * 36 + 100)


def file(posix: Posix, name: bytes, data: bytes) -> Ino:
    """A new file."""
    attr, fh = posix.create(ROOT, posix.root, name, 0o644, os.O_RDWR)
    posix.write(fh, 0, data)
    posix.release(fh)
    return attr.ino


class Image:
    """Such a file system, synced; `close`: with a checkpoint, so that nothing is to be rolled
    forward."""

    def __init__(self, *, close: bool) -> None:
        image, _, _ = new_image(LFS, SHAPE)
        device = MemoryDevice(SHAPE.blocks, dict(image))
        xn, posix = open_subject(LFS, device, SHAPE.frames)
        populate(posix)
        posix.sync()
        self.tree = read_tree(posix)
        if close:
            posix.close()
            xn.close()
        self.image = contents(device)
        self.walk, found = self.read()
        assert not found

    def read(self) -> tuple[LfsWalk, list[str]]:
        """Recover and walk: what is wrong."""
        disk = RawDisk(self.image, SHAPE.blocks)
        disk.recover()
        walk = LfsWalk(disk)
        walk.run()
        return walk, [finding.text for finding in disk.findings]

    def ino(self, path: bytes) -> int:
        """Of a path."""
        return self.tree.paths()[path].ino

    def record(self, path: bytes) -> tuple[int, int]:
        """(block, offset) of the record of an inode."""
        address = self.walk._map[self.ino(path)]
        block = address & (1 << 34) - 1
        (at,) = struct.unpack_from("<H", self.image[block], 32 + 2 * (address >> 34 & 255))
        return block, at

    def put(self, block: int, at: int, data: bytes) -> None:
        """Overwrite some bytes of a block with a head, and make its checksum right."""
        raw = self.image[block][:at] + data + self.image[block][at + len(data) :]
        seed = zlib.crc32(self.walk._super[40:56])
        crc = zlib.crc32(raw[4:], zlib.crc32(block.to_bytes(8, "little"), seed))
        self.image[block] = crc.to_bytes(4, "little") + raw[4:]

    def number(self, path: bytes, at: int, code: str, value: int) -> None:
        """Overwrite a number in the record of an inode."""
        block, record = self.record(path)
        self.put(block, record + at, struct.pack(code, value))

    def block_of(self, kind: int) -> int:
        """A block of the log that is named."""
        return next(
            block + 1 + i
            for block, summary in self.walk._summaries.values()
            for i, slot in enumerate(summary.slots)
            if slot is not None and slot[0] == kind and block + 1 + i in self.walk._named
        )


@pytest.mark.parametrize("close", [False, True])
def test_lfswalk_sees_what_a_mount_shows(close: bool) -> None:
    image = Image(close=close)
    assert list(differences(Tree(image.walk.inodes, 1), image.tree)) == []
    kinds = {slot[0] for _, s in image.walk._summaries.values() for slot in s.slots if slot}
    assert kinds >= {1, 2, 3, 6, 7}  # data, inodes, nodes of maps, names, attributes
    assert image.walk.inodes[image.ino(b"/promised")].unwritten


def another_file(image: Image) -> None:
    block, at = image.record(b"/promised")
    theirs = next(b for b, ino in image.walk._named.items() if ino == image.ino(b"/large"))
    (inside,) = struct.unpack_from("<H", image.image[block], at + 112)
    image.put(block, at + 120 + inside, struct.pack("<Q", theirs))


def another_place(image: Image) -> None:
    block = image.block_of(3)
    one, two = image.image[block][64:72], image.image[block][72:80]
    image.put(block, 64, two + one)


def bad_block(kind: int) -> Callable[[Image], None]:
    def spoil(image: Image) -> None:
        block = image.block_of(kind)
        image.image[block] = image.image[block][:-1] + b"?"

    return spoil


def lost_name(image: Image) -> None:
    block, at = image.record(b"/")
    name = image.image[block].index(b"small", at)
    image.put(block, name, b"smell")
    image.put(block, name - 6, struct.pack("<I", image.ino(b"/large")))


def misplaced_name(image: Image) -> None:
    block = image.block_of(6)
    image.put(block, 32 + 6, b"!!")


#: defect -> what the walk says of it
DEFECTS: dict[str, tuple[Callable[[Image], None], str]] = {
    "another file's block": (another_file, "takes it for kind 1"),
    "blocks change places": (another_place, "has it at"),
    "a node does not check": (bad_block(3), "no good block of kind 3"),
    "names do not check": (bad_block(6), "no good block of kind 6"),
    "attributes do not check": (bad_block(7), "no good block of kind 7"),
    "a name in another leaf": (misplaced_name, "belongs in another leaf"),
    "another inode": (lambda i: i.number(b"/small", 0, "<I", 999), "takes inode 999 for"),
    "links": (lambda i: i.number(b"/small", 16, "<I", 1), "has nlink 1, names for 2"),
    "links of a name that goes elsewhere": (lost_name, "names for"),
    "blocks": (lambda i: i.number(b"/large", 32, "<Q", 5), "says 5 blocks"),
    "size": (lambda i: i.number(b"/large", 24, "<Q", 4096), "bytes past the end"),
    "inline size": (lambda i: i.number(b"/small", 24, "<Q", 4), "of 4 bytes: 700"),
    "entries": (lambda i: i.number(b"/names", 96, "<Q", 3), "3 entries"),
    "parent": (lambda i: i.number(b"/names/below", 80, "<I", 1), "says that it is not in"),
    "mode": (lambda i: i.number(b"/fifo", 4, "<H", 0o020644), "has type 1"),
    "depth": (lambda i: i.number(b"/large", 84, "<B", 9), "is not sane"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_lfswalk_finds(defect: str) -> None:
    spoil, text = DEFECTS[defect]
    image = Image(close=True)
    spoil(image)
    _, found = image.read()
    assert any(text in each for each in found), found


def test_lfswalk_a_flush_that_is_not_whole_does_not_count() -> None:
    """What a summary does not vouch for is not rolled forward."""
    image = Image(close=False)
    block, summary = max(image.walk._summaries.values(), key=lambda each: each[1].serial)
    for done in (summary.done, summary.done - 1):
        disk = RawDisk(image.image, SHAPE.blocks)
        disk.recover()
        raw = bytearray(disk.image[block])
        struct.pack_into("<Q", raw, 32, done)
        disk.image[block] = bytes(raw)
        walk = LfsWalk(disk)
        walk.run()
        assert (walk.inodes == image.walk.inodes) == (done == summary.done)


@pytest.mark.parametrize("seed", range(4))
def test_lfswalk_whatever_the_bytes(seed: int) -> None:
    """It ends, and raises nothing, on any bytes in any of its blocks."""
    image = Image(close=True)
    blocks = sorted({*image.walk._named, *(b for b, _ in image.walk._summaries.values())})
    for number, block in enumerate(blocks[seed::4]):
        kept = image.image[block]
        noise = zlib.compress(b"%d" % number).ljust(24, b"\xff") * 171
        image.put(block, 16, noise[: BLOCK - 16])
        image.read()
        image.image[block] = kept
