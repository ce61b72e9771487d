"""Objects that go from one root to another with the pointer that names them.

A page says to which root its block belongs, and with that who may name it. Roots share no block; so
what crosses goes whole, with everything that it owns, and nobody in the old root may be left who
owns a part of it. Whether that is so can be seen only where all metadata of the object is cached,
which also bounds the walk: what is not cached is refused, and the caller reads it in and comes
again.

Not here: who may ask for it (`change_calls.py`), the pointers themselves (`flow.py`).

Guarantees: no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xnfs.disk.flow import Edit, Flow, bound
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import Extent
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import NotCached, Refused


class Crossing:
    """Which pages of an image change their root with a change."""

    def __init__(
        self,
        types: TypeTable,
        registry: Registry,
        ledger: Ledger,
        tables: Tables,
        data: tuple[int, int],
    ) -> None:
        self._types = types
        self._registry = registry
        self._ledger = ledger
        self._tables = tables
        self._data = data

    def check(self, flow: Flow, plan: Sequence[Edit]) -> dict[int, str]:
        """The cached blocks that change their root, and which they get.

        Raises Refused (another owner, held, locked), NotCached, CorruptionError.
        """
        edited = {edit.block: edit for edit in plan}
        found: dict[int, str] = {}
        todo = [
            (dst.page.root, extent)
            for src, dst, extent in flow.moved
            if src.page is not None and dst.page is not None and src.page.root != dst.page.root
        ]
        while todo:
            root, (t, start, count) = todo.pop()
            kind = self._types.get(t)
            if self._tables.any_shared(start, count):
                raise Refused(f"blocks [{start}, {start + count}) have another owner")
            cached = self._cached(start, count)
            if kind.stamp is not None:
                for block in cached:
                    if block in found:
                        raise Refused(f"block {block} would be owned twice")
                todo += [(root, each) for each in self._owned(start, count, edited)]
            for block in cached:
                if block in self._registry.locks:
                    raise Refused(f"block {block} is locked")
                found[block] = root
        return found

    def _cached(self, start: int, count: int) -> list[int]:
        pages, run = self._registry.pages, range(start, start + count)
        if count > len(pages):
            return [block for block in pages if block in run]
        return [block for block in run if block in pages]

    def _owned(self, start: int, count: int, edited: dict[int, Edit]) -> Iterable[Extent]:
        """What metadata blocks own after the change."""
        for block in range(start, start + count):
            page = self._registry.get(block)
            if not isinstance(page, MetaPage):
                raise NotCached(f"block {block} is not cached, so nobody knows what it owns")
            if block in self._ledger.held or block in self._ledger.gone:
                raise Refused(f"block {block} is held, or was dropped by another a moment ago")
            raw = edited[block].new if block in edited else page.view
            for part in range(page.type.nparts):
                owned = page.type.owned(raw, part)
                bound(owned, block, self._data, old=block not in edited)
                yield from owned
