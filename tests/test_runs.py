"""Numbers in runs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from xnfs.runs import runs


@given(st.sets(st.integers(0, 60)), st.integers(1, 70))
def test_runs_are_the_numbers_again(numbers: set[int], limit: int) -> None:
    found = runs(numbers, limit)
    assert [n for first, count in found for n in range(first, first + count)] == sorted(numbers)
    assert all(1 <= count <= limit for _first, count in found)
    for (first, count), (after, _count) in pairwise(found):
        assert first + count < after or count == limit


def test_runs_of_a_large_set_with_gaps() -> None:
    numbers = set(range(10_000)) - {17, 5000, 5001} | {20_000}
    assert runs(numbers, 1 << 20) == [(0, 17), (18, 4982), (5002, 4998), (20_000, 1)]
