"""The one check that every change of metadata passes, and its effect on the ledger.

A change edits the bytes of some cached metadata blocks. It is accepted exactly when

- each diff stays in its block and outside the stamp;
- over all edits, pointers added minus pointers removed, computed by running `owns` on the old and
  the new bytes of the touched partitions, equal `alloc + share - free`: nothing more, nothing less,
  under the same types;
- allocated blocks are free, shared ones are owned, and what loses its last owner owns nothing
  itself;
- the `acl` of each block's type agrees.

All checks come before the first effect. Nothing here believes what the caller says: claims are
compared, never used instead of what `owns` says. What is not here: who may name which block
(`xn.py`), what becomes durable when (`commit.py`).

Source: Kaashoek et al. 1997, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from xnfs.disk.blocktype import MAX_GROUP_IDS, ZERO, BlockType
from xnfs.disk.extents import difference, merge
from xnfs.disk.ledger import Ledger
from xnfs.disk.records import OP_BIRTH, OP_CHANGE, OP_DEATH, Caller, Diff, Extent
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import MAX_TOTAL, Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import (
    AclRefused,
    CorruptionError,
    NoFrames,
    NoSpace,
    NotCached,
    NotEmpty,
    NotFree,
    Refused,
)

#: Each costs 8 KiB while the change is checked.
MAX_BIRTHS: Final = 1024


@dataclass(slots=True)
class Edit:
    """One block of a change: what it was, what it becomes, and which pointers come and go."""

    block: int
    type: BlockType
    page: MetaPage | None  # None: the block is allocated by this very change
    diff: Diff
    old: bytes
    new: bytearray
    removed: list[Extent] = field(default_factory=list)
    added: list[Extent] = field(default_factory=list)
    parent: int = 0  # of a newborn: the edited block that becomes its owner


@dataclass(slots=True)
class Flow:
    """Where each pointer of a change comes from and goes to: extents with their edits."""

    born: list[tuple[Edit, Extent]] = field(default_factory=list)
    shared: list[tuple[Edit, Extent]] = field(default_factory=list)
    moved: list[tuple[Edit, Edit, Extent]] = field(default_factory=list)
    freed: list[tuple[Edit, Extent]] = field(default_factory=list)
    retyped: list[tuple[Edit, Edit, Extent]] = field(default_factory=list)


class Changer:
    """Checks changes and carries them out."""

    def __init__(
        self,
        types: TypeTable,
        registry: Registry,
        ledger: Ledger,
        tables: Tables,
        data: tuple[int, int],
        now: Callable[[], int],
        observer: Callable[[Iterable[Extent]], None],
    ) -> None:
        self._types = types
        self._registry = registry
        self._ledger = ledger
        self._tables = tables
        self._data = data
        self._now = now
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
        witness: Mapping[int, MetaPage],
    ) -> None:
        """Check everything, then do it. Raises with no effect: Refused, NotFree, AclRefused,
        NoFrames, …
        """
        plan = [self._edit(page, diff) for page, diff in edits]
        if share:
            self._check_share(share, edits[0][0].root)
        births = self._births(alloc, inits) if alloc or inits else []
        plan += births
        if len({edit.block for edit in plan}) != len(plan):
            raise Refused("a block is edited twice in one change")
        flow = self._balance(plan, alloc, free, share)
        if alloc:
            self._check_alloc(alloc, flow)
        dying = self._dying(flow, plan) if flow.freed else []
        self._ask_acls(who, plan, births, dying, witness)
        self._load_counts([e for edit in plan for e in (*edit.added, *edit.removed)])
        self._apply(plan, flow, dying)

    def _load_counts(self, extents: Iterable[Extent]) -> None:
        """Have the reference counts that the effect will change: reading them may fail."""
        for _t, start, count in extents:
            self._tables.shared(start, count)

    def _edit(self, page: MetaPage, diff: Diff) -> Edit:
        old = bytes(page.view)
        edit = Edit(page.block, page.type, page, diff, old, bytearray(old))
        self._compare(edit)
        return edit

    def _births(self, alloc: Sequence[Extent], inits: Mapping[int, Diff]) -> list[Edit]:
        """Newborn metadata blocks with their first bytes. One without is born as zeros: its acl is
        asked all the same.
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
                self._compare(edit)
                out.append(edit)
        if left:
            raise Refused(f"first bytes for blocks {sorted(left)}: no metadata allocated there")
        return out

    def _compare(self, edit: Edit) -> None:
        """Apply the diff to the new bytes and compute which pointers it removes and adds."""
        kind, new = edit.type, edit.new
        parts: set[int] = set()
        for offset, data in edit.diff:
            parts.update(kind.parts_of(offset, len(data)))
            new[offset : offset + len(data)] = data
        minus: list[Extent] = []
        plus: list[Extent] = []
        for part in parts:
            before, after = kind.owned(edit.old, part), kind.owned(new, part)
            if before != after:
                minus += before
                plus += after
        if minus or plus:
            self._bound(minus, edit.block, old=True)
            self._bound(plus, edit.block, old=False)
            edit.removed, edit.added = difference(minus, plus)

    def _bound(self, extents: Iterable[Extent], block: int, *, old: bool) -> None:
        """Pointers must lie in the data area. Old ones come from the disk: it lied."""
        lo, hi = self._data
        for _t, start, count in extents:
            if start < lo or start + count > hi:
                if old:
                    raise CorruptionError(block, "pointer", start, f"a block in [{lo}, {hi})")
                raise Refused(f"block {block}: pointer to [{start}, {start + count}): no data")

    def _balance(
        self,
        plan: Sequence[Edit],
        alloc: Sequence[Extent],
        free: Sequence[Extent],
        share: Sequence[Extent],
    ) -> Flow:
        """Compare the sum over all edits with the claims, exactly; then match each pointer's two
        ends.
        """
        added = [e for edit in plan for e in edit.added]
        removed = [e for edit in plan for e in edit.removed]
        less, more = difference(removed, added)
        gains, losses = merge([*alloc, *share]), merge(free)
        if more != gains or less != losses:
            raise Refused(
                f"ownership: the diffs add {more} and remove {less}, claimed: {gains} and {losses}"
            )
        flow = Flow()
        if not added:
            flow.freed = [(edit, e) for edit in plan for e in edit.removed]
            return flow
        sources = [(edit, e) for edit in plan for e in edit.removed]
        claimed = merge(alloc)
        for edit in plan:
            for extent in edit.added:
                moved, rest, sources = _match([extent], sources, same_type=True)
                flow.moved += [(src, edit, piece) for src, piece in moved]
                for piece in rest:
                    self._place(edit, piece, claimed, flow)
        flow.freed = sources
        if flow.freed and flow.born:
            self._match_retyped(flow)
        return flow

    def _place(self, edit: Edit, piece: Extent, claimed: Sequence[Extent], flow: Flow) -> None:
        """A pointer that came from no other edit: allocated here, or shared."""
        t, start, count = piece
        if any(u == t and s <= start and start + count <= s + n for u, s, n in claimed):
            flow.born.append((edit, piece))
        else:
            flow.shared += [(edit, (t, b, 1)) for b in range(start, start + count)]

    def _match_retyped(self, flow: Flow) -> None:
        """Blocks of an unreadable type that turn into another type, under the owner that gives them
        up.
        """
        hidden = [x for x in flow.freed if self._types.get(x[1][0]).unreadable]
        data = [x for x in flow.born if self._types.get(x[1][0]).stamp is None]
        if not hidden:
            return
        freed = [x for x in flow.freed if not self._types.get(x[1][0]).unreadable]
        born = [x for x in flow.born if x not in data]
        for edit, extent in data:
            found, rest, hidden = _match([extent], hidden, same_type=False)
            flow.retyped += [(src, edit, piece) for src, piece in found]
            born += [(edit, piece) for piece in rest]
        flow.born, flow.freed = born, freed + hidden

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
                page = self._registry.get(block)
                if page is None:
                    raise NotCached(f"block {block} is not cached, so it can't be shared")
                if page.root != root:
                    raise Refused(f"block {block} belongs to another root")
                if page.type.number != t:
                    raise Refused(f"block {block} has type {page.type.number}, not {t}")
                if self._ledger.owners(block) < 1 and block not in self._ledger.held:
                    raise Refused(f"block {block} has no owner")
                more[block] = more.get(block, 0) + 1
                if self._tables.total(block) + more[block] > MAX_TOTAL:
                    raise NoSpace(f"block {block} has {MAX_TOTAL} owners")

    def _dying(self, flow: Flow, plan: Sequence[Edit]) -> list[Edit]:
        """Metadata blocks that lose their last owner; each must own nothing."""
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
        edited = {edit.block: edit for edit in plan}
        dying = []
        for block, n in drops.items():
            if self._ledger.owners(block) > n or block in self._ledger.held:
                continue
            dying.append(self._check_death(block, kinds[block], edited.get(block)))
        return dying

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

    # -- other shapes

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
        if parent is old:
            raise Refused(f"block {old.block} owns itself")
        edit = self._edit(parent, diff)
        t = old.type.number
        if edit.added != [(t, new, 1)] or edit.removed != [(t, old.block, 1)]:
            raise Refused("a relocation changes exactly one pointer, from old to new")
        if not self._tables.is_free_run(new, 1):
            raise NotFree(f"block {new} is not free")
        if self._ledger.owners(old.block) != 1 or old.block in self._ledger.held:
            raise Refused(f"block {old.block} has other owners")
        self._ask_acls(who, [edit], (), (), witness)
        self._load_counts([*edit.added, *edit.removed])
        self._registry.add_blank(new, 1, old.type, parent.block, parent.root)
        page = self._newborn(new)
        page.view[:] = old.view
        page.pins, page.lock = old.pins, old.lock
        page.take_pending(old)
        for offset, data in diff:
            parent.view[offset : offset + len(data)] = data
        self._registry.mark_dirty(parent)
        self._ledger.remove_one(parent, old.block)
        self._ledger.allocate(parent, new, 1, meta=True)
        for other in self._ledger.ties.get(old.block, set()) - {new, old.block}:
            self._ledger.tie(new, other)
        self._ledger.forget(old.block)
        self._registry.drop([old.block])
        self._observer(edit.added)

    def alloc_held(self, who: Caller, near: MetaPage, extent: Extent, init: Diff) -> None:
        """A newborn metadata block whose only owner is the temporary root."""
        t, block, count = extent
        kind = self._types.get(t)
        if count != 1 or kind.stamp is None:
            raise Refused("a held block is one block of metadata")
        if not self._tables.is_free_run(block, 1):
            raise NotFree(f"block {block} is not free")
        edit = Edit(block, kind, None, init, ZERO, bytearray(ZERO))
        self._compare(edit)
        if edit.added:
            raise Refused("a held block is born without pointers")
        self.ask(who, kind, OP_BIRTH, 0, edit, (near.block, near.view))
        self._load_counts([extent])
        self._registry.add_blank(block, 1, kind, 0, near.root)
        self._newborn(block).view[:] = edit.new
        self._ledger.hold_new(block)
        self._observer([extent])

    def bury_held(self, page: MetaPage) -> None:
        """The temporary root gives up a block that nobody owns."""
        self._ledger.bury(page)

    def abandon(self, page: MetaPage, diff: Diff) -> None:
        """Forget pointers without freeing what they name: it becomes a leak. For the root catalogue
        only.
        """
        for offset, data in diff:
            page.view[offset : offset + len(data)] = data
        self._registry.mark_dirty(page)

    # -- acl

    def _ask_acls(
        self,
        who: Caller,
        plan: Sequence[Edit],
        births: Sequence[Edit],
        dying: Sequence[Edit],
        witness: Mapping[int, MetaPage],
    ) -> None:
        shown = {edit.block: edit for edit in plan}
        for edit in births:
            edit.parent = next(
                (e.block for e in plan if any(_holds(x, edit.block) for x in e.added)), 0
            )
        for op, edits in ((OP_CHANGE, plan), (OP_DEATH, dying)):
            for edit in edits:
                if edit.type.acl is None:
                    continue
                page = witness.get(edit.block) or witness.get(0)
                number: int = page.block if page else 0
                data: bytes | bytearray | memoryview = page.view if page else ZERO
                if page is None and edit.page is None:
                    number = edit.parent
                if number in shown:
                    seen = shown[number]
                    data = seen.new if edit.page is None else seen.old
                asked = OP_BIRTH if edit.page is None else op
                self.ask(who, edit.type, asked, 0, edit, (number, data))

    def ask(
        self,
        who: Caller,
        kind: BlockType,
        op: int,
        mask: int,
        edit: Edit,
        witness: tuple[int, bytes | bytearray | memoryview],
    ) -> None:
        """Run the type's acl. Raises AclRefused with its answer."""
        if kind.acl is None:
            return
        answer = kind.acl(
            op,
            mask,
            edit.old,
            edit.new,
            witness[1],
            edit.block,
            witness[0],
            who.uid & 0xFFFFFFFF,
            who.gid & 0xFFFFFFFF,
            tuple(who.groups[:MAX_GROUP_IDS]),
            self._now(),
        )
        if answer:
            raise AclRefused(answer, edit.block)

    # -- the effect

    def _apply(self, plan: Sequence[Edit], flow: Flow, dying: Sequence[Edit]) -> None:
        self._make_pages(flow, plan[0])  # the last step that can fail
        for edit in plan:
            page = edit.page
            if page is None:
                page = edit.page = self._newborn(edit.block)
            for offset, data in edit.diff:
                page.view[offset : offset + len(data)] = data
            self._registry.mark_dirty(page)
            if page is not plan[0].page:
                self._ledger.tie(plan[0].block, page.block)  # one change, one transaction
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
        for edit in dying:
            dead = self._registry.get(edit.block)
            assert isinstance(dead, MetaPage)  # _check_death saw it
            self._ledger.bury(dead)
        self._observer([e for edit in plan for e in edit.added])

    def _make_pages(self, flow: Flow, first: Edit) -> None:
        """Frames for everything that is born, cleared before anyone can see them."""
        assert first.page is not None  # a change edits at least one existing block
        root = first.page.root
        wanted = flow.born + [(dst, piece) for _src, dst, piece in flow.retyped]
        done: list[tuple[int, int]] = []
        for edit, (t, start, count) in wanted:
            kind = self._types.get(t)
            if kind.unreadable:
                continue
            try:
                self._registry.add_blank(start, count, kind, edit.block, root)
            except NoFrames:
                for lo, n in done:
                    self._registry.drop(range(lo, lo + n))
                raise
            done.append((start, count))

    def _newborn(self, block: int) -> MetaPage:
        page = self._registry.get(block)
        assert isinstance(page, MetaPage)  # _make_pages made it
        return page

    def _free(self, page: MetaPage, extent: Extent) -> None:
        t, start, count = extent
        if self._types.get(t).stamp is not None:
            for block in range(start, start + count):
                self._ledger.remove_one(page, block)
            return
        owners = self._ledger.owners
        shared = self._tables.any_shared(start, count)
        self._ledger.remove_data(page, start, count)
        run = range(start, start + count)
        self._registry.drop(b for b in run if not shared or owners(b) < 1)


def _page(edit: Edit) -> MetaPage:
    assert edit.page is not None  # set at the latest when the change is applied
    return edit.page


def _holds(extent: Extent, block: int) -> bool:
    return extent[1] <= block < extent[1] + extent[2]


def _match(
    wanted: Sequence[Extent], sources: list[tuple[Edit, Extent]], *, same_type: bool
) -> tuple[list[tuple[Edit, Extent]], list[Extent], list[tuple[Edit, Extent]]]:
    """Cut `wanted` along `sources`: (matched pieces with their source, rest of wanted, rest of
    sources).
    """
    matched: list[tuple[Edit, Extent]] = []
    rest = list(wanted)
    left: list[tuple[Edit, Extent]] = []
    for edit, (u, s, n) in sources:
        spare = [(s, s + n)]
        for t, start, count in list(rest):
            lo, hi = max(s, start), min(s + n, start + count)
            if lo >= hi or (same_type and t != u) or (lo, hi) not in _cover(spare, lo, hi):
                continue
            rest.remove((t, start, count))
            rest += [(t, a, b - a) for a, b in ((start, lo), (hi, start + count)) if a < b]
            matched.append((edit, (t, lo, hi - lo)))
            spare = [x for a, b in spare for x in ((a, min(b, lo)), (max(a, hi), b)) if x[0] < x[1]]
        left += [(edit, (u, a, b - a)) for a, b in spare]
    return matched, rest, left


def _cover(spare: Sequence[tuple[int, int]], lo: int, hi: int) -> list[tuple[int, int]]:
    return [(lo, hi)] if any(a <= lo and hi <= b for a, b in spare) else []
