"""Bytes of cached blocks on loan, where they lie."""

from __future__ import annotations

from xnfs import BLOCK, Caller, NoFrames, Xn


def on_loan(xn: Xn, who: Caller, block: int, offset: int, size: int) -> list[memoryview]:
    """`size` bytes from `offset` after the start of a cached block, in pieces that stay as they are
    (`Xn.borrow`); a copy, if the kernel does not lend so much."""
    first, last = offset // BLOCK, (offset + size - 1) // BLOCK
    try:
        views = list(xn.borrow(who, block + first, last + 1 - first))
    except NoFrames:
        return [memoryview(xn.read(who, block, offset, size))]
    past = sum(map(len, views)) - offset % BLOCK - size
    views[0] = views[0][offset % BLOCK :]
    views[-1] = views[-1][: len(views[-1]) - past]
    return views
