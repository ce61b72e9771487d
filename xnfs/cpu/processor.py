"""A processor: its clock, its TLB, and its vector of time slices.

The vector is what Aegis has (Engler et al. 1995, section 5.1.1): positions are given to
environments and visited in order; a position nobody has, or whose owner sleeps, takes no time. So a
position is served at the latest after one slice for each other position that is taken.
"""

from __future__ import annotations

from xnfs.cpu.environment import Environment
from xnfs.memory.tlb import Tlb


class Processor:
    """State of one processor."""

    __slots__ = (
        "early",
        "env",
        "id",
        "idle",
        "idle_cycles",
        "last",
        "looks",
        "nominal",
        "now",
        "overtime",
        "position",
        "slice_end",
        "started",
        "stop",
        "switches",
        "tlb",
        "until",
        "vector",
    )

    def __init__(self, id: int, slots: int, seed: int) -> None:
        self.id = id
        self.now = 0  # cycles; each processor has its own, and the lowest goes first
        self.until = 0  # leave the inner loop at or after this time; 0 = now
        self.stop = 0  # computing is cut here: the end of the slice, or an event
        self.slice_end = 0
        self.nominal = 0  # from here on, what is used is overtime
        self.overtime = False  # the slice is over, and the environment has been told
        self.early: dict[int, Environment] = {}  # who wants the next free slot
        self.looks = False  # idle, with an event under way that makes it look at predicates
        self.started = 0  # when the current environment got the processor
        self.idle = True
        self.idle_cycles = 0
        self.switches = 0
        self.env: Environment | None = None
        self.last = 0  # who had it last
        self.vector: list[Environment | None] = [None] * slots
        self.position = slots - 1
        self.tlb = Tlb(seed + id)

    def next_position(self, ready: int) -> int:
        """The next position after the current one that has a bit set in `ready`, or -1. The search
        goes once round; the current position comes last.
        """
        if not ready:
            return -1
        later = ready >> (self.position + 1)
        if later:
            return self.position + (later & -later).bit_length()
        return (ready & -ready).bit_length() - 1
