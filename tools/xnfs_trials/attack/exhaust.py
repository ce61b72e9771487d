"""Every sequence of system calls up to a length, by two principals on a handful of blocks.

A call that is refused must have no effect, so a sequence with refused calls in it leads where it
leads without them: it is enough to go through the states that accepted calls reach, each once,
and to try every call in each. States that differ only in the names of blocks, in the order of a
node's slots, or in who is called "a" and who "b", are one (`canonical`). Each answer of the kernel
and each state that it shows is compared with `spec`; a wrong refusal counts as much as a wrong
acceptance.

`calls` says which calls are tried. Blocks that were never touched are alike, so only the first two
of them are named.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from xnfs_trials.attack.ground import Ground, unsearched
from xnfs_trials.attack.memento import Memento
from xnfs_trials.attack.spec import (
    DATA,
    HIDDEN,
    KERNEL,
    NODE,
    OUTSIDE,
    SLOTS,
    Call,
    Pointer,
    State,
)

PERSONS = ("a", "b")
Progress = Callable[["Census"], None]


@dataclass(slots=True)
class Wrong:
    """The kernel and the specification do not agree after a sequence of calls."""

    what: str  # "wrongly accepted", "wrongly refused", "another state", "effect of a refused call"
    calls: tuple[Call, ...]
    detail: str = ""

    def __str__(self) -> str:
        steps = "; ".join(f"{who}: {name}{arguments}" for name, who, arguments in self.calls)
        return f"{self.what}: {steps}{': ' if self.detail else ''}{self.detail}"


@dataclass
class Census:
    """What a search did. `depth`: the length of the sequences that were all tried."""

    depth: int = 0
    states: int = 0
    calls: int = 0
    accepted: int = 0
    refused: int = 0
    sequences: int = 0  # paths of calls that these stand for
    seconds: float = 0.0
    wrong: list[Wrong] = field(default_factory=list)
    complete: bool = True


# -- which calls are tried


def calls(state: State, names: range) -> Iterator[Call]:
    """Every call with every argument of a small set."""
    fresh = [b for b in names if state.free(b)]
    blocks = [b for b in names if b not in fresh[2:]]
    pointers = [(kind, b) for kind in (DATA, NODE) for b in blocks]
    targets = [*pointers, (HIDDEN, blocks[-1]), (DATA, KERNEL), (NODE, OUTSIDE)]
    for who in PERSONS:
        for block in blocks:
            page = state.blocks.get(block)
            yield from _page_calls(who, block, page.kind if page else "")
            none: list[Pointer | None] = [None] * SLOTS
            slots = page.slots if page and page.slots else none
            for slot in range(SLOTS if slots[0] != slots[1] else 1):
                yield from _changes(state, who, block, slot, slots, targets, blocks)
    yield from _token_calls(state, blocks)
    for block in (KERNEL, OUTSIDE):
        for name in ("read", "write", "hold", "pin", "evict"):
            yield name, "a", (block,)
        yield "change", "a", ([(block, [(0, None)])],)
    for name in ("sync", "writeback", "collect"):
        yield name, "a", ()


def _page_calls(who: str, block: int, kind: str) -> Iterator[Call]:
    names = "read write evict pin unpin lock unlock hold drop".split()
    yield from ((name, who, (block,)) for name in names)
    if kind != DATA:  # of data, that would be a write like any other
        yield "poke", who, (block,)
    if block in (0, 1):
        yield "mount", who, (block,)


def _changes(
    state: State, who: str, node: int, slot: int, slots: list[Pointer | None],
    targets: list[Pointer], blocks: list[int],
) -> Iterator[Call]:  # fmt: skip
    """What may be done to one slot of one node, and what may not."""
    old = slots[slot]
    for to in targets:
        edit = [(node, [(slot, to)])]
        yield "change", who, (edit, [to])  # allocate
        yield "change", who, (edit, (), (), [to])  # share
        yield "change", who, (edit,)  # a pointer out of nothing
        if old:
            yield "change", who, (edit, [to], [old])  # replace
            both = [(node, [(slot, None), (1 - slot, to)])]
            yield "change", who, (both, (), [old])  # free that installs
    yield "change", who, ([(node, [(slot, None)])],)
    for kind in (DATA, NODE, HIDDEN):
        if old:
            yield "change", who, ([(node, [(slot, None)])], (), [(kind, old[1])])  # free, as ...
            retyped = kind, old[1]
            yield "change", who, ([(node, [(slot, retyped)])], [retyped], [old])
    for block in dict.fromkeys((old[1] if old else blocks[0], blocks[0], blocks[-1])):
        yield "readin", who, (node, slot, block)
        yield "bind", who, (node, slot, block)
    yield from _two_nodes(who, node, slot, old, blocks)
    new = blocks[-1]
    for claim in ((NODE, new), (DATA, new), (NODE, blocks[0]), (NODE, KERNEL)):
        yield "alloc_held", who, (node, claim)
    for pointer in ((DATA, blocks[0]), (DATA, new), (NODE, new)):  # a newborn brings a pointer
        birth = [(node, [(slot, (NODE, blocks[-2]))])]
        for more in ((), (pointer,)):
            yield "change", who, (birth, [(NODE, blocks[-2]), *more], (), (), {blocks[-2]: pointer})


def _two_nodes(
    who: str, node: int, slot: int, old: Pointer | None, blocks: list[int]
) -> Iterator[Call]:
    if old is None:
        return
    for other in blocks:
        if other != node:
            for into in range(SLOTS):
                move = [(node, [(slot, None)]), (other, [(into, old)])]
                yield "change", who, (move,)
        if old[0] == NODE:
            yield "relocate", who, (node, slot, old[1], other)


def _token_calls(state: State, blocks: list[int]) -> Iterator[Call]:
    """What a capability for less can do, while it lives and afterwards; and what makes it."""
    for home, other in (("a", "b"), ("b", "a")):
        token = home + "'"
        if not state.tokens.get(token):
            yield "narrow", home, (home, "rw")
        yield "narrow", home, (other, "r")
        if token not in state.tokens:
            continue
        for who in (home, other, token):
            yield "revoke", who, (token,)
        yield "revoke", token, (home,)
        yield "narrow", token, (home, "rwa")
        for block in blocks:
            yield from ((n, token, (block,)) for n in "read write lock unlock evict hold".split())
            claim = (DATA, blocks[-1])
            yield "change", token, ([(block, [(0, claim)])], [claim])
            yield "change", token, ([(block, [(0, None)])],)
        yield "mount", token, (0 if home == "a" else 1,)


# -- one state of many


def canonical(state: State, names: range) -> object:
    """The same for states that differ in names only."""
    others = list(names)[2:]
    keys = []
    for persons in ({"a": "a", "b": "b", "a'": "a'", "b'": "b'"},
                    {"a": "b", "b": "a", "a'": "b'", "b'": "a'"}):  # fmt: skip
        roots = {0: 0, 1: 1} if persons["a"] == "a" else {0: 1, 1: 0}
        for order in permutations(others):
            keys.append(_named(state, roots | dict(zip(others, order, strict=True)), persons))
    return min(keys)


def _named(state: State, number: dict[int, int], person: dict[str, str]) -> tuple[Any, ...]:
    out = []
    for block, page in state.blocks.items():
        slots = sorted((p[0], number[p[1]]) for p in page.slots if p)
        out.append((
            number[block], page.kind, person[page.home], slots,
            person.get(page.text, ""), page.cached, page.filled, page.dirty, page.fresh, page.pins,
            person[page.lock] if page.lock else "", page.held, page.adrift,
            sorted(number[b] for b in page.young),
        ))  # fmt: skip
    due = [sorted(number[b] for b in some) for some in (state.due, state.maybe)]
    tokens = sorted((person[t], live) for t, live in state.tokens.items())
    return sorted(out), due, tokens, state.quiet


# -- the search


@dataclass(slots=True)
class _Place:
    """A state, one way to it, and what was found to follow."""

    state: State
    path: tuple[Call, ...]
    calls: int = 0
    stays: int = 0  # of these, calls that change nothing
    leads: Counter[int] = field(default_factory=Counter)  # to which places, by how many calls


class Search:
    """Breadth first: all sequences of one call, then of two, ..."""

    def __init__(self, *, free: int = 3, limit: int = 20) -> None:
        self.ground = Ground(free)
        self.census = Census()
        self._limit = limit
        self._start = Memento(self.ground)
        self._places: list[_Place] = []
        self._index: dict[str, int] = {}

    def run(
        self, depth: int, *, budget: float = float("inf"), progress: Progress | None = None
    ) -> Census:
        """Try all sequences of up to `depth` calls, or until `budget` seconds are over or `limit`
        disagreements were found: then the census is not `complete`."""
        census, begin = self.census, time.monotonic()
        self._place(State.first(), ())
        done = 0
        while census.depth < depth:
            end = len(self._places)
            for place in self._places[done:end]:
                self._expand(place, last=census.depth + 1 == depth)
                census.seconds = time.monotonic() - begin
                if progress is not None:
                    progress(census)
                if census.seconds > budget or len(census.wrong) >= self._limit:
                    census.complete = False
                    return census
            done = end
            census.depth += 1
        census.sequences = self._sequences(depth)
        return census

    def _place(self, state: State, path: tuple[Call, ...]) -> int:
        key = repr(canonical(state, self.ground.names))
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self._places)
            self._places.append(_Place(state, path))
            self.census.states += 1
        return index

    def _expand(self, place: _Place, *, last: bool) -> None:
        """Try every call in one state."""
        self._start.restore()
        for call in place.path:
            self.ground.call(call)
        here = Memento(self.ground)
        state = place.state
        tried = [c for c in calls(state, self.ground.names) if not unsearched(state, c)]
        answers = [(call, state.apply(call)) for call in tried]
        idle = [(call, after) for call, after in answers if after is None or after == state]
        place.calls, place.stays = len(answers), len(idle)
        self._idle(place, idle, here)
        for call, after in answers:
            if after is None or after == state:
                continue
            if self._try(place, call, after, here) and not last:
                place.leads[self._place(after, (*place.path, call))] += 1
            here.restore()

    def _idle(self, place: _Place, idle: list[tuple[Call, State | None]], here: Memento) -> None:
        """Calls that are refused or change nothing: one look after all of them."""
        for call, after in idle:
            if not self._answer(place, call, after):
                here.restore()
        want = self.ground.expected(place.state)
        if self.ground.look(place.state) == want:
            return
        for call, after in idle:  # which of them was it?
            here.restore()
            self._answer(place, call, after, again=True)
            self._compare(place, call, place.state, "effect of a call that has none")
        here.restore()

    def _try(self, place: _Place, call: Call, after: State, here: Memento) -> bool:
        """A call that changes something. True if the kernel did the same."""
        if not self._answer(place, call, after):
            return False
        if after.unsure or after.maybe:
            after.settle(self.ground.cached(), self.ground.free())
        return self._compare(place, call, after, "another state")

    def _answer(
        self, place: _Place, call: Call, after: State | None, *, again: bool = False
    ) -> bool:
        """Make the call and compare the answer. True if it is the right one."""
        what = ""
        try:
            accepted = self.ground.call(call)
        except Exception as error:
            accepted, what = after is None, f"error {type(error).__name__}: {error}"
        if again:
            return True
        census = self.census
        census.calls += 1
        census.accepted += accepted
        census.refused += not accepted
        if accepted != (after is not None):
            what = "wrongly accepted" if accepted else "wrongly refused"
        if what:
            census.wrong.append(Wrong(what, (*place.path, call)))
        return not what

    def _compare(self, place: _Place, call: Call, state: State, what: str) -> bool:
        got, want = self.ground.look(state), self.ground.expected(state)
        if got == want:
            return True
        n = next(i for i, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1])
        detail = f"block {n} is {got[n]}, not {want[n]}"
        self.census.wrong.append(Wrong(what, (*place.path, call), detail))
        return False

    def _sequences(self, depth: int) -> int:
        """How many sequences of exactly `depth` calls all this stands for."""
        ways: Counter[int] = Counter({0: 1})
        for _step in range(depth - 1):
            after: Counter[int] = Counter()
            for index, n in ways.items():
                place = self._places[index]
                after[index] += n * place.stays
                for to, calls_ in place.leads.items():
                    after[to] += n * calls_
            ways = after
        return sum(n * self._places[at].calls for at, n in ways.items())
