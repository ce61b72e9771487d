"""A toy file system for tests of the kernel: nodes with 100 pointers, leaves, data. No policy, no
acl."""

from __future__ import annotations

import struct

from images.damage import forge_bytes
from xnfs import T_UNREADABLE, Caller, FramePool, MemoryDevice, TypeSpec, Xn, format_image
from xnfs.disk.device import BlockDevice

UUID = bytes(range(16))
NODE, DATA, LEAF, HIDDEN = 1, 2, 3, 4
SLOTS = 100

OWNS = """\
def owns(meta, part):
    kind, count, p = u32(meta, 64 + part * 16), u32(meta, 68 + part * 16), u64(meta, 72 + part * 16)
    if kind >= 1 and kind <= 4:
        emit(kind - 1, p, count)
"""
TYPES = (
    TypeSpec("t.data"),
    TypeSpec("t.hidden", flags=T_UNREADABLE),
    TypeSpec("t.leaf", stamp=0, raw=(64, 4096)),
    TypeSpec(
        "t.node",
        owns=OWNS,
        parts=((64, 16, 16, SLOTS),),
        stamp=0,
        refs=("t.node", "t.data", "t.leaf", "t.hidden"),
    ),
)
NAMES = {NODE: "t.node", DATA: "t.data", LEAF: "t.leaf", HIDDEN: "t.hidden"}


def slot_at(index: int) -> int:
    """Where slot `index` of a node lies."""
    return 64 + 16 * index


def slot(kind: int, start: int, count: int = 1) -> bytes:
    """The bytes of a pointer."""
    return struct.pack("<IIQ", kind, count, start)


class Toy:
    """A root of the toy file system on an open image."""

    def __init__(
        self,
        device: BlockDevice,
        *,
        fresh: bool = True,
        root: str | None = None,
        frames: int = 512,
        dirt: bytes = b"",
    ) -> None:
        if fresh:
            format_image(device, uuid=UUID, label="toy")
        self.device = device
        pool = FramePool(frames)
        if dirt:
            # Frames come with the bytes of their last owner; nobody may ever see these.
            taken = pool.alloc("dirt", frames)
            pool.view_run(taken[0], frames)[:] = dirt * (frames * 4096 // len(dirt))
            pool.free(taken)
        self.xn = Xn(device, frames=pool, clock=lambda: 1)
        admin = Caller(self.xn.admin)
        if fresh:
            for spec in TYPES:
                self.xn.install_type(admin, spec)
            info = self.xn.install_root(admin, root or "toy", self.number(NODE))
            self.xn.sync(admin)
        else:
            info = self.xn.mount_root(admin, root or self.xn.roots()[0].name)
        self.root, self.me = info.block, Caller(info.cap)

    def number(self, kind: int) -> int:
        """The type number of a kind of pointer."""
        number = self.xn.type_number(NAMES[kind])
        assert number is not None
        return number

    def add(self, parent: int, index: int, kind: int, count: int = 1) -> int:
        """Give `parent` new blocks; the first of them."""
        start, n = self.xn.find_free(0, count)
        assert n == count
        claim = [(self.number(kind), start, count)]
        diff = [(slot_at(index), slot(kind, start, count))]
        self.xn.alloc(self.me, parent, diff, claim)
        return start

    def share(self, parent: int, index: int, kind: int, block: int) -> None:
        """A second owner for a block of metadata."""
        diff = [(slot_at(index), slot(kind, block))]
        self.xn.change(self.me, [(parent, diff)], share=[(self.number(kind), block, 1)])


def sample() -> tuple[MemoryDevice, dict[str, int]]:
    """A small clean image: root -> two nodes with data and leaves; one leaf with two owners."""
    device = MemoryDevice(256)
    toy = Toy(device)
    at = {"root": toy.root}
    at["a"] = toy.add(toy.root, 0, NODE)
    at["b"] = toy.add(toy.root, 1, NODE)
    at["data"] = toy.add(at["a"], 0, DATA, 3)
    at["leaf"] = toy.add(at["a"], 1, LEAF)
    toy.share(at["b"], 0, LEAF, at["leaf"])
    at["deep"] = toy.add(at["b"], 1, NODE)
    at["bottom"] = toy.add(at["deep"], 0, DATA, 2)
    toy.xn.write_raw(toy.me, at["data"], 0, b"D" * 3 * 4096)
    toy.xn.write_raw(toy.me, at["bottom"], 0, b"B" * 2 * 4096)
    at["last"] = toy.add(toy.root, 2, NODE)
    toy.xn.sync(toy.me)
    # The newest transaction in the log holds this node alone: damage elsewhere is not undone by it.
    toy.add(at["last"], 0, LEAF)
    toy.xn.close()
    return device, at


def point(device: BlockDevice, block: int, index: int, raw: bytes) -> None:
    """Forge a pointer of a node."""
    forge_bytes(device, block, slot_at(index), raw)
