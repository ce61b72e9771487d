"""The kernel's tables as anybody may read them, and as wakeup predicates see them.

One array of 64-bit words. Programs get a read-only view of it (`Exposed.words`); predicates load
from the same bytes. First come single words (`CLOCK_WORD`, …), then for each slot of the table of
environments its (id << 8 | state), its status and its cycles, then for each frame the id of its
owner, then for each position of each processor. 0 is nobody; frames of the kernel's own (the block
registry's) have no word, only `taken`.

`bits` has a byte for each frame: REFERENCED, MODIFIED. `taken` has one that is 1 where it has an
owner of any kind.

Clock words are refreshed at each switch and event, not at each cycle.
"""

from __future__ import annotations

from array import array
from typing import Final

CLOCK_WORD: Final = 0
FREE_FRAMES_WORD: Final = 1
ENVIRONMENTS_WORD: Final = 2
GLOBALS: Final = 64

NOBODY: Final = 0
KERNEL: Final = 1


class Tables:
    """The kernel's own side: what it writes."""

    __slots__ = ("bits", "shown", "words")

    def __init__(self, environments: int, taken: memoryview, processors: int, slots: int) -> None:
        frames = len(taken)
        self.bits = bytearray(frames)
        words = GLOBALS + 3 * environments + frames + processors * slots
        self.words = array("Q", bytes(8 * words))
        views = memoryview(self.words), memoryview(self.bits), taken
        self.shown = Exposed(environments, slots, *views)


class Exposed:
    """Everybody's side: the words, and where each table begins."""

    __slots__ = (
        "bits",
        "environments",
        "frames",
        "max_environments",
        "positions",
        "slots",
        "taken",
        "words",
    )

    def __init__(
        self,
        environments: int,
        slots: int,
        words: memoryview,
        bits: memoryview,
        taken: memoryview,
    ) -> None:
        self.words = words.toreadonly()
        self.bits = bits.toreadonly()
        self.taken = taken.toreadonly()
        self.max_environments = environments
        self.slots = slots  # positions of one processor
        self.environments = GLOBALS
        self.frames = self.environments + 3 * environments
        self.positions = self.frames + len(bits)

    def state(self, id: int) -> int:
        """State of an environment; 0 if the id was never used, or its slot has another's now."""
        word = self.words[self.environments + 3 * (id % self.max_environments)]
        return word & 0xFF if word >> 8 == id else 0

    def status(self, id: int) -> int | None:
        """What an environment that has ended returned; None if it has not, or is forgotten."""
        at = self.environments + 3 * (id % self.max_environments)
        ended = 3
        return self.words[at + 1] if self.words[at] == id << 8 | ended else None

    def cycles(self, id: int) -> int:
        """Processor time that an environment had when it last gave the processor up."""
        return self.words[self.environments + 3 * (id % self.max_environments) + 2]

    def frame_owner(self, frame: int) -> int:
        """Whose a frame is: an environment's, NOBODY's or the KERNEL's."""
        return self.words[self.frames + frame] or (KERNEL if self.taken[frame] else NOBODY)

    def slot_owner(self, processor: int, position: int) -> int:
        """Whose a position is."""
        return self.words[self.positions + processor * self.slots + position]
