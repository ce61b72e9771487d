"""Getting bytes in and out of the registry: reading blocks in, reading and writing them, dropping
them.

A block can be named only through its parent: `readin` and `bind` run `owns` on the parent to learn
that it owns the block, and under which type. That is the secure binding: checked when bound, not
when used.

Not here: changes of metadata (`change.py`), when dirty pages are written (`commit.py`), rights
(`syscalls.py`). Everything that comes from the device is checked before it is believed: stamps,
types, versions, and that the free map knows the block.

Source: Kaashoek et al. 1997, section 4.3 (registry); Engler et al. 1995, section 3.1 (secure
bindings).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from xnfs.disk.blocktype import BlockType
from xnfs.disk.device import BlockDevice, Foresight
from xnfs.disk.layout import Seed, check_stamp_untrusted
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import BLOCK
from xnfs.disk.registry import MetaPage, Page, Registry, runs
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError, NotCached, Refused

#: the type under which a block is read, and the parent that names it
Owner: TypeAlias = tuple[BlockType, MetaPage]


class PageIO:
    """The registry's pages and the device."""

    def __init__(
        self,
        device: BlockDevice,
        seed: Seed,
        types: TypeTable,
        registry: Registry,
        ledger: Ledger,
        tables: Tables,
    ) -> None:
        self._device = device
        self._seed = seed
        self._types = types
        self._registry = registry
        self._ledger = ledger
        self._tables = tables

    # -- binding

    def child_type(self, parent: MetaPage, part: int, start: int, count: int) -> BlockType:
        """The type under which `parent`'s partition owns the whole run. Raises Refused,
        CorruptionError.
        """
        if not 0 <= part < parent.type.nparts or count < 1:
            raise Refused(f"block {parent.block} has no partition {part}")
        for t, first, n in parent.type.owned(parent.view, part):
            if first <= start and start + count <= first + n:
                if not self._tables.in_use(start, count):
                    raise CorruptionError(start, "free map", "free", f"owned by {parent.block}")
                return self._types.get(t)
        raise Refused(f"block {parent.block} does not own [{start}, {start + count}) there")

    def read_in(self, parent: MetaPage, part: int, start: int, count: int) -> None:
        """Bind a run of children and fill those that are not cached, with one request a gap."""
        kind = self._bindable(parent, part, start, count)
        get = self._registry.pages.get
        wanted = [b for b in range(start, start + count) if not _filled(get(b))]
        for first, n in runs(wanted) if len(wanted) < count else [(start, count)]:
            self._fill(first, n, dict.fromkeys(range(first, first + n), (kind, parent)))

    def read_all(self, wanted: Iterable[tuple[MetaPage, int, int, int]]) -> None:
        """As `read_in` of several runs, each of its own parent, with one request for neighbours."""
        owners: dict[int, Owner] = {}
        pages = self._registry.pages
        for parent, part, start, count in wanted:
            kind = self._bindable(parent, part, start, count)
            for block in range(start, start + count):
                if _filled(pages.get(block)):
                    continue
                known = owners.setdefault(block, (kind, parent))[0]
                if known is not kind:
                    raise CorruptionError(block, "type", kind.spec.name, known.spec.name)
        done: list[int] = []
        try:
            for first, n in runs(owners):
                self._fill(first, n, owners)
                done += range(first, first + n)
        except BaseException:
            self._registry.drop(done)
            raise

    def bind(self, parent: MetaPage, part: int, start: int, count: int) -> None:
        """Frames for blocks that are about to be overwritten whole; their bytes are not read."""
        kind = self._bindable(parent, part, start, count)
        if kind.stamp is not None:
            raise Refused(f"type {kind.spec.name} is metadata: it can't be overwritten unread")
        pages = self._registry.pages
        for first, n in runs(b for b in range(start, start + count) if b not in pages):
            for page in self._registry.add_run(first, n, kind, parent.block, parent.root):
                page.valid = False

    def _bindable(self, parent: MetaPage, part: int, start: int, count: int) -> BlockType:
        kind = self.child_type(parent, part, start, count)
        if kind.unreadable:
            raise Refused(f"type {kind.spec.name} can't be read")
        for block in range(start, start + count):
            page = self._registry.pages.get(block)
            if page is not None and page.type is not kind:
                raise CorruptionError(block, "type", page.type.spec.name, kind.spec.name)
        return kind

    def _fill(self, start: int, count: int, owners: Mapping[int, Owner]) -> None:
        """Read a run of blocks, each under the type and the parent that `owners` gives it."""
        registry = self._registry
        new = [b for b in range(start, start + count) if b not in registry.pages]
        try:
            for first, n in _alike(new, owners):
                kind, parent = owners[first]
                registry.add_run(first, n, kind, parent.block, parent.root)
            self._device.read(start, registry.views(start, count))
            for block in range(start, start + count):
                kind = owners[block][0]
                if kind.stamp is not None:
                    view = registry.pages[block].view
                    seq = check_stamp_untrusted(self._seed, block, view, kind.stamp, kind.number)
                    self._tables.versions.check(block, seq)
        except BaseException:  # nobody may see what the frames held before
            registry.drop(new)
            raise
        if len(new) < count:  # new ones are valid as they come
            for block in range(start, start + count):
                registry.pages[block].valid = True

    def prefetch(self, start: int, count: int, *, wait: bool) -> None:
        """Ask the device to have these blocks at hand. Binds nothing and shows nobody anything."""
        if not wait:
            if isinstance(self._device, Foresight):
                self._device.will_need(start, count)
            return
        scratch = bytearray(count * BLOCK)
        self._device.read(start, [memoryview(scratch)])

    # -- bytes

    def read(self, run: Sequence[Page], offset: int, size: int) -> bytes:
        """Bytes of pages of consecutive blocks, from `offset` in the first. Raises NotCached."""
        page = run[0]
        if len(run) == 1 and page.valid and page.block not in self._registry.blank:
            return bytes(page.view[offset : offset + size])
        views = self.views(run, offset, size)
        return bytes(views[0]) if len(views) == 1 else b"".join(views)

    def views(self, run: Sequence[Page], offset: int, size: int) -> list[memoryview]:
        """As `read`, where the bytes lie."""
        registry, first, count = self._registry, run[0].block, len(run)
        registry.clear(first, count)
        for page in run:
            if not page.valid:
                raise NotCached(f"block {page.block} was bound and is not filled")
        views = registry.views(first, count)
        if offset:
            views[0] = views[0][offset:]
        if past := count * BLOCK - offset - size:
            views[-1] = views[-1][:-past]
        return views

    def write(self, run: Sequence[Page], offset: int, data: bytes | memoryview) -> None:
        """Write to data pages of consecutive blocks, from `offset` in the first; those that are
        covered whole need not have been read. Raises NotCached, Refused.
        """
        registry, first, count, size = self._registry, run[0].block, len(run), len(data)
        past = count * BLOCK - offset - size
        for page in run:
            if page.meta or page.type.unreadable:
                raise Refused(f"block {page.block} is not plain data")
        if (offset and not run[0].valid) or (past and not run[-1].valid):
            raise NotCached("a block of these is not filled and would be written in part")
        registry.own(run)
        whole = range(first + (offset > 0), first + count - (past > 0))
        if registry.blank:
            registry.blank.difference_update(whole)
            registry.clear(first, count)
        source, at = memoryview(data), -offset
        for view in registry.views(first, count):
            lo, hi = max(at, 0), min(at + len(view), size)
            view[lo - at : hi - at] = source[lo:hi]
            at += len(view)
        for page in run:  # those that are not filled are covered
            page.valid = True
        registry.plain.update(range(first, first + count))

    # -- dropping

    def evict(self, pages: Iterable[Page]) -> int:
        """Drop the pages among these that can be dropped without loss. Returns how many frames
        came free.
        """
        registry, held = self._registry, self._ledger.held
        plain, attached = registry.plain, registry.attached
        gone = [
            page.block
            for page in pages
            if not page.pins
            and page.lock is None
            and page.block not in plain
            and page.block not in attached
            and page.block not in held
            and not (isinstance(page, MetaPage) and (page.pending or page.fresh))
        ]
        return registry.drop(gone)


def _alike(blocks: Iterable[int], owners: Mapping[int, Owner]) -> list[tuple[int, int]]:
    """Ascending blocks as runs (start, count) of one type and one parent."""
    out: list[tuple[int, int]] = []
    last: Owner | None = None
    for block in blocks:
        if out and sum(out[-1]) == block and owners[block] == last:
            out[-1] = out[-1][0], out[-1][1] + 1
        else:
            out.append((block, 1))
            last = owners[block]
    return out


def _filled(page: Page | None) -> bool:
    return page is not None and page.valid
