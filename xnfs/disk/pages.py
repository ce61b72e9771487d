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
from itertools import groupby
from typing import TypeAlias

from xnfs.disk.blocktype import BlockType
from xnfs.disk.device import BlockDevice, Foresight
from xnfs.disk.layout import Seed, check_stamp_untrusted
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import BLOCK
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError, NotCached, Refused
from xnfs.runs import runs

#: the type under which a block is read, and the parent that names it
Owner: TypeAlias = tuple[BlockType, MetaPage]
#: (start, count) of blocks with the same owner, and that
Piece: TypeAlias = tuple[int, int, BlockType, MetaPage]


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
        for first, n in self._registry.unread(start, count):
            self._fill(first, n, [(first, n, kind, parent)])

    def read_all(self, wanted: Iterable[tuple[MetaPage, int, int, int]]) -> None:
        """As `read_in` of several runs, each of its own parent, with one request for neighbours."""
        owners: dict[int, Owner] = {}
        for parent, part, start, count in wanted:
            kind = self._bindable(parent, part, start, count)
            for first, n in self._registry.unread(start, count):
                for block in range(first, first + n):
                    known = owners.setdefault(block, (kind, parent))[0]
                    if known is not kind:
                        raise CorruptionError(block, "type", kind.spec.name, known.spec.name)
        done: list[int] = []
        try:
            for first, n in runs(owners):
                self._fill(first, n, _alike(first, n, owners))
                done += range(first, first + n)
        except BaseException:
            self._registry.drop(done)
            raise

    def bind(self, parent: MetaPage, part: int, start: int, count: int) -> None:
        """Frames for blocks that are about to be overwritten whole; their bytes are not read."""
        kind = self._bindable(parent, part, start, count)
        if kind.stamp is not None:
            raise Refused(f"type {kind.spec.name} is metadata: it can't be overwritten unread")
        for first, n in self._registry.absent(start, count):
            self._registry.add_run(first, n, kind, parent.block, parent.root)
            self._registry.unfilled.update(range(first, first + n))

    def _bindable(self, parent: MetaPage, part: int, start: int, count: int) -> BlockType:
        kind = self.child_type(parent, part, start, count)
        if kind.unreadable:
            raise Refused(f"type {kind.spec.name} can't be read")
        pages = self._registry.pages
        for page in set(map(pages.get, range(start, start + count))):
            if page is not None and page.type is not kind:
                block = next(b for b in range(start, start + count) if pages.get(b) is page)
                raise CorruptionError(block, "type", page.type.spec.name, kind.spec.name)
        return kind

    def _fill(self, start: int, count: int, pieces: Sequence[Piece]) -> None:
        """Read a run of blocks with one request; `pieces`, which together are the run, say under
        which type and parent.
        """
        registry = self._registry
        new: list[int] = []
        try:
            for piece, size, kind, parent in pieces:
                for first, n in registry.absent(piece, size):
                    registry.add_run(first, n, kind, parent.block, parent.root)
                    new += range(first, first + n)
            self._device.read(start, registry.views(start, count))
            for piece, size, kind, _parent in pieces:
                if kind.stamp is not None:
                    for block in range(piece, piece + size):
                        view = registry.view(block)
                        seq = check_stamp_untrusted(
                            self._seed, block, view, kind.stamp, kind.number
                        )
                        self._tables.versions.check(block, seq)
        except BaseException:  # nobody may see what the frames held before
            registry.drop(new)
            raise
        if registry.unfilled:
            registry.unfilled.difference_update(range(start, start + count))

    def prefetch(self, start: int, count: int, *, wait: bool) -> None:
        """Ask the device to have these blocks at hand. Binds nothing and shows nobody anything."""
        if not wait:
            if isinstance(self._device, Foresight):
                self._device.will_need(start, count)
            return
        scratch = bytearray(count * BLOCK)
        self._device.read(start, [memoryview(scratch)])

    # -- bytes

    def read(self, first: int, count: int, offset: int, size: int) -> bytes:
        """Bytes of consecutive cached blocks, from `offset` in the first. Raises NotCached."""
        registry = self._registry
        if count == 1 and first not in registry.blank and first not in registry.unfilled:
            return bytes(registry.view(first)[offset : offset + size])
        views = self.views(first, count, offset, size)
        return bytes(views[0]) if len(views) == 1 else b"".join(views)

    def views(self, first: int, count: int, offset: int, size: int) -> list[memoryview]:
        """As `read`, where the bytes lie."""
        registry = self._registry
        registry.clear(first, count)
        if not registry.unfilled.isdisjoint(range(first, first + count)):
            raise NotCached(f"one of {count} blocks from {first} on was bound and is not filled")
        views = registry.views(first, count)
        if offset:
            views[0] = views[0][offset:]
        if past := count * BLOCK - offset - size:
            views[-1] = views[-1][:-past]
        return views

    def write(self, first: int, count: int, offset: int, data: bytes | memoryview) -> None:
        """Write to consecutive cached blocks of data, from `offset` in the first; those that are
        covered whole need not have been read. Raises NotCached, Refused, NoFrames.
        """
        registry, size, last = self._registry, len(data), first + count - 1
        past = count * BLOCK - offset - size
        for page in registry.of_run(first, count):
            if page.meta or page.type.unreadable:
                raise Refused(f"one of {count} blocks from {first} on is not plain data")
        unfilled, run = registry.unfilled, range(first, first + count)
        if (offset and first in unfilled) or (past and last in unfilled):
            raise NotCached("a block of these is not filled and would be written in part")
        registry.own(first, count)
        registry.put(first, count, offset, data)
        if unfilled:
            unfilled.difference_update(run)  # those of them are covered
        registry.plain.update(run)

    # -- dropping

    def evict(self, blocks: set[int]) -> int:
        """Drop the cached blocks among these that can be dropped without loss. Returns how many
        frames came free.
        """
        registry = self._registry
        idle = blocks - registry.plain - registry.attached - self._ledger.held
        idle = idle.difference(registry.pins).difference(registry.locks)
        for block in registry.metadata.keys() & idle:
            page = registry.metadata[block]
            if page.pending or page.fresh:
                idle.discard(block)
        return registry.drop(idle)


def _alike(start: int, count: int, owners: Mapping[int, Owner]) -> list[Piece]:
    """Consecutive blocks in pieces of one type and one parent."""
    out: list[Piece] = []
    for owner, alike in groupby(map(owners.__getitem__, range(start, start + count))):
        n = len(list(alike))
        out.append((start, n, *owner))
        start += n
    return out
