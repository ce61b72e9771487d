"""Page frames: one owner each, quotas, and neighbours for what is asked for at once."""

from __future__ import annotations

import sys
from collections.abc import Hashable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xnfs.capability import ALLOC, Capabilities
from xnfs.disk.records import BLOCK
from xnfs.errors import CapabilityError, NoFrames, NotFree, Refused
from xnfs.memory.frames import FRAME, FramePool


def test_frames_hold_one_block_each() -> None:
    assert FRAME == BLOCK


def test_frames_come_in_a_row() -> None:
    pool = FramePool(64)
    assert pool.alloc("a", 10) == list(range(10))
    assert pool.alloc("b") == [10]
    pool.free(list(range(3, 7)))
    assert pool.alloc("a", 5) == list(range(11, 16))
    assert (pool.used("a"), pool.used("b"), pool.free_frames) == (11, 1, 52)


def test_frames_freed_gap_is_found_again() -> None:
    pool = FramePool(64)
    pool.alloc("a", 64)
    pool.free([20, 21, 22, 23])
    assert pool.alloc("a", 3) == [20, 21, 22]
    pool.free([5, 50])
    assert pool.alloc("a", 3) == [5, 23, 50]
    with pytest.raises(NoFrames):
        pool.alloc("a")
    # In a full pool the first frame freed is where the next search begins.
    pool.free([4])
    pool.free([50])
    assert (pool.alloc("a"), pool.alloc("a")) == ([4], [50])


def test_frames_all_or_none() -> None:
    pool = FramePool(8)
    pool.alloc("a", 6)
    with pytest.raises(NoFrames, match="3 frames wanted, 2 available"):
        pool.alloc("a", 3)
    assert (pool.used("a"), pool.free_frames) == (6, 2)
    for n in (0, -1):
        with pytest.raises(Refused):
            pool.alloc("a", n)
    with pytest.raises(Refused):
        pool.alloc(None)
    with pytest.raises(Refused):
        FramePool(0)


def test_frames_quota_binds_one_owner_only() -> None:
    pool = FramePool(8)
    pool.set_quota("a", 3)
    assert (pool.available("a"), pool.available("b")) == (3, 8)
    held = pool.alloc("a", 2)
    with pytest.raises(NoFrames):
        pool.alloc("a", 2)
    pool.alloc("b", 5)
    assert pool.available("a") == 1
    pool.set_quota("a", 1)
    assert (pool.available("a"), pool.used("a")) == (0, 2)
    pool.free(held)
    assert pool.alloc("a") == [7]
    pool.set_quota("a", None)
    assert pool.available("a") == 2


def test_frames_by_number() -> None:
    pool = FramePool(8)
    pool.set_quota("a", 2)
    pool.take("a", 5)
    assert (pool.owner(5), pool.used("a"), pool.free_frames) == ("a", 1, 7)
    with pytest.raises(NotFree):
        pool.take("b", 5)
    for owner, frame in (("a", -1), ("a", 8), (None, 0)):
        with pytest.raises(Refused):
            pool.take(owner, frame)
    pool.take("a", 0)
    with pytest.raises(NoFrames):
        pool.take("a", 1)
    assert pool.alloc("b", 6) == [1, 2, 3, 4, 6, 7]
    assert bytes(pool.taken()) == b"\1" * 8
    pool.free([5])
    assert bytes(pool.taken()) == b"\1\1\1\1\1\0\1\1"
    with pytest.raises(TypeError):
        pool.taken()[5] = 1


def test_frames_words_are_the_same_memory() -> None:
    pool = FramePool(2)
    pool.alloc("a", 2)
    pool.words()[512] = 1
    assert bytes(pool.view(1)[:8]) == (1).to_bytes(8, sys.byteorder)


def test_frames_double_and_foreign_free_change_nothing() -> None:
    pool = FramePool(8)
    mine, other = pool.alloc("a", 2), pool.alloc("b", 2)
    for frames, owner in (
        *(([0, 0], None), ([0, 5], None), ([0, -1], None), ([0, 8], None)),
        *(([0, 2], "a"), (other, "a"), (mine, "b")),
    ):
        with pytest.raises(Refused):
            pool.free(frames, owner)
    assert (pool.used("a"), pool.used("b"), pool.free_frames) == (2, 2, 4)
    pool.free(mine, "a")
    with pytest.raises(Refused, match="frame 0 has no owner"):
        pool.free([0])
    pool.free([])
    assert [pool.owner(frame) for frame in (0, 2)] == [None, "b"]
    for frame in (-1, 8):
        with pytest.raises(Refused):
            pool.owner(frame)


def test_frames_check_is_asked_first() -> None:
    caps = Capabilities(b"secret")
    token = caps.mint(("memory",), ALLOC, "a")

    def check(owner: Hashable) -> None:
        if not isinstance(owner, bytes):
            raise CapabilityError("no token")
        caps.check(owner, ("memory",), ALLOC)

    pool = FramePool(8, check)
    pool.alloc(token, 2)
    caps.revoke(token)
    for owner in (token, b"forged", "a"):
        with pytest.raises(CapabilityError):
            pool.alloc(owner)
    assert pool.free_frames == 6
    pool.free([0, 1])


def test_frames_views_are_the_same_memory() -> None:
    pool = FramePool(8)
    frames = pool.alloc("a", 3)
    run = pool.view_run(frames[0], 3)
    assert (run.nbytes, run.readonly) == (3 * FRAME, False)
    pool.view(1)[:] = b"\x11" * FRAME
    assert bytes(run) == bytes(FRAME) + b"\x11" * FRAME + bytes(FRAME)
    assert pool.view(1) is pool.view(1)
    pool.free([1])
    with pytest.raises(Refused):
        pool.view(1)
    with pytest.raises(Refused):
        pool.view_run(0, 3)
    for frame in (-1, 8, 5):
        with pytest.raises(Refused):
            pool.view(frame)
    for first, n in ((-1, 2), (0, 0), (0, -1), (6, 3), (2**40, 1)):
        with pytest.raises(Refused):
            pool.view_run(first, n)


def test_frames_views_of_several_are_those_of_each() -> None:
    pool = FramePool(8)
    first = pool.alloc("a", 3)
    assert all(v is pool.view(frame) for v, frame in zip(pool.views([2, 0]), [2, 0], strict=True))
    pool.free([1])
    for frames in ([0, 1], [-1], [8], [5]):
        with pytest.raises(Refused):
            pool.views(frames)
    assert pool.views([]) == []
    assert first == [0, 1, 2]


def test_frames_owners_are_counted_apart() -> None:
    pool = FramePool(8)
    a, b = pool.alloc("a", 3), pool.alloc("b", 2)
    pool.free([a[0], b[1], a[2]])
    assert (pool.used("a"), pool.used("b"), pool.free_frames) == (1, 1, 6)
    pool.free([b[0], a[1]])
    assert (pool.used("a"), pool.used("b"), pool.free_frames) == (0, 0, 8)


def test_frames_large_pool_costs_nothing_until_touched() -> None:
    pool = FramePool(1 << 22)  # 16 GiB of addresses
    assert pool.alloc("a", 3) == [0, 1, 2]
    assert bytes(pool.view(2)) == bytes(FRAME)


class FramesMachine(RuleBasedStateMachine):
    """Random calls against a dict of owners."""

    owners = st.sampled_from(["a", "b", "c"])

    @initialize()
    def start(self) -> None:
        self.pool = FramePool(40)
        self.pool.set_quota("c", 10)
        self.model: dict[int, str] = {}

    def _held(self, owner: str) -> list[int]:
        return [frame for frame, o in self.model.items() if o == owner]

    @rule(owner=owners, n=st.integers(1, 12))
    def alloc(self, owner: str, n: int) -> None:
        room = 40 - len(self.model)
        if owner == "c":
            room = min(room, 10 - len(self._held("c")))
        if n > room:
            with pytest.raises(NoFrames):
                self.pool.alloc(owner, n)
            return
        frames = self.pool.alloc(owner, n)
        assert len(frames) == n
        assert frames == sorted(set(frames) - self.model.keys())
        free = [frame in self.model for frame in range(40)]
        gap = any(not any(free[i : i + n]) for i in range(40 - n + 1))
        assert not gap or frames[-1] - frames[0] == n - 1
        self.model.update(dict.fromkeys(frames, owner))

    @rule(owner=owners, frame=st.integers(0, 39))
    def take(self, owner: str, frame: int) -> None:
        full = owner == "c" and len(self._held("c")) == 10
        if frame in self.model or full:
            with pytest.raises(NotFree if frame in self.model else NoFrames):
                self.pool.take(owner, frame)
        else:
            self.pool.take(owner, frame)
            self.model[frame] = owner

    @rule(owner=owners, data=st.data())
    def free(self, owner: str, data: st.DataObject) -> None:
        held = self._held(owner)
        if held:
            frames = data.draw(st.lists(st.sampled_from(held), unique=True))
            self.pool.free(frames, owner)
            for frame in frames:
                del self.model[frame]

    @rule(frames=st.lists(st.integers(-2, 42), max_size=4), owner=owners | st.none())
    def free_wild(self, frames: list[int], owner: str | None) -> None:
        if len(set(frames)) == len(frames) and all(
            frame in self.model and owner in (None, self.model[frame]) for frame in frames
        ):
            self.pool.free(frames, owner)
            for frame in frames:
                del self.model[frame]
        else:
            with pytest.raises(Refused):
                self.pool.free(frames, owner)

    @invariant()
    def agrees(self) -> None:
        assert self.pool.free_frames == 40 - len(self.model)
        assert all(self.pool.owner(frame) == self.model.get(frame) for frame in range(40))
        assert all(self.pool.used(o) == len(self._held(o)) for o in ("a", "b", "c"))


TestFramesMachine = FramesMachine.TestCase
