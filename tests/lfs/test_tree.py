"""The map of an inode, against a dictionary."""

from __future__ import annotations

from array import array
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from libfs.lfs import format as f
from libfs.lfs.tree import Tree

#: Around the ends of the record, of a node, and of what a level can name.
PLACES: Final = st.one_of(
    st.integers(0, 40),
    st.integers(f.FAN - 3, f.FAN + 3),
    st.integers(f.TOPS * f.FAN - 3, f.TOPS * f.FAN + 3),
)


class NoStore:
    """Nothing was written, so nothing is read."""

    def node(self, ino: int, level: int, index: int, address: int) -> array[int]:
        """Never."""
        raise AssertionError

    def died(self, address: int, size: int) -> None:
        """Never."""
        raise AssertionError


@given(st.lists(st.tuples(PLACES, st.integers(1, 600), st.integers(3, 1 << 60))))
def test_tree_runs_are_put_and_seen_as_one_by_one(steps: list[tuple[int, int, int]]) -> None:
    tree, model = Tree(NoStore(), 1), dict[int, int]()
    for i, count, value in steps:
        values = range(value, value + count)
        assert tree.put(i, values) == [model.get(at, 0) for at in range(i, i + count)]
        model.update(zip(range(i, i + count), values, strict=True))
        lo, hi = max(i - 5, 0), i + count + 5
        want = [model.get(at, 0) for at in range(lo, hi)]
        assert list(tree.values(lo, hi)) == want
        assert list(tree.items(lo, hi)) == [(at, v) for at, v in enumerate(want, lo) if v]
        assert tree.values(i, i + 1) == [value]
    assert dict(tree.items()) == model
