"""What the tests of the system calls share: a generic file system of three types, and its image.

A node has 100 pointers (kind, count, start), each a partition, and a raw range; there are data
blocks, and blocks of an unreadable type. No acl: what is tested here is the kernel's own check.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache

from xnfs import (
    BLOCK,
    T_UNREADABLE,
    Caller,
    Diff,
    Extent,
    FramePool,
    MemoryDevice,
    TypeSpec,
    Xn,
    format_image,
)
from xnfs.disk.device import BlockDevice

UUID = bytes(range(100, 116))
DATA, NODE, HIDDEN = 1, 2, 3
SLOTS = 100
SLOTS_AT = 64
RAW = (2048, 4096)
#: what stands in every free block of a new image: nobody may ever read it
CANARY = b"CANARY!!" * (BLOCK // 8)
#: what stands in every page frame at first: likewise
POISON = b"poison!!" * (BLOCK // 8)

OWNS = """
def owns(meta, part):
    off = 64 + part * 16
    kind = u32(meta, off)
    if kind >= 1 and kind <= 3:
        emit(kind - 1, u64(meta, off + 8), u32(meta, off + 4))
"""
SPECS = (
    TypeSpec("t.data"),
    TypeSpec("t.hid", flags=T_UNREADABLE),
    TypeSpec(
        "t.node",
        owns=OWNS,
        parts=((SLOTS_AT, 16, 16, SLOTS),),
        stamp=0,
        refs=("t.data", "t.node", "t.hid"),
        raw=RAW,
    ),
)
#: type numbers: three records of one block each
NUMBER = {DATA: 16, HIDDEN: 17, NODE: 18}


def slot(index: int, kind: int = 0, start: int = 0, count: int = 1) -> tuple[int, bytes]:
    """The edit that makes slot `index` point at a run; without a kind it is emptied."""
    raw = struct.pack("<IIQ", kind, count, start) if kind else bytes(16)
    return SLOTS_AT + 16 * index, raw


def extent(kind: int, start: int, count: int = 1) -> Extent:
    """A claim."""
    return NUMBER[kind], start, count


def slots_of(raw: bytes | memoryview) -> dict[int, tuple[int, int, int]]:
    """slot -> (kind, start, count) of the pointers in use of a node's bytes."""
    out = {}
    for index in range(SLOTS):
        kind, count, start = struct.unpack_from("<IIQ", raw, SLOTS_AT + 16 * index)
        if kind:
            out[index] = kind, start, count
    return out


@cache
def _image(blocks: int, log_blocks: int, roots: Sequence[str]) -> MemoryDevice:
    device = MemoryDevice(blocks)
    format_image(
        device, uuid=UUID, label="kit", log_blocks=log_blocks, types_blocks=6, roots_blocks=1
    )
    xn = Xn(device, frames=FramePool(64), clock=lambda: 1)
    admin = Caller(xn.admin)
    for spec in SPECS:
        xn.install_type(admin, spec)
    for name in roots:
        xn.install_root(admin, name, NUMBER[NODE])
    lo, hi = xn.data_area
    free = [b for b in range(lo, hi) if not xn.refs(b)]
    xn.close()
    for block in free:
        device.write(block, [CANARY])
    return device


def image(
    blocks: int = 128, *, log_blocks: int = 16, roots: Sequence[str] = ("main",)
) -> MemoryDevice:
    """A clean image with the three types and empty roots; every free block holds the canary."""
    return _image(blocks, log_blocks, tuple(roots)).fork()


class Kit:
    """An open image, and short words for what tests do to it."""

    def __init__(
        self,
        device: BlockDevice | None = None,
        *,
        frames: int = 256,
        root: str = "main",
        clock: Callable[[], int] = lambda: 1,
    ) -> None:
        self.device = image() if device is None else device
        self.pool = FramePool(frames)
        taken = self.pool.alloc("test", frames)
        for frame in taken:
            self.pool.view(frame)[:] = POISON
        self.pool.free(taken)
        self.xn = Xn(self.device, frames=self.pool, clock=clock)
        self.admin = Caller(self.xn.admin)
        info = self.xn.mount_root(self.admin, root)
        self.root, self.me = info.block, Caller(info.cap)

    def frames_used(self) -> int:
        """By all roots, and the kernel."""
        return self.pool.count - self.pool.free_frames

    def find(self, count: int = 1) -> int:
        """A free run."""
        start, n = self.xn.find_free(0, count)
        assert n == count
        return start

    def add(self, parent: int, index: int, kind: int, count: int = 1, *, init: Diff = ()) -> int:
        """Give `parent` new blocks; the first of them."""
        start = self.find(count)
        claim = [extent(kind, start, count)]
        self.xn.alloc(self.me, parent, [slot(index, kind, start, count)], claim, init=init)
        return start

    def node(self, parent: int, index: int) -> int:
        """A new node below `parent`."""
        return self.add(parent, index, NODE)

    def data(self, parent: int, index: int, text: bytes, count: int = 1) -> int:
        """New data blocks below `parent`, each filled with `text`."""
        start = self.add(parent, index, DATA, count)
        self.xn.write_raw(self.me, start, 0, fill(text) * count)
        return start

    def free(self, parent: int, index: int) -> None:
        """Drop what a slot points at."""
        kind, start, count = self.slots(parent)[index]
        self.xn.free(self.me, parent, [slot(index)], [extent(kind, start, count)])

    def share(self, parent: int, index: int, kind: int, block: int) -> None:
        """One more owner."""
        diff = [slot(index, kind, block)]
        self.xn.change(self.me, [(parent, diff)], share=[extent(kind, block)])

    def move(self, src: int, i: int, dst: int, j: int) -> None:
        """A pointer goes from slot i of `src` to slot j of `dst`."""
        pointer = self.slots(src)[i]
        self.xn.move(self.me, src, [slot(i)], dst, [slot(j, *pointer)])

    def slots(self, block: int) -> dict[int, tuple[int, int, int]]:
        """The pointers of a cached node."""
        return slots_of(self.xn.read(self.me, block, 0, BLOCK))

    def load(self, block: int) -> None:
        """Bind everything below a cached node."""
        todo = [block]
        while todo:
            parent = todo.pop()
            for part, (kind, start, count) in self.slots(parent).items():
                if kind != HIDDEN:
                    self.xn.readin(self.me, parent, part, start, count)
                if kind == NODE:
                    todo += range(start, start + count)

    def sync(self, blocks: Sequence[int] | None = None) -> None:
        """Make everything, or these blocks, durable."""
        self.xn.sync(self.me, blocks)

    def reopen(self, *, crash: bool = False) -> Kit:
        """Close (or leave as it is, as after a crash of the kernel) and open again."""
        if not crash:
            self.xn.close()
        return Kit(self.device)


def fill(text: bytes) -> bytes:
    """A block full of `text`."""
    return (text * (BLOCK // len(text) + 1))[:BLOCK]
