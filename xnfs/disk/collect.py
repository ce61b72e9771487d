"""Background collection of leaks: mark what the roots reach, free what nobody does, while in use.

After a cut the tables may be too high (DESIGN section 4): blocks whose pointer never became
durable, files that were unlinked while open, counts that were raised and not lowered again. The
collector walks from the roots in small steps; the system goes on meanwhile. Every pointer that
appears during the walk is reported to it (`saw`), so what it has passed already can't be missed.
Pointers that disappear only make it keep a block until the next time.

Guarantees: a block is freed only if no pointer in memory and no durable pointer names it. Anything
unreadable stops the collection with nothing freed: corruption is not guessed away.

Source: Kaashoek et al. 1997, section 4.3.1 (reachability); Dijkstra et al. 1978 (on-the-fly
collection).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bitarray import bitarray

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import Seed, check_stamp_untrusted
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import BLOCK, CollectStatus, Extent
from xnfs.disk.registry import Registry
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError


class Collector:
    """One collection, from `start` to the sweep."""

    def __init__(
        self,
        device: BlockDevice,
        seed: Seed,
        types: TypeTable,
        registry: Registry,
        ledger: Ledger,
        tables: Tables,
        roots: Iterable[Extent],
        data: tuple[int, int],
        commit: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._device = device
        self._seed = seed
        self._types = types
        self._registry = registry
        self._ledger = ledger
        self._tables = tables
        self._data = data
        self._used = tables.snapshot()
        self._marks = bitarray(len(self._used), endian="little")
        self._marks.setall(0)
        self._todo: dict[int, int] = {}  # block -> type number
        #: pointers found to blocks with more than one owner, and to held ones
        self._seen: dict[int, int] = dict.fromkeys(ledger.held, 0)
        self._touched: set[int] = set()
        self._visited = 0
        #: swept, or given up: nothing is freed any more
        self.over = False
        roots = list(roots)
        self._mark(roots)
        self._count(roots)  # the catalogue's pointer is one of the owners
        self._mark((self._type_of(b), b, 1) for b in ledger.held)

    def saw(self, extents: Iterable[Extent]) -> None:
        """A pointer appeared somewhere."""
        extents = list(extents)
        for t, start, count in extents:
            if count == 1:
                self._touched.add(start)
            else:
                self._touched.update(b for b, _n in self._tables.shared(start, count))
            # Freed and allocated again since it was marked, it may be of another type now.
            for block in self._todo.keys() & range(start, start + count):
                self._todo[block] = t
        self._mark(extents)

    def step(self, budget: int) -> CollectStatus:
        """Visit up to `budget` metadata blocks; sweep when none is left. Raises CorruptionError."""
        for _ in range(budget):
            if not self._todo:
                # What only waits for a commit is no leak, and what is durable no pending change.
                self._commit()
            # Others had their turn during the commit: pointers may have appeared, or all is over.
            if self.over:
                return CollectStatus(True, self._visited, 0)
            if not self._todo:
                self.over = True
                return CollectStatus(True, self._visited, self._sweep())
            self._visit(*self._todo.popitem())
        return CollectStatus(False, self._visited, 0)

    def _type_of(self, block: int) -> int:
        page = self._registry.get(block)
        if page is None:
            raise CorruptionError(block, "held block", "not cached", "cached")
        return page.type.number

    def _mark(self, extents: Iterable[Extent]) -> None:
        lo, hi = self._data
        for t, start, count in extents:
            if start < lo or start + count > hi:
                raise CorruptionError(start, "pointer", start, f"a block in [{lo}, {hi})")
            meta = self._types.get(t).stamp is not None
            if not meta:
                self._marks[start : start + count] = 1
                continue
            for block in range(start, start + count):
                if not self._marks[block]:
                    self._marks[block] = 1
                    self._todo[block] = t

    def _visit(self, block: int, t: int) -> None:
        kind = self._types.get(t)
        if kind.stamp is None:
            return
        if block in self._registry.pages:
            view = self._registry.view(block)
        elif not self._tables.in_use(block, 1):
            return  # freed since it was marked
        else:
            view = memoryview(bytearray(BLOCK))
            self._device.read(block, [view])
            seq = check_stamp_untrusted(self._seed, block, view, kind.stamp, t)
            self._tables.versions.check(block, seq)
        self._visited += 1
        for part in range(kind.nparts):
            owned = kind.owned(view, part)
            if owned:
                self._mark(owned)
                self._count(owned)

    def _count(self, owned: Iterable[Extent]) -> None:
        held = self._ledger.held
        for _t, start, count in owned:
            run = range(start, start + count)
            if self._tables.any_shared(start, count) or not held.isdisjoint(run):
                for block in run:
                    if block in held or self._tables.total(block) > 1:
                        self._seen[block] = self._seen.get(block, 0) + 1

    def _sweep(self) -> int:
        leaked = self._used & ~self._marks
        lo, hi = self._data
        leaked[:lo] = 0
        leaked[hi:] = 0
        for start, count in self._ledger.waiting():
            leaked[start : start + count] = 0
        leaked &= self._tables.snapshot()
        freed = 0
        for block in leaked.search(bitarray("1", endian="little")):
            if block not in self._touched and block not in self._ledger.gone:
                while self._tables.total(block):
                    self._tables.lower_one(block)
                # Owners that reach each other but no root may have it cached: now no more.
                self._ledger.forget(block)
                self._registry.drop([block])
                freed += 1
        self._lower()
        return freed

    def _lower(self) -> None:
        """Totals come down to the pointers that were found; a held block without any is left to the
        temporary root, unless a page that was kept back may still name it.
        """
        marks, lo = self._marks, self._data[0]
        whole = all(marks[b] or b < lo for b in self._registry.metadata)
        for block, seen in self._seen.items():
            if block not in self._touched and block not in self._ledger.gone:
                while self._tables.total(block) > max(seen, 1):
                    self._tables.lower_one(block)
                if not seen and whole and block in self._ledger.held:
                    self._ledger.orphans.add(block)
