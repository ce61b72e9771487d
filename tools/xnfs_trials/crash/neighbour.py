"""A second file system on the image of a trial, whose every byte is known: O6 watches it.

It is the smallest thing that XN calls a file system: one block of eight pointers, and data. Its
blocks lie scattered among those that the file system on trial will take, and nobody ever writes
them again, so they must stay as they are, byte for byte, whatever is cut.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from xnfs import BLOCK, Caller, TypeSpec, Xn
from xnfs_trials.crash.model import tagged

NODE, DATA = "neighbour.node", "neighbour.data"
#: The number in its canaries; no file of a trial has it.
OWNER = 0xFFFF_FFFE
SLOTS, AT = 8, 64
STRIDE = 5  # blocks from one of its data blocks to the next

_OWNS = """\
def owns(meta, part):
    p = u64(meta, 64 + part * 8)
    if p > 0:
        emit(0, p, 1)
"""


@dataclass(frozen=True)
class Neighbour:
    """Where it lies, and what it holds."""

    blocks: tuple[int, ...]
    holds: Mapping[int, bytes] = field(default_factory=dict)

    def seen_on(self, image: Mapping[int, bytes]) -> Neighbour:
        """The same, knowing what the image holds now as what must stay."""
        return replace(self, holds={b: image[b] for b in self.blocks})

    def harmed(self, image: Mapping[int, bytes]) -> Iterator[int]:
        """Its blocks that hold anything else."""
        return (b for b, data in self.holds.items() if image.get(b) != data)


def move_in(xn: Xn, name: str = "neighbour") -> Neighbour:
    """Make it beside whatever is there. Durable on return. Raises XnError."""
    who = Caller(xn.admin)
    data = xn.install_type(who, TypeSpec(DATA))
    parts = ((AT, 8, 8, SLOTS),)
    node = xn.install_type(who, TypeSpec(NODE, owns=_OWNS, parts=parts, stamp=0, refs=(DATA,)))
    root = xn.install_root(who, name, node)
    blocks: list[int] = []
    for _ in range(SLOTS):
        block, _n = xn.find_free((blocks[-1] if blocks else root.block) + STRIDE, 1)
        pointer = (AT + 8 * len(blocks), struct.pack("<Q", block))
        xn.change(Caller(root.cap), [(root.block, [pointer])], alloc=[(data, block, 1)])
        xn.write_raw(Caller(root.cap), block, 0, tagged(OWNER, 0, BLOCK, block))
        blocks.append(block)
    xn.sync(who)
    return Neighbour((root.block, *blocks))
