"""Changes that are no sum of pointers: an object at a new address, or held in memory only.

A relocation keeps one object while its block changes; a held block is born without an owner on the
disk and is buried by whoever let it go; the root catalogue forgets what it named. All other changes
are in `change.py`, whose two helpers this borrows. Rights are checked before, in `change_calls.py`.

Relies on `flow.py` for what a diff does to pointers and on `acl.py`. Guarantees, as `change.py`:
every check comes before the first effect.

Source: Kaashoek et al. 1997, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from xnfs.disk.acl import Acls
from xnfs.disk.blocktype import ZERO
from xnfs.disk.change import load_counts, newborn
from xnfs.disk.extents import merge
from xnfs.disk.flow import Edit, bound, compare, edit_of
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import OP_BIRTH, Caller, Diff, Extent
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import NotEmpty, NotFree, Refused


class Reshaper:
    """Relocates, holds, buries and abandons metadata blocks."""

    def __init__(
        self,
        types: TypeTable,
        registry: Registry,
        ledger: Ledger,
        tables: Tables,
        data: tuple[int, int],
        acls: Acls,
        observer: Callable[[Iterable[Extent]], None],
    ) -> None:
        self._types = types
        self._registry = registry
        self._ledger = ledger
        self._tables = tables
        self._data = data
        self._acls = acls
        self._observer = observer  # told of every pointer that appears: the collector's barrier

    def relocate(
        self,
        who: Caller,
        parent: MetaPage,
        diff: Diff,
        old: MetaPage,
        new: int,
        witness: Mapping[int, MetaPage],
    ) -> None:
        """One pointer of `parent` goes from `old` to the free block `new`; the object keeps what it
        owns.

        What `old` owned durably, `new` is taken to own durably, so that what it drops waits for its
        commit, which is also that of `parent`. `old` itself is dropped by `parent`, and waits
        likewise.
        """
        edit = self._check_relocation(parent, diff, old, new)
        self._acls.ask_all(who, [edit], (), (), witness)
        load_counts(self._tables, (*edit.added, *edit.removed))
        children = _all_owned(old, self._data)
        self._take_over(parent, old, new)  # the last step that can fail
        for offset, data in diff:
            parent.view[offset : offset + len(data)] = data
        self._registry.mark_dirty(parent)
        self._ledger.remove_one(parent, old.block)
        self._ledger.allocate(parent, new, 1, meta=True)
        for other in self._ledger.ties.get(old.block, set()) - {new, old.block}:
            self._ledger.tie(new, other)
        self._ledger.forget(old.block)
        self._registry.drop([old.block])
        # The collector may have passed the number `new` in its last life, and not yet `old`.
        self._observer([*edit.added, *children])

    def _check_relocation(self, parent: MetaPage, diff: Diff, old: MetaPage, new: int) -> Edit:
        if parent is old:
            raise Refused(f"block {old.block} owns itself")
        edit = edit_of(parent, diff, self._data)
        t = old.type.number
        if edit.added != [(t, new, 1)] or edit.removed != [(t, old.block, 1)]:
            raise Refused("a relocation changes exactly one pointer, from old to new")
        if not self._tables.is_free_run(new, 1):
            raise NotFree(f"block {new} is not free")
        if self._ledger.owners(old.block) != 1 or old.block in self._ledger.held:
            raise Refused(f"block {old.block} has other owners")
        return edit

    def _take_over(self, parent: MetaPage, old: MetaPage, new: int) -> None:
        """A frame for the new block, which gets everything that the old one was. NoFrames has no
        effect.
        """
        self._registry.add_blank(new, 1, old.type, parent.block, parent.root)
        page = newborn(self._registry, new)
        page.view[:] = old.view
        self._registry.take_over(old.block, new)
        page.take_pending(old)

    def alloc_held(self, who: Caller, near: MetaPage, extent: Extent, init: Diff) -> None:
        """A newborn metadata block whose only owner is the temporary root."""
        t, block, count = extent
        kind = self._types.get(t)
        if count != 1 or kind.stamp is None:
            raise Refused("a held block is one block of metadata")
        if not self._tables.is_free_run(block, 1):
            raise NotFree(f"block {block} is not free")
        edit = Edit(block, kind, None, init, ZERO, bytearray(ZERO))
        compare(edit, self._data)
        if edit.added:
            raise Refused("a held block is born without pointers")
        self._acls.ask(who, kind, OP_BIRTH, 0, edit, (near.block, bytes(near.view)))
        load_counts(self._tables, [extent])
        self._registry.add_blank(block, 1, kind, 0, near.root)
        newborn(self._registry, block).view[:] = edit.new
        self._ledger.hold_new(block)
        self._observer([extent])

    def bury_held(self, page: MetaPage, free: Sequence[Extent]) -> None:
        """The temporary root gives up a block that nobody owns, and with it the data that it owns:
        `free` says exactly which. Raises NotEmpty if there is more, or metadata.
        """
        owned = _all_owned(page, self._data)
        if owned != merge(free):
            raise NotEmpty(f"block {page.block} owns {owned}, to be freed with it: {merge(free)}")
        if any(self._types.get(t).stamp is not None for t, _start, _count in owned):
            raise NotEmpty(f"block {page.block} still owns metadata")
        load_counts(self._tables, owned)
        for _t, start, count in owned:
            self._ledger.discard(page, start, count)
        self._ledger.bury(page)

    def abandon(self, page: MetaPage, diff: Diff) -> None:
        """Forget pointers without freeing what they name: it becomes a leak. For the root catalogue
        only.
        """
        for offset, data in diff:
            page.view[offset : offset + len(data)] = data
        self._registry.mark_dirty(page)


def _all_owned(page: MetaPage, data: tuple[int, int]) -> list[Extent]:
    kind, block = page.type, bytes(page.view)
    if kind.owns_nothing(block):
        return []
    owned = [e for part in range(kind.nparts) for e in kind.owned(block, part)]
    bound(owned, page.block, data, old=True)
    return merge(owned)
