"""What the real code does to an image when it opens it, and what that must be.

Recovery ends, and leaves the bytes that `rawdisk` says it must: both run on every disk, and are
compared. What it writes on the way is what a second cut may catch half done.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from xnfs import Caller, FramePool, Xn, XnError
from xnfs.disk.device import Buffers, Views
from xnfs_trials.crash.prune import View
from xnfs_trials.crash.rawdisk import BLOCK, ZERO, RawDisk, Unreadable
from xnfs_trials.crash.states import Event, Flush, Write

FRAMES = 64


class Bench:
    """A device over a view of an image, which records what it is asked."""

    readonly = False

    def __init__(self, view: View, blocks: int) -> None:
        self.view = view
        self.blocks = blocks
        self.events: list[Event] = []

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        for view in views:
            for at in range(0, view.nbytes, BLOCK):
                view[at : at + BLOCK] = self.view.get(start, ZERO)
                start += 1

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        data = b"".join(views)
        for at in range(0, len(data), BLOCK):
            piece = _once(data[at : at + BLOCK])
            self.view[start] = piece
            self.events.append(Write(start, piece, sequence=len(self.events)))
            start += 1

    def flush(self) -> None:
        """See BlockDevice."""
        self.events.append(Flush(sequence=len(self.events)))

    def is_zero(self, start: int, count: int) -> bool:
        """Never known without reading."""
        return False

    def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True)
class Recovery:
    """What opening an image did: `events` on the device, `wrong` with that. `redone`: what must be
    there then, where that is not what was there before. `reads`: what it all depends on; None:
    everything."""

    events: tuple[Event, ...]
    wrong: tuple[str, ...]
    redone: dict[int, bytes]
    reads: tuple[int, ...] | None

    def over(self, image: Mapping[int, bytes]) -> View:
        """The image as it must be afterwards, for who notes what he reads of it."""
        view = View(image)
        view.written.update(self.redone)
        return view


def recover(image: Mapping[int, bytes], blocks: int) -> Recovery:
    """Open the image, and compare with what must be there. Does not change `image`."""
    view = View(image)
    wrong: list[str] = []
    redone: dict[int, bytes] = {}
    area = range(0)
    try:
        raw = RawDisk(view.copy(), blocks)
        redone = {block: raw.block(block) for block in raw.recover()}
        wrong += [f"O1 {f.rule}: block {f.block}: {f.text}" for f in raw.findings]
        area = range(raw.super.map[0], blocks - 1)
    except Unreadable as error:
        wrong.append(f"O1 super: {error}")
    device = Bench(view, blocks)
    try:
        Xn(device, frames=FramePool(FRAMES), clock=_clock)
    except Exception as error:
        wrong.append(f"recovery failed: {type(error).__name__}: {error}")
    else:
        if device.events and not isinstance(device.events[-1], Flush):
            wrong.append("recovery returned without a flush")
    wrong += _compare(view, redone, area)
    return Recovery(tuple(device.events), tuple(wrong), redone, view.reads)


def _compare(view: View, redone: Mapping[int, bytes], area: range) -> list[str]:
    """From the tables on there must be what the independent recovery leaves."""
    bare = view.copy()
    bare.written.clear()
    return [
        f"recovery left other bytes in block {block}"
        for block in sorted(redone.keys() | view.written.keys())
        if block in area
        and view.get(block, ZERO) != (redone[block] if block in redone else bare.get(block, ZERO))
    ]


def collecting(image: Mapping[int, bytes], blocks: int) -> tuple[Event, ...]:
    """Open the image, collect what leaked, close it: what that did on the device, as far as it
    came. Whether it may fail is for those to say who mount the image."""
    device = Bench(View(image), blocks)
    with suppress(XnError):
        xn = Xn(device, frames=FramePool(FRAMES * 4), clock=_clock)
        who = Caller(xn.admin)
        while xn.leaky and not xn.collect(who, 64).done:
            pass
        xn.close()
    return tuple(device.events)


@lru_cache(maxsize=1 << 12)
def _once(data: bytes) -> bytes:
    """Equal bytes are kept once: recoveries write the same over and over."""
    return data


def _clock() -> int:
    return 1
