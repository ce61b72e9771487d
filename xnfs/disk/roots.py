"""The root catalogue: names of file systems, and the first block of each.

Its blocks are metadata like any other (type `xn.roots`), cached for good, changed through
`change.py` and written through the log. Here is only where a name lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xnfs.disk.device import BlockDevice
from xnfs.disk.entries import (
    RootSlot,
    decode_slots_untrusted,
    encode_slot,
    slot_offset,
)
from xnfs.disk.layout import ROOTS_TYPE, SLOT_SIZE, Geometry, Seed, check_stamp_untrusted
from xnfs.disk.records import Diff, RootEntry
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError, NoSpace, Refused

KERNEL = "\0kernel"  # the root of the kernel's own pages: no capability can name it


class Roots:
    """The root catalogue of one image. Raises CorruptionError when its blocks do not check."""

    def __init__(
        self,
        device: BlockDevice,
        seed: Seed,
        geometry: Geometry,
        types: TypeTable,
        registry: Registry,
        tables: Tables,
    ) -> None:
        self._data = (geometry.data_start, geometry.data_end)
        kind = types.get(ROOTS_TYPE)
        start, count = geometry.roots_start, geometry.roots_blocks
        self._pages: list[MetaPage] = []
        self._registry = registry
        registry.add_run(start, count, kind, 0, KERNEL)
        for block in range(start, start + count):
            page = registry.metadata[block]  # the type has a stamp
            device.read(page.block, [page.view])
            seq = check_stamp_untrusted(seed, page.block, page.view, 0, ROOTS_TYPE)
            tables.versions.check(page.block, seq)
            registry.pins[page.block] = 1
            self._pages.append(page)
        list(self._slots_untrusted())

    def _slots_untrusted(self) -> Iterator[tuple[MetaPage, int, RootSlot | None]]:
        lo, hi = self._data
        for page in self._pages:
            for index, slot in enumerate(decode_slots_untrusted(page.block, page.view)):
                if slot is not None and not lo <= slot.block < hi:
                    raise CorruptionError(page.block, f"root {slot.name}", slot.block, "data")
                yield page, index, slot

    def entries(self) -> tuple[RootEntry, ...]:
        """All roots."""
        return tuple(
            RootEntry(slot.name, slot.block, slot.type, False)
            for _page, _index, slot in self._slots_untrusted()
            if slot is not None
        )

    def find(self, name: str) -> tuple[MetaPage, int, int, int]:
        """(catalogue page, partition, first block, type number). Raises Refused."""
        for page, index, slot in self._slots_untrusted():
            if slot is not None and slot.name == name:
                return page, index, slot.block, slot.type
        raise Refused(f"no root named {name!r}")

    def free_slot(self, name: str, kind: int, now: int) -> tuple[MetaPage, Callable[[int], Diff]]:
        """Where a new root can go: the page, and the diff for its first block. Raises Refused,
        NoSpace.
        """
        try:
            name.encode()
        except UnicodeEncodeError:
            raise Refused(f"root name {name!r} is not Unicode") from None
        free = None
        for page, index, slot in self._slots_untrusted():
            if slot is None:
                free = free or (page, index)
            elif slot.name == name:
                raise Refused(f"a root named {name!r} exists")
        if free is None:
            raise NoSpace("the root catalogue is full")
        page, index = free

        def diff(block: int) -> Diff:
            return [(slot_offset(index), encode_slot(RootSlot(name, block, kind, 0, now)))]

        diff(1)  # refuses a name that can't be stored, before anything happens
        return page, diff

    def clear_slot(self, name: str) -> tuple[MetaPage, Diff]:
        """The page and the diff that forget a root. Raises Refused."""
        page, index, _block, _kind = self.find(name)
        return page, [(slot_offset(index), bytes(SLOT_SIZE))]
