"""Where every pointer of a change comes from and goes to: the arithmetic of ownership.

`compare` runs a type's `owns` over the old and the new bytes of one block and says which pointers
come and go. `balance` sums that over all edited blocks, holds it against what the caller claims,
and matches the two ends of each pointer. Nothing here knows whether a block is free, cached or
owned by others (`change.py`), and nothing has an effect but on the Edit itself.

Relies on `extents.py` for multisets. Guarantees: what is added minus what is removed is exactly
`alloc + share - free`, under the same types, or Refused; each pointer that goes and each that comes
is in the Flow exactly once.

Source: Kaashoek et al. 1997, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xnfs.disk.blocktype import BlockType
from xnfs.disk.extents import difference, merge, within
from xnfs.disk.records import Diff, Extent
from xnfs.disk.registry import MetaPage
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError, Refused


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


# -- one block


def edit_of(page: MetaPage, diff: Diff, data: tuple[int, int]) -> Edit:
    """The edit of a cached block, compared."""
    old = bytes(page.view)
    edit = Edit(page.block, page.type, page, diff, old, bytearray(old))
    compare(edit, data)
    return edit


def compare(edit: Edit, data: tuple[int, int]) -> None:
    """Apply the diff to the new bytes and compute which pointers it removes and adds.

    `data`: the blocks [lo, hi) that can be owned. Raises Refused, CorruptionError.
    """
    kind, old, new = edit.type, edit.old, edit.new
    parts: set[int] = set()
    for offset, piece in edit.diff:
        if touched := kind.parts_of(offset, len(piece)):
            parts.update(touched)
        new[offset : offset + len(piece)] = piece
    minus: list[Extent] = []
    plus: list[Extent] = []
    for part in parts:
        lo, hi = kind.ranges[part]
        if old[lo:hi] == new[lo:hi]:
            continue
        before, after = kind.owned(old, part), kind.owned(new, part)
        if before != after:
            minus += before
            plus += after
    if minus or plus:
        bound(minus, edit.block, data, old=True)
        bound(plus, edit.block, data, old=False)
        edit.removed, edit.added = difference(minus, plus)


def bound(extents: Iterable[Extent], block: int, data: tuple[int, int], *, old: bool) -> None:
    """Pointers must lie in the data area. Old ones come from the disk: it lied."""
    lo, hi = data
    for _t, start, count in extents:
        if start < lo or start + count > hi:
            if old:
                raise CorruptionError(block, "pointer", start, f"a block in [{lo}, {hi})")
            raise Refused(f"block {block}: pointer to [{start}, {start + count}): no data")


# -- all blocks


def balance(
    plan: Sequence[Edit],
    alloc: Sequence[Extent],
    free: Sequence[Extent],
    share: Sequence[Extent],
    types: TypeTable,
) -> Flow:
    """Compare the sum over all edits with the claims, exactly; then match each pointer's two
    ends.
    """
    added = [e for edit in plan for e in edit.added]
    sources = [(edit, e) for edit in plan for e in edit.removed]
    less, more = difference([e for _edit, e in sources], added)
    gains, losses = merge([*alloc, *share]), merge(free)
    if more != gains or less != losses:
        raise Refused(
            f"ownership: the diffs add {more} and remove {less}, claimed: {gains} and {losses}"
        )
    if not added:
        return Flow(freed=sources)
    flow = _trace(plan, sources, merge(alloc))
    if flow.freed and flow.born:
        _match_retyped(flow, types)
    return flow


def _trace(
    plan: Sequence[Edit], sources: list[tuple[Edit, Extent]], claimed: Sequence[Extent]
) -> Flow:
    """Find the source of each pointer that is added; what no edit takes up is freed."""
    flow = Flow()
    # Most pointers that move do so whole; only the others need to be cut to pieces.
    whole: dict[Extent, list[Edit]] = {}
    for edit, extent in sources:
        whole.setdefault(extent, []).append(edit)
    left: list[tuple[Edit, Extent]] = []
    for edit in plan:
        for extent in edit.added:
            if owners := whole.get(extent):
                flow.moved.append((owners.pop(), edit, extent))
            else:
                left.append((edit, extent))
    sources = [(edit, extent) for extent, owners in whole.items() for edit in owners]
    for edit, extent in left:
        moved, rest, sources = _match([extent], sources, same_type=True)
        flow.moved += [(src, edit, piece) for src, piece in moved]
        for piece in rest:
            _place(edit, piece, claimed, flow)
    flow.freed = sources
    return flow


def _place(edit: Edit, piece: Extent, claimed: Sequence[Extent], flow: Flow) -> None:
    """A pointer that came from no other edit: allocated here, or shared. Claims that overlap are
    refused later.
    """
    t, start, count = piece
    if within(claimed, t, start, count):
        flow.born.append((edit, piece))
    else:
        flow.shared += [(edit, (t, b, 1)) for b in range(start, start + count)]


def _match_retyped(flow: Flow, types: TypeTable) -> None:
    """Blocks of an unreadable type that turn into another type, under the owner that gives them
    up.
    """
    hidden = [x for x in flow.freed if types.get(x[1][0]).unreadable]
    data = [x for x in flow.born if types.get(x[1][0]).stamp is None]
    if not hidden:
        return
    freed = [x for x in flow.freed if not types.get(x[1][0]).unreadable]
    born = [x for x in flow.born if x not in data]
    for edit, extent in data:
        found, rest, hidden = _match([extent], hidden, same_type=False)
        flow.retyped += [(src, edit, piece) for src, piece in found]
        born += [(edit, piece) for piece in rest]
    flow.born, flow.freed = born, freed + hidden


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
