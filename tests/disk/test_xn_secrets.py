"""A new owner of a block or a frame never reads what was in it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.disk.xn_kit import (
    CANARY,
    DATA,
    HIDDEN,
    Kit,
    extent,
    fill,
    image,
    slot,
)
from xnfs import (
    BLOCK,
    Caller,
    CapabilityError,
    NoFrames,
    NotCached,
    XnError,
)
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.errors import DeviceError


@pytest.fixture
def kit() -> Kit:
    return Kit()


def secrets(kit: Kit) -> None:
    """Frames full of a secret, free again; blocks on the disk hold the canary."""
    run = kit.data(kit.root, 90, b"SECRET", 60)
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 60))


def hides(raw: bytes | memoryview) -> bool:
    return b"SECRET" not in bytes(raw) and CANARY[:8] not in bytes(raw)


def test_secrets_new_metadata_is_zero(kit: Kit) -> None:
    secrets(kit)
    node = kit.node(kit.root, 0)
    assert kit.xn.read(kit.me, node, 0, BLOCK) == bytes(BLOCK)
    assert kit.xn.map(kit.me, node) == bytes(BLOCK)


def test_secrets_new_data_is_zero_by_read_map_and_on_the_disk(kit: Kit) -> None:
    secrets(kit)
    run = kit.add(kit.root, 0, DATA, 4)
    assert kit.xn.map(kit.me, run) == bytes(BLOCK)
    kit.xn.writeback(kit.me, [run, run + 1])
    kit.xn.write_raw(kit.me, run + 2, 100, b"new")
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 4))
    kit.xn.readin(kit.me, kit.root, 0, run, 4)
    want = bytearray(4 * BLOCK)
    want[2 * BLOCK + 100 : 2 * BLOCK + 103] = b"new"
    assert kit.xn.read(kit.me, run, 0, 4 * BLOCK) == want


def test_secrets_bound_but_unread_frames_show_nothing(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"mine", 3)
    secrets(kit)
    kit.xn.evict(kit.me, range(run, run + 3))
    kit.xn.bind(kit.me, kit.root, 0, run, 3)
    assert not kit.xn.cached(run)
    for call in (
        lambda: kit.xn.read(kit.me, run, 0, 1),
        lambda: kit.xn.map(kit.me, run),
        lambda: kit.xn.write_raw(kit.me, run, 1, b"part"),
    ):
        with pytest.raises(NotCached):
            call()
    kit.xn.writeback(kit.me, [run])
    kit.sync([run])
    kit.xn.readin(kit.me, kit.root, 0, run, 3)
    assert kit.xn.read(kit.me, run, 0, 3 * BLOCK) == fill(b"mine") * 3


def test_secrets_failed_readin_leaves_no_frame_with_old_bytes() -> None:
    kit = Kit(frames=8)
    run = kit.data(kit.root, 0, b"mine", 3)
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 3))
    others = kit.add(kit.root, 1, DATA, 4)
    kit.xn.bind(kit.me, kit.root, 0, run + 1, 1)
    assert kit.pool.available("xn") == 1
    with pytest.raises(NoFrames):
        kit.xn.readin(kit.me, kit.root, 0, run, 3)
    assert not any(kit.xn.cached(block) for block in range(run, run + 3))
    assert kit.pool.available("xn") == 1
    assert others


def test_secrets_readin_that_the_device_fails_leaves_nothing() -> None:
    device = FaultingDevice(image())
    kit = Kit(device)
    run = kit.data(kit.root, 0, b"mine", 3)
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 3))
    device.plant(Fault("read", "eio", block=run + 1))
    with pytest.raises(DeviceError):
        kit.xn.readin(kit.me, kit.root, 0, run, 3)
    assert not any(kit.xn.cached(block) for block in range(run, run + 3))
    assert kit.frames_used() == kit.xn.stats()["pages"]


def test_secrets_prefetch_shows_nothing(kit: Kit) -> None:
    kit.xn.prefetch(kit.me, 0, 128)
    assert not kit.xn.cached(kit.find())
    with pytest.raises(NotCached):
        kit.xn.read(kit.me, kit.find(), 0, BLOCK)


def test_secrets_retyped_blocks_are_zero(kit: Kit) -> None:
    secrets(kit)
    hidden = kit.add(kit.root, 0, HIDDEN, 3)
    kit.sync()
    for call in (
        lambda: kit.xn.readin(kit.me, kit.root, 0, hidden, 1),
        lambda: kit.xn.bind(kit.me, kit.root, 0, hidden, 1),
        lambda: kit.xn.read(kit.me, hidden, 0, 1),
        lambda: kit.xn.map(kit.me, hidden),
        lambda: kit.xn.write_raw(kit.me, hidden, 0, bytes(BLOCK)),
    ):
        with pytest.raises(XnError):
            call()
    kit.xn.change(
        kit.me,
        [(kit.root, [slot(0, DATA, hidden, 3)])],
        alloc=[extent(DATA, hidden, 3)],
        free=[extent(HIDDEN, hidden, 3)],
    )
    assert kit.xn.map(kit.me, hidden) == bytes(BLOCK)
    kit.sync()
    kit.xn.evict(kit.me, range(hidden, hidden + 3))
    kit.xn.readin(kit.me, kit.root, 0, hidden, 3)
    assert kit.xn.read(kit.me, hidden, 0, 3 * BLOCK) == bytes(3 * BLOCK)


def test_secrets_a_map_does_not_follow_its_frame_to_the_next_block(kit: Kit) -> None:
    mine = kit.data(kit.root, 0, b"mine")
    view = kit.xn.map(kit.me, mine)
    kit.sync()
    kit.xn.evict(kit.me, [mine])
    for i in range(1, 40):
        kit.data(kit.root, i, b"other")
    assert view == fill(b"mine")
    assert view.readonly


def test_secrets_what_was_lent_is_gone_when_the_call_returns(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"mine", 3)
    seen: list[memoryview] = []

    def look(views: Sequence[memoryview]) -> bytes:
        seen.extend(views)
        assert all(view.readonly for view in views)
        return b"".join(views)

    assert kit.xn.lend(kit.me, run, 100, 2 * BLOCK, look) == kit.xn.read(
        kit.me, run, 100, 2 * BLOCK
    )
    assert seen
    for view in seen:
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_secrets_lending_shows_no_more_than_reading(kit: Kit) -> None:
    secrets(kit)
    run = kit.add(kit.root, 0, DATA, 4)
    assert hides(kit.xn.lend(kit.me, run, 0, 4 * BLOCK, b"".join))
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 4))
    kit.xn.bind(kit.me, kit.root, 0, run, 4)

    def never(views: Sequence[memoryview]) -> None:
        pytest.fail("shown")

    for start, size in ((run, BLOCK), (run, 3 * BLOCK), (run + 4, BLOCK)):
        with pytest.raises(NotCached):
            kit.xn.lend(kit.me, start, 0, size, never)
    with pytest.raises(CapabilityError):
        kit.xn.lend(Caller(b"forged"), kit.root, 0, BLOCK, never)
    with pytest.raises(CapabilityError):
        kit.xn.lend(Caller(b"forged"), run, 0, 2 * BLOCK, never)
