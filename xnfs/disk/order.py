"""Order that a libFS declares itself: `depend(before, after)`.

No cut shows `after` without `before`: `after` is written in place, or its image in the log counts,
only with `before` durable. Cycles are refused when they are declared. Order that follows from
pointers is not here but in the ledger's ties.

Source: Kaashoek et al. 1997, section 4.3.2 (explicit ordering by libFSes).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xnfs.disk.registry import Registry
from xnfs.errors import CycleError, Refused

#: Edges at one time, all callers together: each may cost a commit of its own.
MAX_EDGES: Final = 1024


class Order:
    """The declared edges that still matter: an edge goes once `before` is durable."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._after: dict[int, set[int]] = {}
        self._unflushed: set[int] = set()
        self._flushing: set[int] = set()

    def declare(self, before: int, after: int) -> None:
        """Raises CycleError if `before` already waits for `after`, directly or not."""
        seen: set[int] = set()
        todo = [before]
        while todo:
            block = todo.pop()
            if block == after:
                raise CycleError(f"block {before} already waits for block {after}")
            if block not in seen:
                seen.add(block)
                todo.extend(self._after.get(block, ()))
        if sum(map(len, self._after.values())) >= MAX_EDGES:
            raise Refused(f"{MAX_EDGES} declared orders are open: sync first")
        self._after.setdefault(after, set()).add(before)

    def before(self, blocks: Iterable[int]) -> set[int]:
        """What must become durable before any of these may be written."""
        if not self._after:
            return set()
        out: set[int] = set()
        for block in blocks:
            for first in self._after.get(block, ()):
                if self._open(first):
                    out.add(first)
        return out

    def written(self, blocks: Iterable[int]) -> None:
        """These are on their way; not durable until a flush."""
        self._unflushed.update(blocks)

    def _open(self, block: int) -> bool:
        return block in self._unflushed or block in self._flushing or self._registry.is_dirty(block)

    def flushing(self) -> None:
        """A flush begins: it covers what was written up to now."""
        self._flushing |= self._unflushed
        self._unflushed = set()

    def flushed(self) -> None:
        """What was written before the flush began is durable."""
        self._flushing = set()
        self._after = {
            after: left
            for after, befores in self._after.items()
            if (left := {b for b in befores if self._open(b)})
        }

    def void(self, blocks: Iterable[int], befores: set[int]) -> None:
        """These blocks wait for those no more."""
        for block in self._after.keys() & set(blocks):
            self._after[block] -= befores
