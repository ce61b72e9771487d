"""The hardware TLB: 64 translations, each with the tag of its address space.

Replacement is random, as on the MIPS R3000, from a seeded generator. Keys are (environment, page)
in one integer. The hardware knows 64 tags at once; a 65th environment empties the TLB and tags
start anew, which is what a kernel does when it runs out of tags.
"""

from __future__ import annotations

from typing import Final

ENTRIES: Final = 64
TAGS: Final = 64
#: Bits of a virtual page number: addresses have 48 bits.
PAGE_BITS: Final = 36
PAGES: Final = 1 << PAGE_BITS

#: An entry is (frame << 2 | bits).
WRITABLE, DIRTY = 1, 2


class Tlb:
    """The TLB of one processor. `entries` is read by loads and stores directly."""

    __slots__ = ("_free", "_index", "_keys", "_random", "_tags", "entries", "flushes")

    def __init__(self, seed: int) -> None:
        self.entries: dict[int, int] = {}  # key -> entry
        self._random = seed
        self.flushes = -1
        self.flush()

    def flush(self) -> None:
        """Forget everything, tags included."""
        self.entries.clear()
        self._index: dict[int, int] = {}  # key -> where it is
        self._keys = [-1] * ENTRIES
        self._free = list(range(ENTRIES))
        self._tags: set[int] = set()
        self.flushes += 1

    def enter(self, environment: int) -> None:
        """A context switch: the environment needs a tag."""
        if environment not in self._tags:
            if len(self._tags) == TAGS:
                self.flush()
            self._tags.add(environment)

    def put(self, key: int, entry: int) -> None:
        """Load an entry: over the one of the same key, into a free place, or over a random one."""
        if key not in self.entries:
            if self._free:
                index = self._free.pop()
            else:
                self._random = (self._random * 1103515245 + 12345) & 0x7FFFFFFF
                index = self._random >> 16 & (ENTRIES - 1)
                victim = self._keys[index]
                del self.entries[victim], self._index[victim]
            self._keys[index] = key
            self._index[key] = index
        self.entries[key] = entry

    def drop(self, key: int) -> None:
        """Forget a translation, if it is there."""
        if self.entries.pop(key, None) is not None:
            self._free.append(self._index.pop(key))
