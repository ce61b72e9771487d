"""The software TLB, and the hardware TLBs below it (Engler et al. 1995, section 5.2).

4096 translations, direct-mapped, for all environments. It holds everything that any hardware TLB
holds, so a translation is gone everywhere once it is forgotten here, and for each frame the keys
that lead to it are known: breaking a binding never searches.

A key is (environment << 36 | page), an entry (frame << 2 | DIRTY | WRITABLE).

Relies on: whoever puts a translation in has checked that the environment may have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xnfs.cpu.processor import Processor
from xnfs.memory.tlb import DIRTY, PAGE_BITS, PAGES

ENTRIES: Final = 4096


class Translations:
    """All translations that the kernel remembers."""

    def __init__(self, processors: Sequence[Processor], frames: int) -> None:
        self._processors = processors
        self._keys = [-1] * ENTRIES
        self._entries = [0] * ENTRIES
        self._to: list[set[int] | None] = [None] * frames  # frame -> keys that lead to it

    def find(self, key: int) -> int | None:
        """The entry of a key."""
        at = _index(key)
        return self._entries[at] if self._keys[at] == key else None

    def put(self, cpu: Processor, key: int, entry: int) -> None:
        """Remember a translation, and load it into the processor's TLB. Others forget what they
        had under the key, or in the same place.
        """
        at = _index(key)
        there = self._keys[at]
        if there == key and self._entries[at] >> 2 == entry >> 2:
            self._entries[at] = entry
            for other in self._processors:
                if other is not cpu:
                    other.tlb.drop(key)
            cpu.tlb.put(key, entry)
            return
        if there != -1:
            self._clear(at)
        self._keys[at] = key
        self._entries[at] = entry
        keys = self._to[entry >> 2]
        if keys is None:
            keys = self._to[entry >> 2] = set()
        keys.add(key)
        cpu.tlb.put(key, entry)

    def change(self, key: int, entry: int) -> None:
        """The same translation with other bits."""
        self._entries[_index(key)] = entry

    def forget(self, key: int) -> None:
        """Drop a translation, if it is there."""
        at = _index(key)
        if self._keys[at] == key:
            self._clear(at)

    def forget_frame(self, frame: int, environment: int) -> None:
        """Drop all translations of one environment to a frame."""
        for key in list(self._to[frame] or ()):
            if key >> PAGE_BITS == environment:
                self._clear(_index(key))

    def clean(self, frame: int) -> None:
        """The next access of anybody to the frame is noticed again: see `Access`."""
        for key in self._to[frame] or ():
            self._entries[_index(key)] &= ~DIRTY
            for cpu in self._processors:
                cpu.tlb.drop(key)

    def _clear(self, at: int) -> None:
        key, frame = self._keys[at], self._entries[at] >> 2
        self._keys[at] = -1
        keys = self._to[frame]
        if keys is not None:
            keys.discard(key)
            if not keys:
                self._to[frame] = None
        for cpu in self._processors:
            cpu.tlb.drop(key)


def _index(key: int) -> int:
    return (key & (PAGES - 1) ^ (key >> PAGE_BITS) * 0x9E5) & (ENTRIES - 1)
