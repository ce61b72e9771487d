"""Translation: how far each level reaches, and which page table is for what."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from libos.experiments.result import Result
from libos.space import Space
from libos.tables import Hashed, Hierarchical, Inverted, Linear, PageTable
from xnfs import Boot, Machine, Program, calls

#: Pages of the working set.
SIZES: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
ACCESSES: Final = 5_000


def tlb() -> Result:
    """Random loads from working sets of growing size: who answers."""
    rows = []
    for pages in SIZES:
        machine = Machine(frames=pages + 1, seed=1)
        marks: list[tuple[int, dict[str, int]]] = []

        def program(
            me: Boot,
            pages: int = pages,
            machine: Machine = machine,
            marks: list[tuple[int, dict[str, int]]] = marks,
        ) -> Program:
            yield from Space(me, Hashed()).start()
            for page in range(pages):
                yield (calls.LOAD, page << 12)
            rng = random.Random(7)
            marks.append(((yield (calls.CLOCK,)), machine.counters()))
            for _ in range(ACCESSES):
                yield (calls.LOAD, rng.randrange(pages) << 12)
            marks.append(((yield (calls.CLOCK,)), machine.counters()))

        machine.boot(program)
        machine.run()
        (begun, before), (ended, after) = marks
        missed = after["tlb_misses"] - before["tlb_misses"]
        handled = after["tlb_exceptions"] - before["tlb_exceptions"]
        rows.append(
            (
                pages,
                100 * (ACCESSES - missed) / ACCESSES,
                100 * (missed - handled) / ACCESSES,
                100 * handled / ACCESSES,
                (ended - begun) / ACCESSES,
            )
        )
    return Result(
        "Who translates a load, as the working set grows?",
        ("pages", "TLB %", "software TLB %", "application %", "cycles a load"),
        tuple(rows),
        ("TLB %", "software TLB %", "application %"),
        log=True,
    )


def _dense(rng: random.Random) -> list[int]:
    """An array: all pages in a row."""
    return list(range(500))


def _segments(rng: random.Random) -> list[int]:
    """Text, heap, libraries and stack: a few runs far apart."""
    starts = (0x400, 0x10000, 0x200000, 0x3FFF00)
    return [start + i for start in starts for i in range(125)]


def _sparse(rng: random.Random) -> list[int]:
    """Objects of a persistent store: pages anywhere."""
    return rng.sample(range(Linear.LIMIT), 500)


WORKLOADS: Final[dict[str, Callable[[random.Random], list[int]]]] = {
    "dense": _dense,
    "segments": _segments,
    "sparse": _sparse,
}
STRUCTURES: Final[dict[str, Callable[[], PageTable]]] = {
    "linear": Linear,
    "hierarchical": Hierarchical,
    "inverted": lambda: Inverted(1024),
    "hashed": Hashed,
}


def page_tables() -> Result:
    """Four structures under three address spaces: what a miss costs, and the memory."""
    rows = []
    for workload, make in WORKLOADS.items():
        pages = make(random.Random(3))
        for structure, table in STRUCTURES.items():
            made = table()
            for frame, page in enumerate(pages):
                made.set(page, frame)
            looks = [made.find(page)[1] for page in pages]
            rows.append(
                (
                    f"{workload}/{structure}",
                    sum(looks) / len(looks),
                    max(looks),
                    made.words,
                    made.words / len(pages),
                )
            )
    return Result(
        "Which page table is for which address space? 500 pages, a machine of 1024 frames.",
        ("address space/table", "words looked at", "at most", "words of memory", "words a page"),
        tuple(rows),
        ("words looked at",),
    )
