"""Hostile changes of pointers: sums that do not add up, in every way that a caller can miscount."""

# ruff: noqa: B023 - what a lambda is given for is called at once
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xnfs import (
    BLOCK,
    CycleError,
    NotCached,
    NotEmpty,
    NotFree,
    Refused,
    UnknownType,
)
from xnfs_trials.attack.case import OWN, SOSP97, TOCTOU, TRIO, XN, case
from xnfs_trials.attack.session import NUMBER, RAW, SLOTS_AT, Session, claim, slot
from xnfs_trials.attack.world import DATA, HIDDEN, NODE


@case(
    "free-installs",
    "a free whose diff installs a pointer too: only one direction is checked",
    XN,
    Refused,
)
def _installs(s: Session) -> None:
    m, at = s.m, s.empty(s.m.root)
    for target in (s.a.data, m.data, s.find()):
        for edits in (
            [slot(1), slot(at, DATA, target)],
            [slot(1, DATA, target)],
            [slot(at, DATA, target), slot(1)],
        ):
            s.refused(
                lambda: s.xn.free(m.who, m.root, edits, [claim(NODE, m.leaf)]),
                f"free that names {target}",
            )


@case(
    "alloc-drops", "an allocation whose diff drops a pointer too: the other direction", XN, Refused
)
def _drops(s: Session) -> None:
    m, start, at = s.m, s.find(), s.empty(s.m.root)
    new = [claim(DATA, start)]
    s.all_refused(
        lambda: s.xn.alloc(m.who, m.root, [slot(1, DATA, start)], new),
        lambda: s.xn.alloc(m.who, m.root, [slot(at, DATA, start), slot(1)], new),
        lambda: s.xn.alloc(m.who, m.root, [slot(at, DATA, start), slot(2)], new),
    )


@case(
    "claim-as-another-type",
    "a block that exists, claimed under another type",
    XN,
    NotFree,
    Refused,
    NotCached,
)
def _another(s: Session) -> None:
    m, at = s.m, s.empty(s.m.root)
    for block, kinds in ((m.data, (NODE, HIDDEN)), (m.node, (DATA, HIDDEN)), (m.leaf, (DATA,))):
        for kind in kinds:
            edits, claims = [(m.root, [slot(at, kind, block)])], [claim(kind, block)]
            s.refused(lambda: s.xn.change(m.who, edits, alloc=claims), f"{kind} as new")
            s.refused(lambda: s.xn.change(m.who, edits, share=claims), f"{kind} as shared")


@case(
    "retype-in-place",
    "data that becomes metadata with its bytes, so that pointers can be forged",
    XN,
    NotFree,
    Refused,
)
def _in_place(s: Session) -> None:
    m = s.m
    forged = slot(0, DATA, s.a.data)[1]
    s.xn.write_raw(m.who, m.data, SLOTS_AT, forged)
    change = s.xn.change
    s.all_refused(
        lambda: change(
            m.who, [(m.node, [slot(0, NODE, m.data, 2)])],
            alloc=[claim(NODE, m.data, 2)], free=[claim(DATA, m.data, 2)],
        ),
        lambda: change(
            m.who, [(m.node, [slot(0, HIDDEN, m.data, 2)])],
            alloc=[claim(HIDDEN, m.data, 2)], free=[claim(DATA, m.data, 2)],
        ),
        lambda: change(
            m.who, [(m.root, [slot(2, NODE, m.hidden, 2)])],
            alloc=[claim(NODE, m.hidden, 2)], free=[claim(HIDDEN, m.hidden, 2)],
        ),
        lambda: change(m.who, [(m.root, [slot(2, DATA, m.hidden, 2)])]),
        lambda: change(
            m.who, [(m.root, [slot(2, DATA, m.hidden, 3)])],
            alloc=[claim(DATA, m.hidden, 3)], free=[claim(HIDDEN, m.hidden, 2)],
        ),
    )  # fmt: skip


@case("diff-beyond-its-partition", "a diff for one slot that reaches into the next", XN, Refused)
def _partition(s: Session) -> None:
    m, start = s.m, s.find()
    at, raw = slot(0, DATA, start)
    second = slot(1, NODE, s.a.node)[1]
    s.all_refused(
        lambda: s.xn.alloc(m.who, m.leaf, [(at, raw + second)], [claim(DATA, start)]),
        lambda: s.xn.alloc(m.who, m.root, [(at + 16 * 3, raw + second)], [claim(DATA, start)]),
        lambda: s.xn.update(m.who, m.root, [(at - 16, bytes(32))]),
        lambda: s.xn.update(m.who, m.root, [(at + 15, bytes(20))]),
        lambda: s.xn.update(m.who, m.root, [(at + 8, b"\xff")]),
    )


@case(
    "diff-beyond-its-block",
    "a diff that begins before the block, ends after it, or is empty",
    XN,
    Refused,
)
def _block(s: Session) -> None:
    for offset, data in ((-1, b"xx"), (BLOCK - 1, b"xx"), (BLOCK, b"x"), (2**64, b"x"), (20, b"")):
        s.refused(lambda: s.xn.update(s.m.who, s.m.node, [(offset, data)]), f"at {offset}")
    s.refused(lambda: s.xn.update(s.m.who, s.m.node, [(0, bytes(BLOCK))]), "the whole block")


@case(
    "diff-of-the-stamp",
    "the kernel's own bytes of a block, by a diff or by raw bytes",
    SOSP97,
    Refused,
)
def _stamp(s: Session) -> None:
    for offset, size in ((0, 1), (15, 1), (15, 2), (8, 100), (4, 4)):
        s.refused(lambda: s.xn.update(s.m.who, s.m.node, [(offset, b"x" * size)]), "diff")
        s.refused(lambda: s.xn.write_raw(s.m.who, s.m.node, offset, b"x" * size), "raw")


@case(
    "raw-range-inclusive",
    "raw bytes one before the range, one after its end, or over its edge",
    XN,
    Refused,
)
def _raw(s: Session) -> None:
    lo, hi = RAW
    for offset, size in ((lo - 1, 1), (lo - 1, 2), (lo - 16, 17), (SLOTS_AT, 16), (0, hi)):
        s.refused(lambda: s.xn.write_raw(s.m.who, s.m.node, offset, b"x" * size), f"at {offset}")
    s.honest(lambda: s.xn.write_raw(s.m.who, s.m.node, hi - 1, b"x"), "the last raw byte")
    s.honest(lambda: s.xn.write_raw(s.m.who, s.m.node, lo, b"x"), "the first raw byte")


@case(
    "claims-that-overlap",
    "one block claimed twice, or two claims that overlap",
    OWN,
    Refused,
    NotFree,
    NotCached,
)
def _overlap(s: Session) -> None:
    m, start, at = s.m, s.find(3), s.empty(s.m.root)
    two = [slot(at, DATA, start, 2), slot(at + 1, DATA, start + 1, 2)]
    same = [slot(at, DATA, start), slot(at + 1, DATA, start)]
    s.all_refused(
        lambda: s.xn.alloc(m.who, m.root, two, [claim(DATA, start, 2), claim(DATA, start + 1, 2)]),
        lambda: s.xn.alloc(m.who, m.root, two, [claim(DATA, start, 3)]),
        lambda: s.xn.alloc(m.who, m.root, same, [claim(DATA, start)] * 2),
        lambda: s.xn.alloc(m.who, m.root, same, [claim(DATA, start)]),
        lambda: s.xn.change(
            m.who, [(m.root, same)], alloc=[claim(DATA, start)], share=[claim(DATA, start)]
        ),
        lambda: s.xn.alloc(
            m.who, m.root, [slot(at, DATA, start), slot(at + 1, NODE, start)],
            [claim(DATA, start), claim(NODE, start)],
        ),
    )  # fmt: skip


@case(
    "claims-of-odd-size",
    "claims of no block, of fewer than none, of more than there are",
    OWN,
    Refused,
    NotFree,
    NotCached,
)
def _odd(s: Session) -> None:
    m, start, at = s.m, s.find(2), s.empty(s.m.root)
    for count in (0, -1, -(2**40), 2**40, 2, True + 2):
        for name in ("alloc", "free", "share"):
            claims = [(NUMBER[DATA], start, count)]
            edits = [(m.root, [slot(at, DATA, start)])]
            given: dict[str, Any] = {name: claims}
            s.refused(lambda: s.xn.change(m.who, edits, **given), f"{name} {count}")
    s.refused(lambda: s.xn.change(m.who, []), "a change of nothing")


@case("pointer-out-of-nothing", "pointers that nobody claims, moves or gives up", TRIO, Refused)
def _nothing(s: Session) -> None:
    m, at = s.m, s.empty(s.m.root)
    for kind, block in ((DATA, m.data), (NODE, m.node), (NODE, m.root), (DATA, s.find())):
        s.refused(lambda: s.xn.update(m.who, m.root, [slot(at, kind, block)]), "update")
        s.refused(lambda: s.xn.move(m.who, m.root, [slot(at, kind, block)], m.node, []), "move")
    s.refused(lambda: s.xn.update(m.who, m.node, [slot(0, DATA, m.data, 3)]), "a longer run")
    s.refused(lambda: s.xn.update(m.who, m.node, [slot(0, DATA, m.data, 1)]), "a shorter run")
    s.refused(lambda: s.xn.update(m.who, m.node, [slot(0)]), "a pointer lost")


@case("newborn-smuggles", "a new block that is born with pointers nobody claimed", OWN, Refused)
def _newborn(s: Session) -> None:
    m, start, at = s.m, s.find(), s.empty(s.m.root)
    diff, new = [slot(at, NODE, start)], [claim(NODE, start)]
    for kind, block in ((DATA, m.data), (DATA, s.a.data), (NODE, s.a.node), (NODE, start)):
        init = [slot(0, kind, block)]
        s.refused(lambda: s.xn.alloc(m.who, m.root, diff, new, init=init), f"with {block}")
        s.refused(lambda: s.xn.alloc_held(m.who, m.root, claim(NODE, start), init=init), "held")
    for offset, data in ((0, b"x"), (BLOCK, b"x"), (-1, b"x")):
        s.refused(lambda: s.xn.alloc(m.who, m.root, diff, new, init=[(offset, data)]), "stamp")
    edits = [(m.root, diff)]
    inits = {m.node: [slot(0)], start: []}
    s.refused(
        lambda: s.xn.change(m.who, edits, alloc=new, inits=inits), "first bytes of an old block"
    )


@case(
    "block-edited-twice",
    "one block edited twice in one change, each time from the old bytes",
    TOCTOU,
    Refused,
)
def _twice(s: Session) -> None:
    m, start = s.m, s.find()
    at = s.empty(m.root)
    edits = [(m.root, [slot(at, DATA, start)]), (m.root, [slot(at + 1, DATA, start)])]
    s.refused(lambda: s.xn.change(m.who, edits, alloc=[claim(DATA, start)] * 2), "twice")
    edits = [(m.root, [slot(1)]), (m.root, [slot(1)])]
    s.refused(lambda: s.xn.change(m.who, edits, free=[claim(NODE, m.leaf)]), "freed twice")
    s.refused(
        lambda: s.xn.move(m.who, m.root, [slot(1)], m.root, [slot(at, NODE, m.leaf)]), "moved"
    )


@case(
    "diff-that-changes",
    "arguments that yield other bytes when they are looked at again",
    TOCTOU,
    Refused,
)
def _changes(s: Session) -> None:
    m, start, at = s.m, s.find(), s.empty(s.m.root)

    def once() -> Iterator[tuple[int, bytes]]:
        yield slot(at, DATA, start)

    buffer = bytearray(slot(at, DATA, start)[1])

    class Lying(list[Any]):
        turns = 0

        def __iter__(self) -> Iterator[Any]:
            self.turns += 1
            honest = [(SLOTS_AT + 16 * at, bytes(buffer))]
            return iter(honest if self.turns == 1 else [slot(at, DATA, s.a.data)])

    s.refused(lambda: s.xn.update(m.who, m.root, once()), "a generator without claim")  # type: ignore[arg-type]
    s.honest(lambda: s.xn.alloc(m.who, m.root, Lying(), [claim(DATA, start)]), "an honest diff")
    buffer[8:] = s.a.data.to_bytes(8, "little")
    s.holds(s.pointer(m.root, at) == (DATA, start, 1), "other bytes than those checked are there")
    for bad in ([(0,)], [(1, 2, 3)], [("x", b"y")], [(1, "y")], 7, [None]):
        s.refused(lambda: s.xn.update(m.who, m.root, bad), f"a diff {bad!r}")  # type: ignore[arg-type]


@case(
    "delete-not-empty",
    "a node that owns blocks loses its last owner",
    TRIO,
    NotEmpty,
    NotCached,
    Refused,
)
def _not_empty(s: Session) -> None:
    m = s.m
    s.refused(lambda: s.xn.free(m.who, m.root, [slot(0)], [claim(NODE, m.node)]), "a full node")
    held = s.find()
    s.honest(lambda: s.xn.alloc_held(m.who, m.root, claim(NODE, held), init=()), "a held node")
    s.honest(lambda: s.xn.move(m.who, m.node, [slot(0)], held, [slot(0, DATA, m.data, 2)]), "move")
    s.refused(lambda: s.xn.drop(m.who, held), "a held node that owns blocks")
    for claims in (
        [claim(DATA, m.data)],
        [claim(DATA, m.data, 3)],
        [claim(DATA, s.a.data, 2)],
        [claim(DATA, m.data, 2), claim(NODE, m.leaf)],
    ):
        s.refused(lambda: s.xn.drop(m.who, held, free=claims), "with other blocks than it owns")
    s.xn.move(m.who, held, [slot(0)], m.node, [slot(0, DATA, m.data, 2)])
    s.xn.drop(m.who, held)


@case(
    "delete-unseen",
    "a node that is not cached loses its last owner: nobody knows what it owns",
    OWN,
    NotCached,
)
def _unseen(s: Session) -> None:
    m = s.m
    s.xn.sync(m.who)
    s.xn.evict(m.who, [m.node])
    s.refused(lambda: s.xn.free(m.who, m.root, [slot(0)], [claim(NODE, m.node)]), "unseen")
    s.xn.readin(m.who, m.root, 0, m.node, 1)


@case("freed-too-often", "one pointer freed twice, or one that is owned elsewhere", TRIO, Refused)
def _often(s: Session) -> None:
    m, leaf = s.m, claim(NODE, s.m.leaf)
    at, before = s.empty(m.root), s.xn.refs(s.m.leaf)
    s.refused(lambda: s.xn.free(m.who, m.root, [slot(1)], [leaf] * 2), "twice in one call")
    s.honest(lambda: s.xn.free(m.who, m.root, [slot(1)], [leaf]), "one of two owners")
    s.refused(lambda: s.xn.free(m.who, m.root, [slot(1)], [leaf]), "once more")
    s.refused(lambda: s.xn.free(m.who, m.root, [slot(at)], [claim(DATA, m.data, 2)]), "another's")
    s.holds(s.xn.refs(m.leaf) == before - 1, "the count is wrong")
    s.xn.change(m.who, [(m.root, [slot(1, NODE, m.leaf)])], share=[leaf])


@case("cycle", "nodes that own themselves or each other, and then lose everybody else", TRIO)
def _cycle(s: Session) -> None:
    xn, m = s.xn, s.m
    one = s.add(NODE)
    two = s.add(NODE, one)
    at = s.where(m.root, one)
    xn.change(m.who, [(two, [slot(0, NODE, one)])], share=[claim(NODE, one)])
    xn.change(m.who, [(two, [slot(1, NODE, two)])], share=[claim(NODE, two)])
    xn.free(m.who, m.root, [slot(at)], [claim(NODE, one)])
    s.holds(xn.refs(one) == 1 and xn.refs(two) == 2, "owners were lost count of")
    s.holds(not s.is_free(one) and not s.is_free(two), "owned blocks are free")
    xn.sync(m.who)
    while not xn.collect(m.who, 100).done:
        pass
    s.holds(s.is_free(one) and s.is_free(two), "the cycle is not collected")


@case("cycle-over-the-root", "a root that owns itself, and frees itself", OWN, Refused, NotEmpty)
def _root(s: Session) -> None:
    """The catalogue is an owner that no caller can take away."""
    xn, m, at = s.xn, s.m, s.empty(s.m.root)
    xn.change(m.who, [(m.root, [slot(at, NODE, m.root)])], share=[claim(NODE, m.root)])
    xn.free(m.who, m.root, [slot(at)], [claim(NODE, m.root)])
    s.holds(xn.refs(m.root) == 1, "the root's count is wrong")
    s.refused(lambda: xn.free(m.who, m.root, [slot(at)], [claim(NODE, m.root)]), "the root freed")
    s.holds(not s.is_free(m.root), "the root's block is free")


@case(
    "cycle-over-the-root-collected",
    "the same with a collection of leaks in between",
    OWN,
    Refused,
    NotEmpty,
)
def _collected(s: Session) -> None:
    xn, m, at = s.xn, s.m, s.empty(s.m.root)
    xn.change(m.who, [(m.root, [slot(at, NODE, m.root)])], share=[claim(NODE, m.root)])
    while not xn.collect(m.who, 1000).done:
        pass
    s.holds(xn.refs(m.root) == 2, "the catalogue's pointer is not counted")
    xn.free(m.who, m.root, [slot(at)], [claim(NODE, m.root)])
    xn.sync(m.who)
    s.holds(not s.is_free(m.root), "the root's block is free")


@case(
    "relocate-odd",
    "relocations to blocks in use, of shared or held nodes, of a node into itself",
    OWN,
    NotFree,
    Refused,
)
def _relocate(s: Session) -> None:
    xn, m, new = s.xn, s.m, s.find(2)
    for target in (m.data, s.a.node, s.a.data, m.node):
        s.refused(
            lambda: xn.relocate(m.who, m.root, [slot(0, NODE, target)], m.node, target),
            f"to {target}",
        )
    s.all_refused(
        lambda: xn.relocate(m.who, m.root, [slot(1, NODE, new)], m.leaf, new),
        lambda: xn.relocate(m.who, m.root, [slot(0, DATA, new)], m.node, new),
        lambda: xn.relocate(m.who, m.root, [slot(0, NODE, new)], m.node, new + 1),
        lambda: xn.relocate(m.who, m.root, [slot(0, NODE, new), slot(1)], m.node, new),
        lambda: xn.relocate(m.who, m.root, [], m.node, new),
        lambda: xn.relocate(m.who, m.node, [slot(0, NODE, new)], m.node, new),
    )


@case(
    "held-odd",
    "held blocks taken from others, of data, of two; let go of what is not held",
    OWN,
    NotFree,
    NotCached,
    Refused,
    UnknownType,
)
def _held(s: Session) -> None:
    xn, m, free = s.xn, s.m, s.find(2)
    s.all_refused(
        lambda: xn.alloc_held(m.who, m.root, claim(NODE, m.node), init=()),
        lambda: xn.alloc_held(m.who, m.root, claim(NODE, free, 2), init=()),
        lambda: xn.alloc_held(m.who, m.root, claim(DATA, free), init=()),
        lambda: xn.alloc_held(m.who, m.root, (99, free, 1), init=()),
        lambda: xn.alloc_held(m.who, m.root, claim(NODE, free, 0), init=()),
        lambda: xn.drop(m.who, m.node),
        lambda: xn.drop(m.who, m.data),
        lambda: xn.hold(m.who, m.data),
    )
    xn.alloc_held(m.who, m.root, claim(NODE, free), init=())
    xn.drop(m.who, free)
    s.refused(lambda: xn.drop(m.who, free), "let go twice")


@case("order-in-a-circle", "declared orders that wait for each other", SOSP97, CycleError)
def _circle(s: Session) -> None:
    xn, m = s.xn, s.m
    for block in (m.data, m.leaf, m.node):
        xn.write_raw(m.who, block, RAW[0], b"x")
    xn.depend(m.who, m.data, m.leaf)
    xn.depend(m.who, m.leaf, m.node)
    s.all_refused(
        lambda: xn.depend(m.who, m.node, m.data),
        lambda: xn.depend(m.who, m.leaf, m.data),
        lambda: xn.depend(m.who, m.data, m.data),
    )
