"""docs/write-a-file-system.md: its code is in the examples, its refusals are real."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from examples.notefs import NoteFs
from examples.notefs.format import DATA, HEADER_AT, NODE, SLOTS_AT
from libfs.posix import Posix
from tests.conformance.support import make_file
from xnfs import Caller, FramePool, MemoryDevice, TypeSpec, Xn, XnError, format_image

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs" / "write-a-file-system.md").read_text()


def test_document_shows_code_that_is_there() -> None:
    sources = "".join(path.read_text() for path in (TOP / "examples").rglob("*.py"))
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    assert len(blocks) >= 7
    for block in blocks:
        assert block in sources, block


def test_document_links() -> None:
    for name in re.findall(r"\]\(\.\./([\w./-]+)\)", TEXT):
        assert (TOP / name).exists(), name


class Lab:
    """Two file systems on one image, and somebody who knows the capability of the first."""

    def __init__(self) -> None:
        device = MemoryDevice(512)
        format_image(device, uuid=bytes(16), label="lab", now=0)
        xn = self.xn = Xn(device, frames=FramePool(256))
        for name in ("mine", "theirs"):
            NoteFs.mkfs(xn, xn.admin, name)
        fs = self.fs = NoteFs.mount(xn, xn.admin, "mine")
        layer = Posix(fs)
        self.file = make_file(layer, layer.root, b"file", b"x" * 4096)
        self.empty = make_file(layer, layer.root, b"empty")
        other = NoteFs.mount(xn, xn.admin, "theirs")
        layer = Posix(other)
        self.theirs = other.nodes[make_file(layer, layer.root, b"file", b"x" * 4096)].at(0)
        fs.sync(None)
        self.me = Caller(fs.cap)
        self.used = fs.nodes[self.file].at(0)
        self.free, _n = xn.find_free(0, 1)

    def point(self, kind: int, block: int) -> list[tuple[int, bytes]]:
        """Let slot 1 of the file, which is empty, point there."""
        return [(SLOTS_AT + 8, pack("<Q", kind << 56 | block))]


TOO_FAR = "def owns(meta, part):\n    emit(0, u64(meta, 4000 + part * 8), 1)\n"
CUT = [(SLOTS_AT, bytes(8))]

ATTEMPTS: dict[str, Callable[[Lab], object]] = {
    "point at a free block without claiming it": lambda lab: lab.xn.update(
        lab.me, lab.file, lab.point(DATA, lab.free)
    ),
    "claim one block and point at another": lambda lab: lab.xn.alloc(
        lab.me, lab.file, lab.point(DATA, lab.free + 1), [(lab.fs.data, lab.free, 1)]
    ),
    "claim a block that is in use": lambda lab: lab.xn.alloc(
        lab.me, lab.file, lab.point(DATA, lab.used), [(lab.fs.data, lab.used, 1)]
    ),
    "drop a pointer without freeing the block": lambda lab: lab.xn.update(lab.me, lab.file, CUT),
    "free a block and keep the pointer": lambda lab: lab.xn.free(
        lab.me, lab.file, [(HEADER_AT, bytes(4))], [(lab.fs.data, lab.used, 1)]
    ),
    "delete a node that still has data": lambda lab: lab.xn.free(
        lab.me, lab.fs.root, CUT, [(lab.fs.node, lab.file, 1)]
    ),
    "take a data block for a node": lambda lab: lab.xn.change(
        lab.me, [(lab.empty, lab.point(NODE, lab.used))], share=[(lab.fs.node, lab.used, 1)]
    ),
    "write bytes of a file over a node": lambda lab: lab.xn.write_raw(
        lab.me, lab.file, 0, bytes(16)
    ),
    "read a block of another file system": lambda lab: lab.xn.read(lab.me, lab.theirs, 0, 16),
    "install an `owns` that may read too far": lambda lab: lab.xn.install_type(
        Caller(lab.xn.admin),
        TypeSpec("bad", owns=TOO_FAR, parts=((128, 8, 8, 16),), stamp=0, refs=("notefs.data",)),
    ),
}
TOLD = dict(re.findall(r"^\| ([^|]+) \| `([^|]*)` \|$", TEXT, re.M))


def test_document_tells_all_refusals() -> None:
    assert TOLD.keys() == ATTEMPTS.keys()


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_document_refusals_are_real(attempt: str) -> None:
    lab = Lab()
    with pytest.raises(XnError) as caught:
        ATTEMPTS[attempt](lab)
    said = f"{type(caught.value).__name__}: {caught.value}"
    # Which block is which may change with the layout of an image.
    assert re.sub(r"\d+", "N", said) == re.sub(r"\d+", "N", TOLD[attempt])
