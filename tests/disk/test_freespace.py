"""The search for free blocks, against one that looks at each."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.disk.tables_kit import (
    BLOCKS,
    SEED,
    G,
    fresh,
    new_disk,
)
from xnfs.disk import freespace
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import Tables
from xnfs.errors import Refused


def test_find_free_first_fit_from_the_hint_and_around() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    assert tables.find_free(start, 10) == (start, 10)
    assert tables.find_free(5000, 10) == (5000, 10)
    for hint in (0, -9, end, 2**64):
        assert tables.find_free(hint, 3) == (start, 3)
    assert tables.find_free(end - 2, 10) == (start, 10)
    tables.raise_run(start, 5)
    assert tables.find_free(end - 1, 10) == (start + 5, 10)


def test_find_free_run_that_begins_before_the_hint() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    for count in (10, 100):
        tables.lower_run(5000, count)
        assert tables.find_free(5000 + count // 2, count) == (5000, count)
        tables.raise_run(5000, count)


def test_find_free_never_runs_over_the_end() -> None:
    disk = new_disk(BLOCKS + 1)  # so that the data end between two bytes of the map
    g = read_superblock_untrusted(disk).geometry
    tables, start, end = Tables.load(disk, g, SEED), g.data_start, g.data_end
    tables.raise_run(start, end - start)
    tables.lower_one(start)
    tables.lower_run(end - 64, 64)
    for count in (65, 71, 72):
        assert tables.find_free(start, count) == (end - 64, 64)
    assert tables.find_free(start, 60) == (end - 64, 60)


def test_find_free_longest_when_none_fits_and_none_when_full() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    assert tables.find_free(start, 1)[1] == tables.find_free(start, 1000)[1] == 0
    for lo, count in ((3000, 3), (4000, 50), (6000, 20)):
        tables.lower_run(lo, count)
    assert tables.find_free(start, 1000) == (4000, 50)
    assert tables.find_free(4500, 51) == (4000, 50)
    assert tables.find_free(start, 2**60) == (4000, 50)
    for bad in (0, -1):
        with pytest.raises(Refused):
            tables.find_free(start, bad)


def test_find_free_gives_up_after_many_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freespace, "SEARCH_RUNS", 100)
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    for block in range(start, start + 400, 2):
        tables.lower_one(block)
    tables.lower_run(start + 600, 2)
    assert tables.find_free(start, 2) == (start, 1)
    assert tables.find_free(start + 300, 2) == (start + 600, 2)


def _first_fit(free: list[bool], hint: int, count: int) -> tuple[int, int]:
    """What `find_free` promises, the slow way."""
    lo, hi = G.data_start, G.data_end
    hint = hint if lo <= hint < hi else lo
    best = (hint, 0)
    for a, b in ((hint, hi), (lo, min(hint + count - 1, hi))):
        at = a
        while at < b:
            end = at
            while end < b and free[end] and end - at < count:
                end += 1
            if end - at > best[1]:
                best = (at, end - at)
                if best[1] == count:
                    return best
            at = end + 1 if end == at else end
    return best


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    density=st.sampled_from([1, 3, 30, 300]),
    hint=st.integers(0, BLOCKS),
    count=st.sampled_from([1, 2, 7, 31, 32, 33, 40, 64, 100, 1000]),
)
def test_find_free_agrees_with_a_slow_search(
    seed: int, density: int, hint: int, count: int
) -> None:
    rng, tables = random.Random(seed), fresh()
    at = G.data_start
    while at < G.data_end:
        used = min(rng.randint(1, 3 * density), G.data_end - at)
        tables.raise_run(at, used)
        at += used + rng.randint(1, 2 * density)
    free = [tables.total(block) == 0 for block in range(BLOCKS)]
    assert tables.find_free(hint, count) == _first_fit(free, hint, count)
