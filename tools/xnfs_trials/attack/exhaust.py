"""Every sequence of system calls up to a length, by two principals on a handful of blocks.

A call that is refused must have no effect, so a sequence with refused calls in it leads where it
leads without them: it is enough to go through the states that accepted calls reach, each once,
and to try every call in each. States that differ only in the names of blocks, in the order of a
node's slots, or in who is called "a" and who "b", are one (`canonical`). Each answer of the kernel
and each state that it shows is compared with `spec`; a wrong refusal counts as much as a wrong
acceptance.

Which calls are tried says `alphabet`. Deeper than all sequences can go, `wander` goes at random.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from xnfs_trials.attack.alphabet import calls
from xnfs_trials.attack.ground import Ground
from xnfs_trials.attack.memento import Memento
from xnfs_trials.attack.spec import State
from xnfs_trials.attack.world import (
    Call,
)

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
    tried: int = 0  # of the states before the last call: up to this number, of `before`
    before: int = 0


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
            person[page.lock] if page.lock else "", page.held, page.adrift, page.reserved,
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
        self,
        depth: int,
        *,
        first: int = 0,
        budget: float = float("inf"),
        progress: Progress | None = None,
    ) -> Census:
        """Try all sequences of up to `depth` calls, or until `budget` seconds are over or `limit`
        disagreements were found: then the census is not `complete`. `first`: so many of the states
        before the last call are passed over, as a run before has `tried` them.
        """
        census, begin = self.census, time.monotonic()
        self._place(State.first(), ())
        done = 0
        while census.depth < depth:
            last, end = census.depth + 1 == depth, len(self._places)
            passed = min(first, end - done) if last else 0
            census.tried, census.before = passed, end - done
            for place in self._places[done + passed : end]:
                self._expand(place, last=last)
                census.tried += 1
                census.seconds = time.monotonic() - begin
                if progress is not None:
                    progress(census)
                if census.seconds > budget or len(census.wrong) >= self._limit:
                    census.complete = False
                    return census
            done = end
            census.depth += 1
        if not first:
            census.sequences = self._sequences(depth)
        return census

    def wander(
        self,
        seed: int,
        walks: int,
        length: int,
        *,
        budget: float = float("inf"),
        progress: Progress | None = None,
    ) -> Census:
        """Random sequences of `length` calls that the specification accepts, and with each one a
        call that it refuses: deeper than all sequences can go.
        """
        census, begin = self.census, time.monotonic()
        for number in range(walks):
            self._walk(random.Random(f"{seed}/{number}"), length)
            census.states += 1
            census.seconds = time.monotonic() - begin
            if progress is not None:
                progress(census)
            if census.seconds > budget or len(census.wrong) >= self._limit:
                census.complete = False
                break
        census.wrong = [self._shortened(wrong) for wrong in census.wrong]
        return census

    def _walk(self, rng: random.Random, length: int) -> None:
        self._start.restore()
        place = _Place(State.first(), ())
        for _step in range(length):
            tried = list(calls(place.state, self.ground.names))
            rng.shuffle(tried)
            hostile = True
            for call in tried:
                after = place.state.apply(call)
                if after is None and hostile:
                    hostile = False
                    if not (self._answer(place, call, None) and self._compare(
                        place, call, place.state, "effect of a call that has none")):  # fmt: skip
                        return
                elif after is not None and (after != place.state or rng.random() < 0.1):
                    if not self._try(place, call, after):
                        return
                    place = _Place(after, (*place.path, call))
                    break

    def _shortened(self, wrong: Wrong) -> Wrong:
        """The same disagreement after fewer calls, none of which can be left out."""
        at = 0
        while at < len(wrong.calls) - 1:
            fewer = self._again((*wrong.calls[:at], *wrong.calls[at + 1 :]))
            if fewer is not None and fewer.what == wrong.what:
                wrong, at = fewer, 0
            else:
                at += 1
        return wrong

    def _again(self, sequence: tuple[Call, ...]) -> Wrong | None:
        """Whether the last of these calls, and no earlier one, goes wrong."""
        kept, self.census = self.census, Census()
        self._start.restore()
        place = _Place(State.first(), ())
        for call in sequence[:-1]:
            after = place.state.apply(call)
            if after is None or not self._try(place, call, after):
                self.census = kept
                return None
            place = _Place(after, (*place.path, call))
        after = place.state.apply(sequence[-1])
        if after is not None:
            self._try(place, sequence[-1], after)
        elif self._answer(place, sequence[-1], None):
            self._compare(place, sequence[-1], place.state, "effect of a call that has none")
        found, self.census = self.census.wrong, kept
        return found[0] if found else None

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
        answers = [(call, state.apply(call)) for call in calls(state, self.ground.names)]
        idle = [(call, after) for call, after in answers if after is None or after == state]
        place.calls, place.stays = len(answers), len(idle)
        self._idle(place, idle, here)
        for call, after in answers:
            if after is None or after == state:
                continue
            if self._try(place, call, after) and not last:
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

    def _try(self, place: _Place, call: Call, after: State) -> bool:
        """A call that changes something. True if the kernel did the same."""
        if not self._answer(place, call, after):
            return False
        if after.unsure or after.maybe or after.kept:
            after.settle(self.ground.cached(), self.ground.free(), self.ground.dirty())
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
