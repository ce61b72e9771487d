"""All short sequences of system calls against the specification; that the search is one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from xnfs_trials.attack import spec, world
from xnfs_trials.attack.alphabet import calls
from xnfs_trials.attack.exhaust import Search, canonical
from xnfs_trials.attack.ground import Ground
from xnfs_trials.attack.memento import Memento
from xnfs_trials.attack.spec import State
from xnfs_trials.attack.world import DATA, HIDDEN, NODE, Call

from tests.attack.mutants import MUTANTS


def after(*sequence: Call) -> State:
    """The state of the specification after some calls."""
    state = State.first()
    for call in sequence:
        following = state.apply(call)
        assert following is not None, call
        state = following
    return state


def add(who: str, node: int, slot: int, kind: str, block: int) -> Call:
    """Allocate."""
    return "change", who, ([(node, [(slot, (kind, block))])], [(kind, block)])


@pytest.mark.parametrize("alone", [True, False])
def test_exhaust_writeback_of_what_a_commit_vouches_for(alone: bool) -> None:
    """Data that the newest transaction lists stay dirty: a freedom of the kernel, of these only."""
    sequence: list[Call] = [add("a", 0, 0, DATA, 2), ("sync", "a", ()), ("write", "a", (2,))]
    if alone:
        sequence = [("mount", "a", (0,)), add("a", 0, 0, DATA, 2), ("write", "a", (2,))]
    assert Search(free=2)._again((*sequence, ("writeback", "a", ()))) is None
    state = after(*sequence, ("writeback", "a", ()))
    state.settle(set(state.blocks), set(), {2})
    assert state.blocks[2].dirty == (not alone)


def share(who: str, node: int, slot: int, block: int) -> Call:
    """One more pointer to a block of data."""
    return "change", who, ([(node, [(slot, (DATA, block))])], (), (), [(DATA, block)])


#: What all sequences of five calls found that the kernel may do.
FREEDOMS: dict[str, list[Call]] = {
    "data of a node on hold stay": [
        add("a", 0, 0, DATA, 2),
        ("alloc_held", "a", (0, (NODE, 4))),
        share("a", 4, 0, 2),
        ("sync", "a", ()),
        ("evict", "a", (2,)),
    ],
    "one of two pointers is durable": [
        add("a", 0, 0, DATA, 2),
        ("sync", "a", ()),
        share("a", 0, 1, 2),
        ("write", "a", (2,)),
        ("writeback", "a", ()),
    ],
    "a loop that no root leads to": [
        add("a", 0, 0, NODE, 2),
        ("sync", "a", ()),
        ("change", "a", ([(0, [(0, None)]), (2, [(0, (NODE, 2))])],)),
        ("sync", "a", ()),
        ("change", "a", ([(2, [(0, None)])], (), [(NODE, 2)])),
    ],
}


@pytest.mark.parametrize("sequence", FREEDOMS.values(), ids=FREEDOMS)
def test_exhaust_freedoms_of_the_kernel(sequence: list[Call]) -> None:
    assert Search()._again(tuple(sequence)) is None
    # The last call has an effect.
    assert after(*sequence) != after(*sequence[:-1])


def test_exhaust_all_sequences_of_three_calls() -> None:
    census = Search(free=2).run(3)
    assert census.wrong == []
    assert census.complete
    assert census.depth == 3
    assert census.sequences > 100_000_000
    assert census.states > 200
    assert census.accepted > 10_000
    assert census.refused > 100_000


def test_exhaust_goes_on_where_it_was_stopped() -> None:
    whole = Search(free=2).run(2)
    begun = Search(free=2).run(2, budget=0)
    assert not begun.complete
    assert (begun.depth, begun.tried) == (0, 1)
    rest = Search(free=2).run(2, first=5)
    assert rest.complete
    assert (rest.tried, rest.before) == (whole.before, whole.before)
    assert rest.calls < whole.calls
    assert not rest.sequences


@pytest.mark.slow
@pytest.mark.timeout(1200)  # some 200 s of CPU
def test_exhaust_all_sequences_of_four_calls() -> None:
    census = Search(free=2).run(4)
    assert census.wrong == []
    assert census.complete


def test_exhaust_random_walks() -> None:
    census = Search(free=4).wander(seed=1, walks=6, length=25)
    assert census.wrong == []
    assert census.states == 6
    assert census.accepted >= 150
    assert census.refused > 100


def test_exhaust_what_a_walk_finds_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS["free_checks_one_direction"](monkeypatch)
    census = Search(limit=1).wander(seed=3, walks=20, length=40)
    (wrong,) = census.wrong
    assert wrong.what == "wrongly accepted"
    assert len(wrong.calls) < 15  # of 39


def test_exhaust_stops_when_the_budget_is_used() -> None:
    census = Search().run(8, budget=0.2)
    assert not census.complete
    assert census.depth < 3


def test_exhaust_every_call_is_tried_and_most_are_accepted_somewhere() -> None:
    """A call that is always refused would test nothing."""
    ground, done, tried = Ground(), set(), set()
    states = [
        State.first(),
        after(add("a", 0, 0, NODE, 2), add("a", 2, 0, DATA, 3), ("narrow", "a", ("a", "rw"))),
        after(add("a", 0, 0, NODE, 2), ("sync", "a", ()), ("evict", "a", (2,))),
        after(
            add("a", 0, 0, HIDDEN, 2), ("hold", "a", (0,)), ("pin", "a", (0,)), ("lock", "a", (0,))
        ),
        after(add("b", 1, 0, DATA, 2), ("sync", "b", ()), ("evict", "b", (2,))),
    ]
    for state in states:
        for call in calls(state, ground.names):
            tried.add(call[0])
            if state.apply(call) is not None:
                done.add(call[0])
    assert tried - done == {"poke"}
    assert len(done) >= 20


def test_exhaust_states_that_differ_in_names_are_one() -> None:
    names = Ground().names
    one = after(add("a", 0, 0, NODE, 2), add("a", 2, 1, DATA, 3), ("write", "a", (3,)))
    other = after(add("b", 1, 1, NODE, 4), add("b", 4, 0, DATA, 2), ("write", "b", (2,)))
    third = after(add("b", 1, 1, NODE, 4), add("b", 4, 0, DATA, 2))
    assert canonical(one, names) == canonical(other, names) != canonical(third, names)


def test_exhaust_going_back_is_going_back() -> None:
    ground = Ground()
    state = State.first()
    before = Memento(ground)
    seen = ground.look(state)
    for call in (add("a", 0, 0, NODE, 2), add("a", 2, 0, DATA, 3), ("sync", "a", ())):
        assert ground.call(call)
    assert ground.look(state) != seen
    before.restore()
    assert ground.look(state) == seen
    assert ground.call(add("b", 1, 0, DATA, 2))


def test_spec_will_free_list() -> None:
    """R1: what a durable pointer may name is given to nobody."""
    free = "change", "a", ([(0, [(0, None)])], (), [(DATA, 2)])
    assert after(add("a", 0, 0, DATA, 2), free).free(2)
    kept = after(add("a", 0, 0, DATA, 2), ("sync", "a", ()), free)
    assert not kept.free(2)
    assert kept.apply(add("b", 1, 0, DATA, 2)) is None
    synced = kept.apply(("sync", "b", ()))
    assert synced is not None
    assert synced.free(2)


def test_spec_refuses_what_it_must() -> None:
    state = after(add("a", 0, 0, NODE, 2), add("a", 2, 0, DATA, 3))
    hostile: list[Call] = [
        ("read", "b", (3,)),
        ("change", "b", ([(1, [(0, (DATA, 3))])], [(DATA, 3)])),
        ("change", "b", ([(1, [(0, (DATA, 3))])], (), (), [(DATA, 3)])),
        ("change", "a", ([(0, [(0, None)])], (), [(NODE, 2)])),
        ("change", "a", ([(0, [(0, None), (1, (DATA, 3))])], (), [(NODE, 2)])),
        ("change", "a", ([(0, [(1, (NODE, 3))])], [(NODE, 3)])),
        ("revoke", "b", ("a",)),
    ]
    assert [call for call in hostile if state.apply(call) is not None] == []


def test_spec_shares_no_code_with_the_kernel() -> None:
    allowed = "__future__", "collections", "dataclasses", "typing", "xnfs_trials.attack.world"
    for module in (spec, world):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            assert not isinstance(node, ast.Import)
            if isinstance(node, ast.ImportFrom):
                assert str(node.module).startswith(allowed)
