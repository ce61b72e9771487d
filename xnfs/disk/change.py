"""The one check that every change of metadata passes, and its effect on the ledger.

A change edits the bytes of some cached metadata blocks. It is accepted exactly when

- each diff stays in its block and outside the stamp;
- over all edits, pointers added minus pointers removed, computed by running `owns` on the old and
  the new bytes of the touched partitions, equal `alloc + share - free`: nothing more, nothing less,
  under the same types;
- allocated blocks are free, shared ones are owned, and what loses its last owner owns nothing
  itself;
- what goes to another root goes whole, with everything below it (`crossing.py`);
- the `acl` of each block's type agrees.

All checks come before the first effect. Nothing here believes what the caller says: claims are
compared, never used instead of what `owns` says. What is not here: the arithmetic of pointers
(`flow.py`), asking the acls (`acl.py`), relocations and held blocks (`reshape.py`), who may name
which block (`change_calls.py`), what becomes durable when (`commit.py`).

Source: Kaashoek et al. 1997, section 4.2.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from xnfs.disk.acl import Acls
from xnfs.disk.arguments import Copy
from xnfs.disk.blocktype import ZERO, BlockType
from xnfs.disk.crossing import Crossing
from xnfs.disk.extents import merge, within
from xnfs.disk.flow import Edit, Flow, balance, compare, edit_of
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import BLOCK, Caller, Diff, Extent
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import MAX_TOTAL, Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import (
    CorruptionError,
    NoFrames,
    NoSpace,
    NotCached,
    NotEmpty,
    NotFree,
    Refused,
)
from xnfs.runs import Run

#: Each costs 8 KiB while the change is checked.
MAX_BIRTHS: Final = 1024


class Changer:
    """Checks changes and carries them out."""

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
        self._crossing = Crossing(types, registry, ledger, tables, data)
        self._observer = observer  # told of every pointer that appears: the collector's barrier

    # -- the check

    def change(
        self,
        who: Caller,
        edits: Sequence[tuple[MetaPage, Diff]],
        alloc: Sequence[Extent],
        free: Sequence[Extent],
        share: Sequence[Extent],
        inits: Mapping[int, Diff],
        copies: Sequence[Copy],
        witness: Mapping[int, MetaPage],
    ) -> None:
        """Check everything, then do it. Raises with no effect: Refused, NotFree, AclRefused,
        NoFrames, …
        """
        plan = [edit_of(page, diff, self._data) for page, diff in edits]
        if share:
            self._check_share(share, edits[0][0].root)
        births, data = self._births(alloc, inits) if alloc or inits else ([], {})
        plan += births
        if len({edit.block for edit in plan}) != len(plan):
            raise Refused("a block is edited twice in one change")
        flow = balance(plan, alloc, free, share, self._types)
        if data or copies:
            self._check_data(data, copies, flow)
        if alloc:
            self._check_alloc(alloc, flow)
        dying = self._dying(flow, plan) if flow.freed else []
        crossing = self._crossing.check(flow, plan) if flow.moved else {}
        self._acls.ask_all(who, plan, births, dying, witness)
        load_counts(self._tables, [e for x in plan for e in (*x.added, *x.removed)])
        self._apply(plan, flow, dying, copies)
        for block, root in crossing.items():
            self._registry.cross(block, root)
        for block, diff in data.items():
            self._fill(block, diff)

    def _births(
        self, alloc: Sequence[Extent], inits: Mapping[int, Diff]
    ) -> tuple[list[Edit], dict[int, Diff]]:
        """Newborn metadata blocks with their first bytes. One without is born as zeros: its acl is
        asked all the same. Also the first bytes that are left, of other blocks.
        """
        out: list[Edit] = []
        left = dict(inits)
        for t, start, count in alloc:
            kind = self._types.get(t)
            if kind.stamp is None:
                continue
            if len(out) + count > MAX_BIRTHS:
                raise Refused(f"more than {MAX_BIRTHS} metadata blocks are born in one change")
            for block in range(start, start + count):
                diff = left.pop(block, ())
                edit = Edit(block, kind, None, diff, ZERO, bytearray(ZERO))
                compare(edit, self._data)
                out.append(edit)
        return out, left

    def _check_data(self, data: Mapping[int, Diff], copies: Sequence[Copy], flow: Flow) -> None:
        """These are blocks of data that get their frames in this change, and bytes inside them."""
        extents = [extent for _edit, extent in flow.born]
        extents += [extent for _src, _dst, extent in flow.retyped]
        new: list[Extent] = []
        for t, start, n in extents:
            kind = self._types.get(t)
            if kind.stamp is None and not kind.unreadable:
                new.append((0, start, n))
        new = merge(new)
        copied = merge([(0, target, count) for target, _source, count in copies])
        filled = []
        for block, diff in data.items():
            if any(offset < 0 for offset, _piece in diff):
                raise Refused(f"first bytes before block {block}")
            filled += [(0, *_blocks(block, offset, len(piece))) for offset, piece in diff]
        for _t, start, count in [*copied, *((0, block, 1) for block in data), *filled]:
            if not within(new, 0, start, count):
                raise Refused(f"first bytes for block {start}, or behind, which is not allocated")
        if copied:
            for _t, start, count in filled:
                if any(within(copied, 0, block, 1) for block in range(start, start + count)):
                    raise Refused(f"block {start}, or one behind, is filled twice")

    def _fill(self, block: int, diff: Diff) -> None:
        """Give blank blocks of data their first bytes."""
        for offset, piece in diff:
            self._registry.put(*_blocks(block, offset, len(piece)), offset % BLOCK, piece)

    def _check_alloc(self, alloc: Sequence[Extent], flow: Flow) -> None:
        end = 0
        for t, start, count in sorted(alloc, key=lambda e: e[1]):
            self._types.get(t)
            if start < end:
                raise Refused(f"block {start} is allocated twice")
            end = start + count
        for _edit, (_t, start, count) in flow.born:
            if not self._tables.is_free_run(start, count):
                raise NotFree(f"blocks [{start}, {start + count}) are not free")
        for _src, _dst, (_t, start, count) in flow.retyped:
            if self._tables.any_shared(start, count):
                raise Refused(f"blocks [{start}, {start + count}) have another owner")

    def _check_share(self, share: Sequence[Extent], root: str) -> None:
        more: dict[int, int] = {}
        for t, start, count in share:
            for block in range(start, start + count):
                self._check_shareable(block, t, root)
                more[block] = more.get(block, 0) + 1
                if self._tables.total(block) + more[block] > MAX_TOTAL:
                    raise NoSpace(f"block {block} has {MAX_TOTAL} owners")

    def _check_shareable(self, block: int, t: int, root: str) -> None:
        page = self._registry.get(block)
        if page is None:
            raise NotCached(f"block {block} is not cached, so it can't be shared")
        if page.root != root:
            raise Refused(f"block {block} belongs to another root")
        if page.type.number != t:
            raise Refused(f"block {block} has type {page.type.number}, not {t}")
        if self._ledger.owners(block) < 1 and block not in self._ledger.held:
            raise Refused(f"block {block} has no owner")

    def _dying(self, flow: Flow, plan: Sequence[Edit]) -> list[Edit]:
        """Metadata blocks that lose their last owner; each must own nothing."""
        drops, kinds = self._drops(flow)
        edited = {edit.block: edit for edit in plan}
        dying = []
        for block, n in drops.items():
            if self._ledger.owners(block) > n or block in self._ledger.held:
                continue
            dying.append(self._check_death(block, kinds[block], edited.get(block)))
        return dying

    def _drops(self, flow: Flow) -> tuple[dict[int, int], dict[int, BlockType]]:
        """How many owners each metadata block loses on balance, and its type."""
        drops: dict[int, int] = {}
        kinds: dict[int, BlockType] = {}
        for _edit, (t, start, count) in flow.freed:
            kind = self._types.get(t)
            if kind.stamp is not None:
                for block in range(start, start + count):
                    drops[block] = drops.get(block, 0) + 1
                    kinds[block] = kind
        for _edit, (_t, block, _one) in flow.shared:
            if block in drops:
                drops[block] -= 1
        return drops, kinds

    def _check_death(self, block: int, kind: BlockType, edit: Edit | None) -> Edit:
        page = self._registry.get(block)
        if not isinstance(page, MetaPage):
            raise NotCached(f"block {block} is not cached, so nobody knows what it owns")
        if page.type is not kind:
            raise CorruptionError(block, "type", page.type.spec.name, kind.spec.name)
        last = bytes(page.view) if edit is None else bytes(edit.new)
        if not kind.owns_nothing(last):
            raise NotEmpty(f"block {block} still owns blocks")
        return Edit(block, kind, page, (), last, bytearray(last))

    # -- the effect

    def _apply(
        self,
        plan: Sequence[Edit],
        flow: Flow,
        dying: Sequence[Edit],
        copies: Sequence[Copy],
    ) -> None:
        self._make_pages(flow, plan[0], copies)  # the last step that can fail
        for edit in plan:
            page = edit.page
            if page is None:
                page = edit.page = newborn(self._registry, edit.block)
            for offset, data in edit.diff:
                page.view[offset : offset + len(data)] = data
            self._registry.mark_dirty(page)
            if page is not plan[0].page:
                self._ledger.tie(plan[0].block, page.block)  # one change, one transaction
        self._account(flow)
        for edit in dying:
            dead = self._registry.get(edit.block)
            assert isinstance(dead, MetaPage)  # _check_death saw it
            self._ledger.bury(dead)
        self._observer([e for edit in plan for e in edit.added])

    def _account(self, flow: Flow) -> None:
        """Tell the ledger of every pointer: first those that go, then those that come."""
        for edit, extent in flow.freed:
            self._free(_page(edit), extent)
        for edit, (t, start, count) in flow.born:
            kind = self._types.get(t)
            if kind.unreadable:
                self._ledger.reserve(start, count)
            else:
                self._ledger.allocate(_page(edit), start, count, meta=kind.stamp is not None)
        for edit, (_t, block, _one) in flow.shared:
            self._ledger.share(_page(edit), block)
        for src, dst, (t, start, count) in flow.moved:
            meta = self._types.get(t).stamp is not None
            self._ledger.transfer(_page(src), _page(dst), start, count, meta=meta)
        for src, dst, (_t, start, count) in flow.retyped:
            self._ledger.retype(_page(src), _page(dst), start, count)

    def _make_pages(self, flow: Flow, first: Edit, copies: Sequence[Copy]) -> None:
        """Frames for everything that is born, cleared before anyone can see them; or those of the
        blocks that it copies.
        """
        assert first.page is not None  # a change edits at least one existing block
        registry, root = self._registry, first.page.root
        wanted = flow.born + [(dst, piece) for _src, dst, piece in flow.retyped]
        done: list[Run] = []
        copied: list[tuple[Copy, Edit, BlockType]] = []
        for edit, (t, start, count) in wanted:
            kind = self._types.get(t)
            if kind.unreadable:
                continue
            blank = [(start, count)]
            if copies and kind.stamp is None:
                pieces = _copied(copies, start, count)
                copied += [(piece, edit, kind) for piece in pieces]
                blank = _between(pieces, start, count)
            try:
                for lo, n in blank:
                    registry.add_blank(lo, n, kind, edit.block, root)
                    done.append((lo, n))
            except NoFrames:
                for lo, n in done:
                    registry.drop(range(lo, lo + n))
                raise
        for (target, source, n), edit, kind in copied:
            registry.alias(target, source, n, kind, edit.block, root)

    def _free(self, page: MetaPage, extent: Extent) -> None:
        t, start, count = extent
        if self._types.get(t).stamp is not None:
            for block in range(start, start + count):
                self._ledger.remove_one(page, block)
            return
        self._ledger.discard(page, start, count)


def _copied(copies: Sequence[Copy], start: int, count: int) -> list[Copy]:
    """The parts of the copies, which are sorted, that fill blocks of a run."""
    out: list[Copy] = []
    at = max(bisect_right(copies, (start, sys.maxsize, 0)) - 1, 0)
    while at < len(copies) and copies[at][0] < start + count:
        target, source, n = copies[at]
        lo, hi = max(target, start), min(target + n, start + count)
        if lo < hi:
            out.append((lo, source + lo - target, hi - lo))
        at += 1
    return out


def _blocks(block: int, offset: int, size: int) -> Run:
    """Those that `size` bytes lie in, from `offset` after the start of a block on."""
    first = block + offset // BLOCK
    return first, max(block + (offset + size - 1) // BLOCK - first + 1, 1)


def _between(pieces: Iterable[Copy], start: int, count: int) -> list[Run]:
    """The blocks of a run that none of these fills."""
    out: list[Run] = []
    end = start + count
    for target, _source, n in pieces:
        if start < target:
            out.append((start, target - start))
        start = target + n
    if start < end:
        out.append((start, end - start))
    return out


def load_counts(tables: Tables, extents: Sequence[Extent]) -> None:
    """Have the reference counts that the effect will change: reading them may fail."""
    for _t, start, count in extents:
        tables.shared(start, count)


def newborn(registry: Registry, block: int) -> MetaPage:
    """The page of a metadata block that was given its frame a moment ago."""
    page = registry.get(block)
    assert isinstance(page, MetaPage)  # `add_blank` made it
    return page


def _page(edit: Edit) -> MetaPage:
    assert edit.page is not None  # set at the latest when the change is applied
    return edit.page
