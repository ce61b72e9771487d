"""Which calls a search tries in a state: every system call, with every argument of a small set.

Honest and hostile alike: allocation of blocks that are free, somebody's, the kernel's or not there;
pointers shared, moved, replaced, dropped as what they are and as what they are not; newborns that
bring pointers; pages of others; capabilities for less, revoked ones, and what they can't do. Blocks
that were never touched are alike, so only the first two of them are named.
"""

from __future__ import annotations

from collections.abc import Iterator

from xnfs_trials.attack.spec import State
from xnfs_trials.attack.world import (
    DATA,
    HIDDEN,
    KERNEL,
    NODE,
    OUTSIDE,
    SLOTS,
    Call,
    Pointer,
)

PERSONS = ("a", "b")


def calls(state: State, names: range) -> Iterator[Call]:
    """Every call with every argument of a small set."""
    fresh = [b for b in names if state.free(b)]
    blocks = [b for b in names if b not in fresh[2:]]
    pointers = [(kind, b) for kind in (DATA, NODE) for b in blocks]
    targets = [*pointers, (HIDDEN, blocks[-1]), (DATA, KERNEL), (NODE, OUTSIDE)]
    for who in PERSONS:
        for block in blocks:
            page = state.blocks.get(block)
            yield from _page_calls(who, block, page.kind if page else "")
            none: list[Pointer | None] = [None] * SLOTS
            slots = page.slots if page and page.slots else none
            owned = [p for p in slots if p]
            for claims in ((), owned, owned[:1], [(DATA, blocks[-1])]):
                yield "drop", who, (block, claims)
            for slot in range(SLOTS if slots[0] != slots[1] else 1):
                yield from _changes(state, who, block, slot, slots, targets, blocks)
    yield from _token_calls(state, blocks)
    for block in (KERNEL, OUTSIDE):
        for name in ("read", "write", "hold", "pin", "evict"):
            yield name, "a", (block,)
        yield "change", "a", ([(block, [(0, None)])],)
    for name in ("sync", "writeback", "collect"):
        yield name, "a", ()


def _page_calls(who: str, block: int, kind: str) -> Iterator[Call]:
    names = "read write evict pin unpin lock unlock hold".split()
    yield from ((name, who, (block,)) for name in names)
    if kind != DATA:  # of data, that would be a write like any other
        yield "poke", who, (block,)
    if block in (0, 1):
        yield "mount", who, (block,)


def _changes(
    state: State, who: str, node: int, slot: int, slots: list[Pointer | None],
    targets: list[Pointer], blocks: list[int],
) -> Iterator[Call]:  # fmt: skip
    """What may be done to one slot of one node, and what may not."""
    old = slots[slot]
    for to in targets:
        edit = [(node, [(slot, to)])]
        yield "change", who, (edit, [to])  # allocate
        yield "change", who, (edit, (), (), [to])  # share
        yield "change", who, (edit,)  # a pointer out of nothing
        if old:
            yield "change", who, (edit, [to], [old])  # replace
            both = [(node, [(slot, None), (1 - slot, to)])]
            yield "change", who, (both, (), [old])  # free that installs
    yield "change", who, ([(node, [(slot, None)])],)
    for kind in (DATA, NODE, HIDDEN):
        if old:
            yield "change", who, ([(node, [(slot, None)])], (), [(kind, old[1])])  # free, as ...
            retyped = kind, old[1]
            yield "change", who, ([(node, [(slot, retyped)])], [retyped], [old])
    for block in dict.fromkeys((old[1] if old else blocks[0], blocks[0], blocks[-1])):
        yield "readin", who, (node, slot, block)
        yield "bind", who, (node, slot, block)
    yield from _two_nodes(who, node, slot, old, blocks)
    new = blocks[-1]
    for claim in ((NODE, new), (DATA, new), (NODE, blocks[0]), (NODE, KERNEL)):
        yield "alloc_held", who, (node, claim)
    for pointer in ((DATA, blocks[0]), (DATA, new), (NODE, new)):  # a newborn brings a pointer
        birth = [(node, [(slot, (NODE, blocks[-2]))])]
        for more in ((), (pointer,)):
            yield "change", who, (birth, [(NODE, blocks[-2]), *more], (), (), {blocks[-2]: pointer})


def _two_nodes(
    who: str, node: int, slot: int, old: Pointer | None, blocks: list[int]
) -> Iterator[Call]:
    if old is None:
        return
    for other in blocks:
        if other != node:
            for into in range(SLOTS):
                move = [(node, [(slot, None)]), (other, [(into, old)])]
                yield "change", who, (move,)
        if old[0] == NODE:
            yield "relocate", who, (node, slot, old[1], other)


def _token_calls(state: State, blocks: list[int]) -> Iterator[Call]:
    """What a capability for less can do, while it lives and afterwards; and what makes it."""
    for home, other in (("a", "b"), ("b", "a")):
        token = home + "'"
        if not state.tokens.get(token):
            yield "narrow", home, (home, "rw")
        yield "narrow", home, (other, "r")
        if token not in state.tokens:
            continue
        for who in (home, other, token):
            yield "revoke", who, (token,)
        yield "revoke", token, (home,)
        yield "narrow", token, (home, "rwa")
        for block in blocks:
            yield from ((n, token, (block,)) for n in "read write lock unlock evict hold".split())
            claim = (DATA, blocks[-1])
            yield "change", token, ([(block, [(0, claim)])], [claim])
            yield "change", token, ([(block, [(0, None)])],)
        yield "mount", token, (0 if home == "a" else 1,)
