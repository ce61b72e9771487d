"""Mallory takes all there is of something. Others must be able to go on with what they have, and to
go on as before once her root is removed; what she asks for beyond the bound is refused.
"""

from __future__ import annotations

from contextlib import suppress

from xnfs import (
    READ,
    Caller,
    NoFrames,
    NoSpace,
    NotFree,
    Refused,
)
from xnfs_trials.attack.case import STARVE, case
from xnfs_trials.attack.session import NUMBER, Session, claim, slot
from xnfs_trials.attack.world import DATA, HIDDEN, NODE


@case("blocks-exhausted", "all free blocks of the disk, and one more", STARVE, NoSpace, NotFree)
def _blocks(s: Session) -> None:
    xn, m = s.xn, s.m
    while xn.free_blocks():
        start, n = xn.find_free(0, 16)
        at = s.empty(m.root)
        xn.alloc(m.who, m.root, [slot(at, HIDDEN, start, n)], [claim(HIDDEN, start, n)])
    s.starved = True
    at = s.empty(m.leaf)
    s.refused(lambda: xn.install_root(s.admin, "more", NUMBER[NODE]), "a root")
    s.refused(
        lambda: xn.alloc(m.who, m.leaf, [slot(at, DATA, s.a.data)], [claim(DATA, s.a.data)]), "more"
    )


@case("frames-exhausted", "all page frames, pinned and dirty, and one more", STARVE, NoFrames)
def _frames(s: Session) -> None:
    xn, m = s.xn, s.m
    for size in (8, 1):
        with suppress(NoFrames):
            while True:
                start, at = s.find(size), s.empty(m.root)
                run = [claim(DATA, start, size)]
                xn.alloc(m.who, m.root, [slot(at, DATA, start, size)], run)
                for block in range(start, start + size):
                    xn.pin(m.who, block)
    s.starved = True
    start = s.find(2)
    at = s.empty(m.root)
    free = xn.free_blocks()
    s.refused(
        lambda: xn.alloc(m.who, m.root, [slot(at, DATA, start, 2)], [claim(DATA, start, 2)]), "data"
    )
    s.refused(lambda: xn.alloc_held(m.who, m.root, claim(NODE, start), init=()), "a held node")
    s.refused(
        lambda: xn.relocate(m.who, m.root, [slot(0, NODE, start)], m.node, start), "a relocation"
    )
    s.holds(xn.free_blocks() == free, "a refused call took blocks")


@case(
    "roots-exhausted",
    "roots until the catalogue is full, by whoever may",
    STARVE,
    NoSpace,
    NoFrames,
)
def _roots(s: Session) -> None:
    xn = s.xn
    names = []
    with suppress(NoSpace, NoFrames):
        for number in range(40):
            xn.install_root(s.admin, f"r{number}", NUMBER[NODE])
            names.append(f"r{number}")
    s.refused(lambda: xn.install_root(s.admin, "more", NUMBER[NODE]), "one more")
    for name in names:
        xn.remove_root(s.admin, name)
    while not xn.collect(s.admin, 1000).done:
        pass


@case("capabilities-exhausted", "capabilities narrowed until the table is full", STARVE, NoSpace)
def _capabilities(s: Session) -> None:
    xn, m = s.xn, s.m
    made = []
    with suppress(NoSpace):
        while True:
            made.append(xn.narrow(m.who, "mallory", READ))
    s.refused(lambda: xn.narrow(m.who, "mallory", READ), "one more")
    s.refused(lambda: xn.grant(m.who, "x"), "a grant")
    s.refused(lambda: xn.mount_root(m.who, "mallory"), "a mount")
    s.holds(xn.read(Caller(made[0]), m.data, 0, 1), "a capability that was made is lost")
    for cap in made:
        xn.revoke(m.who, cap)


@case("orders-exhausted", "declared orders without end", STARVE, Refused)
def _orders(s: Session) -> None:
    xn, m = s.xn, s.m
    run = s.add(DATA, count=8)
    pairs = [(run + i, run + j) for i in range(8) for j in range(i + 1, 8)]
    with suppress(Refused):
        for before, after in pairs:
            xn.depend(m.who, before, after)
    s.refused(lambda: xn.depend(m.who, run, run + 7), "one more")
    xn.sync(m.who)
    s.honest(lambda: xn.depend(m.who, run, run + 1), "an order after a sync")


@case("owners-exhausted", "more owners for one block than its count can say", STARVE, NoSpace)
def _owners(s: Session) -> None:
    xn, m = s.xn, s.m
    leaf = [claim(NODE, m.leaf)]
    with suppress(NoSpace):
        for at in range(10, 30):
            xn.change(m.who, [(m.node, [slot(at, NODE, m.leaf)])], share=leaf)
    at = s.empty(m.node)
    refs = xn.refs(m.leaf)
    s.refused(
        lambda: xn.change(m.who, [(m.node, [slot(at, NODE, m.leaf)])], share=leaf), "one more"
    )
    both = [slot(at, NODE, m.leaf), slot(at + 1, NODE, m.leaf)]
    s.refused(lambda: xn.change(m.who, [(m.node, both)], share=leaf * 2), "two more")
    s.holds(xn.refs(m.leaf) == refs, "a refused call counted")


@case(
    "log-exhausted",
    "one change of more blocks than the log holds, or of very many births",
    STARVE,
    Refused,
)
def _log(s: Session) -> None:
    xn, m = s.xn, s.m
    s.refused(lambda: xn.change(m.who, [(m.root, [(48, b"x")])] * 5000), "5000 edits")
    start, at = s.find(), s.empty(m.root)
    many = [slot(at, NODE, start, 2**31)]
    s.refused(lambda: xn.alloc(m.who, m.root, many, [claim(NODE, start, 2**31)]), "2**31 births")
    diff = [(48, b"x")] * 5000
    s.honest(lambda: xn.update(m.who, m.node, [*diff, (48, b"\0")]), "a long diff of few bytes")


@case(
    "log-filled",
    "as many dirty nodes as the log holds, then more: others' changes still find room",
    STARVE,
)
def _filled(s: Session) -> None:
    xn, m = s.xn, s.m
    nodes = [s.add(NODE) for _ in range(6)]
    for turn in range(3):
        for block in (*nodes, m.root, m.node, m.leaf):
            xn.update(m.who, block, [(48, bytes([turn]))])
        xn.sync(m.who, nodes[:turn])
    s.holds(xn.dirty_count()[1] <= xn.stats()["log_capacity"], "more is dirty than the log holds")
