"""Whose choice is the victim? An application that knows its own accesses pages less."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from libos.experiments.result import Result
from libos.experiments.rig import Rig
from libos.pager import Pager
from libos.policies import Chosen, Clock, Fifo, Lru, Mru, Policy
from xnfs import Boot, Program, calls

FRAMES: Final = 32
POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    "FIFO": Fifo,
    "clock": Clock,
    "LRU": Lru,
    "MRU": Mru,
}


class Outcome(NamedTuple):
    """What a pager did in a run: pages read from the swap file, and written."""

    ins: int
    outs: int


def paged(
    policy: Policy,
    trace: Iterable[tuple[int, bool]],
    garbage: Callable[[int], bool] = lambda page: False,
) -> Outcome:
    """Run (page, store) accesses over a pager with FRAMES frames on a swap file.

    `garbage(page)`: whether the page is worth nothing after this access.
    """
    rig = Rig(frames=256, cache=64)
    swap = rig.swap()

    def program(me: Boot) -> Program:
        pager = Pager(me, policy, swap, FRAMES)
        yield from pager.start()
        for page, store in trace:
            if store:
                yield (calls.STORE, page << 12, page)
            else:
                yield (calls.LOAD, page << 12)
            if garbage(page):
                pager.discard(page)

    rig.machine.boot(program)
    rig.machine.run()
    ending = rig.machine.ended[0]
    if ending.why:
        raise RuntimeError(ending.why)
    return Outcome(swap.read, swap.written)


def scan() -> Result:
    """A file is read from end to end, ten times, with less memory than it has pages."""
    rows = []
    for pages in (24, 32, 36, 40, 48, 64):
        trace = [(page, True) for page in range(pages)]
        trace += [(page, False) for _ in range(9) for page in range(pages)]
        ins = [paged(make(), trace).ins for make in POLICIES.values()]
        rows.append((pages, *ins, 9 * max(0, pages - FRAMES)))
    return Result(
        f"How many page-ins does a cyclic scan need? Ten rounds, {FRAMES} frames.",
        ("pages", *POLICIES, "lower bound"),
        tuple(rows),
        (*POLICIES, "lower bound"),
    )


def victim() -> Result:
    """A tree is searched: the upper levels each time, a leaf once. The application knows which are
    which; a kernel sees only accesses.
    """
    upper, leaves = 24, 200
    rng = random.Random(11)
    trace = [(page, True) for page in range(upper + leaves)]
    for _ in range(200):
        node = 1
        while node < upper:
            trace.append((node, False))
            node = 2 * node + rng.randrange(2)
        first = upper + rng.randrange(leaves - 4)
        trace += [(first + i, False) for i in range(4)]

    def leaf_first(pages: Sequence[int]) -> int:
        return next((page for page in pages if page >= upper), pages[0])

    policies = {name: make() for name, make in POLICIES.items()}
    policies["application"] = Chosen(leaf_first)
    rows = []
    for name, policy in policies.items():
        done = paged(policy, trace)
        rows.append((name, done.ins, done.outs))
    return Result(
        "Who should choose the victim, when the application knows what it will need?",
        ("policy", "page-ins", "page-outs"),
        tuple(rows),
        ("page-ins",),
    )


def garbage() -> Result:
    """A heap is filled, and thrown away after each round: its pages need not be written out."""
    rounds, pages = 5, 64
    trace = [(round * pages + page, True) for round in range(rounds) for page in range(pages)]
    last = pages - 1
    rows = []
    for name, known in (("kernel's view", False), ("application says", True)):
        done = paged(
            Fifo(), trace, (lambda page: page % pages <= last) if known else lambda _: False
        )
        rows.append((name, done.outs))
    return Result(
        f"What does it save to say what is garbage? {rounds} heaps of {pages} pages.",
        ("", "pages written"),
        tuple(rows),
        ("pages written",),
    )
