"""Four page tables, one behaviour; what they look at and take is what tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.space import Space
from libos.tables import ABSENT, Hashed, Hierarchical, Inverted, Linear, PageTable
from tests.machine.kit import run
from xnfs import Boot, Program, calls

FRAMES = 64
KINDS: dict[str, Callable[[], PageTable]] = {
    "linear": Linear,
    "hierarchical": Hierarchical,
    "inverted": lambda: Inverted(FRAMES),
    "hashed": Hashed,
}
pages = st.integers(0, 40) | st.integers(0, 5000)
steps = st.lists(st.tuples(st.booleans(), pages), max_size=60)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=steps)
def test_tables_are_mappings(kind: str, steps: list[tuple[bool, int]]) -> None:
    table = KINDS[kind]()
    model: dict[int, int] = {}
    for enter, page in steps:
        free = [frame for frame in range(FRAMES) if frame not in model.values()]
        if enter and free:
            model[page] = free[0]
            table.set(page, free[0])
        else:
            model.pop(page, None)
            table.remove(page)
        assert table.pages() == sorted(model)
        for known in {page, *model}:
            frame, looks = table.find(known)
            assert frame == model.get(known, ABSENT)
            assert looks >= 1


def test_tables_differ_in_what_they_take() -> None:
    sparse = [i * 4093 for i in range(50)]
    dense = list(range(50))
    words: dict[str, tuple[int, int]] = {}
    for kind, make in KINDS.items():
        taken = []
        for used in (dense, sparse):
            table = make()
            for frame, page in enumerate(used):
                table.set(page, frame)
            taken.append(table.words)
        words[kind] = taken[0], taken[1]
    assert words["linear"] == (50, 49 * 4093 + 1)
    assert words["hierarchical"] == (512 * 4, 512 * 53)
    assert words["inverted"] == (3 * FRAMES, 3 * FRAMES)
    assert words["hashed"] == (512, 512)


def test_tables_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(MemoryError):
        Linear().set(Linear.LIMIT, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_serve_an_address_space(kind: str) -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        yield from Space(me, KINDS[kind]()).start()
        used = [i * 97 for i in range(50)]
        for page in used:
            yield (calls.STORE, page << 12, page)
        for page in used:
            yield (calls.UNBIND, page)
        for page in used:
            notes.append((yield (calls.LOAD, page << 12)) == page)

    machine, (notes,) = run(body, frames=FRAMES)
    assert notes == [True] * 50
    assert machine.counters()["tlb_exceptions"] == 100
