"""Each system call but changes: what it does, and which error for each wrong use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.disk.xn_kit import (
    DATA,
    HIDDEN,
    NODE,
    NUMBER,
    RAW,
    SPECS,
    Kit,
    extent,
    fill,
    image,
    slot,
)
from xnfs import (
    BLOCK,
    AclRefused,
    Caller,
    CapabilityError,
    DeviceError,
    FileDevice,
    FramePool,
    NotCached,
    ReadOnly,
    Refused,
    TypeSpec,
    Xn,
    XnError,
    create_image,
)
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice


@pytest.fixture
def kit() -> Kit:
    return Kit()


# --- catalogues


def test_calls_install_type_is_idempotent(kit: Kit) -> None:
    for spec in SPECS:
        assert kit.xn.install_type(kit.admin, spec) == kit.xn.type_number(spec.name)
    with pytest.raises(Refused):
        kit.xn.install_type(kit.admin, replace(SPECS[0], flags=1))
    with pytest.raises(CapabilityError):
        kit.xn.install_type(kit.me, TypeSpec("t.new"))
    assert kit.xn.type_number("t.new") is None
    number = kit.xn.install_type(kit.admin, TypeSpec("t.new"))
    assert Kit(kit.device).xn.type_number("t.new") == number  # durable without a sync


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "\ud800"},
        {"stamp": 4},
        {"stamp": -8},
        {"stamp": 4088},
        {"stamp": 2**40},
        {"flags": 2},
        {"flags": -1},
        {"flags": 1},
        {"raw": (0, 4096)},
        {"raw": (2048, 4097)},
        {"raw": (-1, 10)},
        {"raw": (3000, 2000)},
        {"raw": (70, 71)},
        {"parts": ()},
        {"parts": ((64, 8, 16, 100),)},
        {"parts": ((4090, 16, 16, 1),)},
        {"parts": ((64, 16, 16, 2000),)},
        {"parts": ((64, 16, 16, -1),)},
        {"parts": ((2**70, 16, 16, 1),)},
        {"parts": ((64, 2**70, 16, 1),)},
        {"parts": ((0, 16, 16, 100),)},
        {"parts": ((80, 16, 16, 100),)},
        {"owns": ""},
        {"owns": "def owns(meta, part):\n    emit(0, 5, 1)\n"},
        {"owns": "\ud800"},
        {"owns": "x" * 20000},
        {"acl": "def acl(a):\n    return 0\n"},
        {"size": "def size(meta):\n    return 5000\n"},
        {"refs": ("a/b",)},
        {"refs": ("x",) * 65},
    ],
)
def test_calls_install_type_refuses(kit: Kit, change: dict[str, Any]) -> None:
    spec = replace(SPECS[2], **{"name": "t.bad", **change})
    with pytest.raises(XnError):
        kit.xn.install_type(kit.admin, spec)
    assert kit.xn.type_number("t.bad") is None


def test_calls_a_run_of_no_blocks_is_no_pointer(kit: Kit) -> None:
    """Also where the installation looks at what zeros own."""
    run = "u64(meta, 72 + part * 16), u32(meta, 68 + part * 16)"
    owns = f"def owns(meta, part):\n    emit(0, {run})\n"
    number = kit.xn.install_type(kit.admin, replace(SPECS[2], name="t.empty", owns=owns))
    info = kit.xn.install_root(kit.admin, "empty", number)
    kit.xn.update(Caller(info.cap), info.block, [(72, b"\1")])
    with pytest.raises(XnError):
        kit.xn.update(Caller(info.cap), info.block, [(68, b"\1")])


def test_calls_roots(kit: Kit) -> None:
    info = kit.xn.install_root(kit.admin, "other", NUMBER[NODE])
    assert [r.name for r in kit.xn.roots()] == ["main", "other"]
    with pytest.raises(Refused):
        kit.xn.install_root(kit.admin, "other", NUMBER[NODE])
    with pytest.raises(CapabilityError):
        kit.xn.install_root(kit.me, "third", NUMBER[NODE])
    with pytest.raises(Refused):
        kit.xn.mount_root(kit.admin, "third")
    again = kit.reopen()
    assert again.xn.mount_root(again.admin, "other").block == info.block
    again.xn.remove_root(again.admin, "other")
    with pytest.raises(Refused):
        again.xn.remove_root(again.admin, "other")
    assert [r.name for r in again.reopen().xn.roots()] == ["main"]


def test_calls_the_root_catalogue_fills_up() -> None:
    kit = Kit()
    for i in range(30):
        kit.xn.install_root(kit.admin, f"root {i}", NUMBER[NODE])
    with pytest.raises(XnError):
        kit.xn.install_root(kit.admin, "one more", NUMBER[NODE])
    assert len(kit.reopen().xn.roots()) == 31


# --- free space


def test_calls_free_space(kit: Kit) -> None:
    lo, hi = kit.xn.data_area
    assert kit.xn.find_free(0, 5) == (lo + 1, 5)
    assert kit.xn.find_free(lo + 50, 5) == (lo + 50, 5)
    start, n = kit.xn.find_free(0, 10**12)
    assert (start, n) == (lo + 1, hi - lo - 1)
    assert kit.xn.find_free(-(2**70), 1)[1] == 1
    assert kit.xn.find_free(2**70, 1)[1] == 1
    assert kit.xn.group_free(0) == kit.xn.free_blocks() == hi - lo - 1
    for count in (0, -1):
        with pytest.raises(Refused):
            kit.xn.find_free(0, count)
    for group in (-1, 1, 2**70):
        with pytest.raises(Refused):
            kit.xn.group_free(group)
    for block in (-1, 128, 2**70):
        with pytest.raises(Refused):
            kit.xn.refs(block)


# --- bytes


def test_calls_readin(kit: Kit) -> None:
    run = kit.data(kit.root, 7, b"x", 5)
    kit.sync()
    kit.xn.evict(kit.me, range(run, run + 5))
    for part, start, count in (
        (7, run, 6), (7, run - 1, 2), (7, run, 0), (7, run, -1), (8, run, 1), (-1, run, 1),
        (100, run, 1), (2**70, run, 1), (7, -1, 1), (7, 2**70, 1), (7, run, 2**70),
        (7, kit.root, 1),
    ):  # fmt: skip
        with pytest.raises(Refused):
            kit.xn.readin(kit.me, kit.root, part, start, count)
        with pytest.raises(Refused):
            kit.xn.bind(kit.me, kit.root, part, start, count)
    kit.xn.readin(kit.me, kit.root, 7, run + 1, 2)
    assert [kit.xn.cached(run + i) for i in range(5)] == [False, True, True, False, False]
    with pytest.raises(NotCached):
        kit.xn.read(kit.me, run, 0, 2 * BLOCK)
    kit.xn.readin(kit.me, kit.root, 7, run, 5)
    assert kit.xn.read(kit.me, run, 100, 4 * BLOCK) == (fill(b"x") * 5)[100 : 100 + 4 * BLOCK]
    node = kit.node(kit.root, 8)
    with pytest.raises(Refused):
        kit.xn.bind(kit.me, kit.root, 8, node, 1)
    with pytest.raises(Refused):  # data has no children
        kit.xn.readin(kit.me, run, 0, run, 1)


def test_calls_readin_all(kit: Kit) -> None:
    a, node = kit.data(kit.root, 3, b"a"), kit.node(kit.root, 4)
    b = kit.data(kit.root, 5, b"b", 2)
    below = kit.data(node, 0, b"below")
    kit.sync()
    kit.xn.evict(kit.me, [a, b, b + 1, below, node])
    assert not any(map(kit.xn.cached, (a, b, b + 1, below, node)))
    children = [(kit.root, part, x, 1) for part, x in ((5, b + 1), (3, a), (4, node), (5, b + 1))]
    kit.xn.readin_all(kit.me, iter(children))
    assert [kit.xn.cached(x) for x in (a, b, b + 1, node)] == [True, False, True, True]
    assert kit.xn.read(kit.me, a, 0, BLOCK) == fill(b"a")
    assert kit.xn.read(kit.me, b + 1, 0, BLOCK) == fill(b"b")
    assert list(kit.slots(node)) == [0]
    kit.xn.write_raw(kit.me, a, 0, b"newer than the disk")
    kit.xn.readin_all(kit.me, children)
    assert kit.xn.read(kit.me, a, 0, 19) == b"newer than the disk"
    kit.xn.readin_all(kit.me, [])


def test_calls_read_and_write(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"a", 3)
    kit.xn.write_raw(kit.me, run, BLOCK - 2, b"1234")
    assert kit.xn.read(kit.me, run, BLOCK - 3, 6) == b"a1234a"
    assert kit.xn.read(kit.me, run + 1, 0, 2) == b"34"
    kit.xn.write_raw(kit.me, run, 0, memoryview(bytearray(b"zz")))
    assert kit.xn.read(kit.me, run, 0, 3) == b"zza"
    for offset, size in ((0, 0), (0, -5), (-1, 5), (-(2**70), 1)):
        assert kit.xn.read(kit.me, run, offset, size) == b""
    for offset, size in ((3 * BLOCK, 1), (2 * BLOCK, BLOCK + 1), (2**70, 1), (0, 2**70)):
        with pytest.raises(NotCached):
            kit.xn.read(kit.me, run, offset, size)
    for offset in (3 * BLOCK, 3 * BLOCK - 1, 2**70):
        with pytest.raises(NotCached):
            kit.xn.write_raw(kit.me, run, offset, b"xx")
    for block in (-1, 0, 2**70, kit.find()):
        with pytest.raises(NotCached):
            kit.xn.write_raw(kit.me, block, 0, b"x")
        with pytest.raises(NotCached):
            kit.xn.map(kit.me, block)
    for junk in ("text", 5, [1, 2], None):
        with pytest.raises(XnError):
            kit.xn.write_raw(kit.me, run, 0, junk)  # type: ignore[arg-type]
    kit.xn.write_raw(kit.me, run, 0, memoryview(bytes(16)).cast("I"))
    assert kit.xn.read(kit.me, run, 0, 17) == bytes(16) + b"a"


def test_calls_write_raw_does_not_cross_from_data_to_metadata(kit: Kit) -> None:
    data = kit.data(kit.root, 0, b"a")
    node = kit.node(kit.root, 1)
    assert node == data + 1
    for start, offset, size in ((data, BLOCK - 1, 2), (node, BLOCK - 1, 2), (data, 0, 2 * BLOCK)):
        with pytest.raises(XnError):
            kit.xn.write_raw(kit.me, start, offset, b"x" * size)
    assert kit.xn.read(kit.me, node, 0, BLOCK) == bytes(BLOCK)


def test_calls_evict(kit: Kit) -> None:
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x")
    assert kit.xn.evict(kit.me, [node, data, kit.root, -1, 2**70]) == 0  # all dirty
    kit.sync()
    kit.xn.pin(kit.me, data)
    assert kit.xn.evict(kit.me, [node, data]) == 1
    kit.xn.unpin(kit.me, data)
    with pytest.raises(Refused):
        kit.xn.unpin(kit.me, data)
    kit.xn.unbind(kit.me, data)
    assert not kit.xn.cached(data)
    for call in (kit.xn.pin, kit.xn.lock, kit.xn.unpin, kit.xn.unlock, kit.xn.hold):
        with pytest.raises(NotCached):
            call(kit.me, data)
    with pytest.raises(Refused):
        kit.xn.unlock(kit.me, kit.root)


def test_calls_prefetch(kit: Kit) -> None:
    for start, count in ((0, 128), (127, 1), (128, 0), (0, 0)):
        kit.xn.prefetch(kit.me, start, count)
        kit.xn.prefetch(kit.me, start, count, wait=False)
    for start, count in ((0, 129), (-1, 1), (0, -1), (128, 1), (2**70, 1), (0, 2**70), (5, 1025)):
        for wait in (False, True):
            with pytest.raises(Refused):
                kit.xn.prefetch(kit.me, start, count, wait=wait)


def test_calls_prefetch_tells_a_device_that_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(FileDevice, "will_need", lambda _self, *run: told.append(run))
    path = str(tmp_path / "image")
    create_image(path, 128 * BLOCK)
    device = FileDevice(path)
    source = image()
    for block in range(128):
        raw = bytearray(BLOCK)
        source.read(block, [memoryview(raw)])
        device.write(block, [bytes(raw)])
    kit = Kit(device)
    kit.xn.prefetch(kit.me, 5, 40, wait=False)
    kit.xn.prefetch(kit.me, 60, 3)
    assert told == [(5, 40)]
    kit.xn.close()


def test_calls_prefetch_without_waiting_reads_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        type(kit.device), "will_need", lambda _d, *run: told.append(run), raising=False
    )
    monkeypatch.setattr(kit.device, "read", lambda *_: pytest.fail("read"))
    kit.xn.prefetch(kit.me, 3, 5, wait=False)
    assert told == [(3, 5)]


def test_calls_sync_and_writeback_ignore_what_is_not_there(kit: Kit) -> None:
    junk = [-1, 0, 5, 127, 128, 2**70]
    kit.sync(junk)
    kit.xn.writeback(kit.me, junk)
    assert kit.xn.evict(kit.me, junk) == 0
    nobody = Caller(b"")
    data = kit.data(kit.root, 0, b"x")
    kit.xn.writeback(nobody, [data])  # a syncer needs no rights
    kit.xn.sync(nobody)
    assert kit.xn.dirty_count() == (0, 0)


def test_calls_registered_tells_how_durable(kit: Kit) -> None:
    node = kit.node(kit.root, 0)
    seen = kit.xn.registered(node)
    assert seen is not None
    assert (seen.persistence, seen.fresh, seen.parent) == ("volatile", True, kit.root)
    kit.sync()
    assert (seen := kit.xn.registered(node)) is not None
    assert seen.persistence == "persistent"
    kit.xn.write_raw(kit.me, node, RAW[0], b"x")
    assert (seen := kit.xn.registered(node)) is not None
    assert (seen.persistence, seen.dirty) == ("reachable", True)
    assert kit.xn.registered(-1) is None


# --- acl


ACL = """
def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):
    if op == 0:
        return 13 if mask & 2 and uid != 0 else 0
    if op == 3:
        return 1 if u8(old, 100) == 7 else 0
    if uid != 0 and uid not in groups:
        return 13
    return 28 if u8(new, 101) == 28 else 0
"""


def test_calls_acl() -> None:
    device = image()
    kit = Kit(device)
    number = kit.xn.install_type(kit.admin, TypeSpec("t.acl", acl=ACL, stamp=0))
    info = kit.xn.install_root(kit.admin, "acl", number)
    xn, me = kit.xn, Caller(info.cap)
    xn.update(me, info.block, [(102, b"x")])
    with pytest.raises(AclRefused) as e:
        xn.update(me, info.block, [(101, b"\x1c")])
    assert (e.value.errno, e.value.block) == (28, info.block)
    assert xn.read(me, info.block, 101, 1) == b"\0"
    with pytest.raises(AclRefused):
        xn.update(replace(me, uid=5), info.block, [(102, b"y")])
    xn.update(replace(me, uid=5, groups=(7, 5)), info.block, [(102, b"y")])
    xn.access(replace(me, uid=5), info.block, 5)
    with pytest.raises(AclRefused):
        xn.access(replace(me, uid=5), info.block, 2)
    for groups in ((-1,), (2**70,), tuple(range(1000, 2000))):
        for uid in (-1, 2**70 + 9):
            with pytest.raises(AclRefused):
                xn.update(replace(me, uid=uid, groups=groups), info.block, [(102, b"y")])


def test_calls_access_masks(kit: Kit) -> None:
    for mask in (0, 7, 8, -1, 2**70):
        kit.xn.access(kit.me, kit.root, mask)
    with pytest.raises(NotCached):
        kit.xn.access(kit.me, kit.root, 4, witness=-1)


# --- read-only, closed


def test_calls_read_only() -> None:
    kit = Kit()
    data = kit.data(kit.root, 0, b"x")
    kit.xn.close()
    before = kit.device.fork()  # type: ignore[attr-defined]
    xn = Xn(kit.device, frames=FramePool(16), readonly=True)
    admin = Caller(xn.admin)
    me = Caller(xn.mount_root(admin, "main").cap)
    xn.readin(me, kit.root, 0, data, 1)
    assert xn.read(me, data, 0, 1) == b"x"
    for call in (
        lambda: xn.write_raw(me, data, 0, b"y"),
        lambda: xn.free(me, kit.root, [slot(0)], [extent(DATA, data)]),
        lambda: xn.install_type(admin, TypeSpec("t.new")),
        lambda: xn.install_root(admin, "x", NUMBER[NODE]),
        lambda: xn.remove_root(admin, "main"),
        lambda: xn.collect(admin),
    ):
        with pytest.raises(ReadOnly):
            call()
    xn.sync(me)
    xn.writeback(me, [data])
    xn.close()
    assert kit.device._contents == before._contents  # type: ignore[attr-defined]


def test_calls_after_close(kit: Kit) -> None:
    kit.xn.close()
    kit.xn.close()
    for call in (
        lambda: kit.xn.read(kit.me, kit.root, 0, 1),
        lambda: kit.xn.update(kit.me, kit.root, [(16, b"x")]),
        lambda: kit.xn.write_raw(kit.me, kit.root, RAW[0], b"x"),
        lambda: kit.xn.collect(kit.admin),
    ):
        with pytest.raises(XnError):
            call()
    assert kit.frames_used() == 0


@pytest.mark.parametrize("kind", [DATA, HIDDEN])
def test_calls_refs_of_a_run_that_waits_for_a_commit(kit: Kit, kind: int) -> None:
    """No pointer in memory names it any more, though it is not free (R1)."""
    start = kit.add(kit.root, 0, kind, 3)
    assert [kit.xn.refs(start + i) for i in range(3)] == [1, 1, 1]
    kit.sync()
    kit.free(kit.root, 0)
    assert [kit.xn.refs(start + i) for i in range(3)] == [0, 0, 0]
    assert kit.find() == start + 3
    kit.sync()
    assert [kit.xn.refs(start + i) for i in range(3)] == [0, 0, 0]
    assert kit.find() == start


# --- many children in one call


def test_calls_readin_all_is_one_request_for_neighbours() -> None:
    device = CountingDevice(image())
    kit = Kit(device)
    nodes = [kit.node(kit.root, index) for index in range(3)]
    data = [kit.data(node, 0, b"%d" % index, 2) for index, node in enumerate(nodes)]
    kit.sync()
    kit.xn.evict(kit.me, [*nodes, *(b + i for b in data for i in range(2))])
    assert data == [data[0], data[0] + 2, data[0] + 4]
    before = device.counts.reads
    kit.xn.readin_all(kit.me, [(kit.root, index, node, 1) for index, node in enumerate(nodes)])
    assert device.counts.reads == before + 1
    wanted = [(node, 0, start, 2) for node, start in zip(nodes, data, strict=True)]
    kit.xn.readin_all(kit.me, wanted[::-1])
    assert device.counts.reads == before + 2
    for index, start in enumerate(data):
        assert kit.xn.read(kit.me, start, 0, 2 * BLOCK) == fill(b"%d" % index) * 2
        known = kit.xn.registered(start)
        assert known is not None
        assert (known.parent, known.type) == (nodes[index], NUMBER[DATA])
    kit.xn.readin_all(kit.me, wanted)  # nothing is missing
    assert device.counts.reads == before + 2


def test_calls_readin_all_is_all_or_none() -> None:
    kit = Kit()
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"text", 4)
    hidden = kit.add(kit.root, 1, HIDDEN)
    kit.sync()
    kit.xn.evict(kit.me, range(data, data + 4))
    free = kit.pool.free_frames
    good = (node, 0, data, 2)
    for bad in (
        (node, 1, data, 1),
        (node, 0, data + 3, 2),
        (kit.root, 1, hidden, 1),
        (kit.root, 0, data, 1),
        (data, 0, data, 1),
        (node, 0, data, 0),
        (node, -1, data, 1),
        (node, 0, 2**70, 1),
    ):
        with pytest.raises((Refused, NotCached)):
            kit.xn.readin_all(kit.me, [good, bad])
        assert not kit.xn.cached(data)
        assert kit.pool.free_frames == free
    for junk in ([3], [(3,)], [("x", 0, data, 1)], 7):
        with pytest.raises(Refused):
            kit.xn.readin_all(kit.me, junk)  # type: ignore[arg-type]
    with pytest.raises(CapabilityError):
        kit.xn.readin_all(Caller(b"forged"), [good])


def test_calls_readin_all_that_the_device_fails_leaves_nothing() -> None:
    device = FaultingDevice(image())
    kit = Kit(device)
    first = kit.data(kit.root, 0, b"first")
    gap = kit.data(kit.root, 1, b"gap")
    last = kit.data(kit.root, 2, b"last")
    kit.sync()
    kit.xn.evict(kit.me, [first, last])
    assert gap == first + 1
    free = kit.pool.free_frames
    device.plant(Fault("read", "eio", block=last))
    with pytest.raises(DeviceError):
        kit.xn.readin_all(kit.me, [(kit.root, 0, first, 1), (kit.root, 2, last, 1)])
    assert not kit.xn.cached(first)
    assert kit.pool.free_frames == free


def test_calls_over_more_blocks_than_are_cached_end_at_the_first_gap() -> None:
    """However long the run is that a caller names, it is not walked."""
    kit = Kit()
    data = kit.data(kit.root, 0, b"x", 2)
    for size in (3 * BLOCK, 1 << 60):
        with pytest.raises(NotCached, match=f"block {data + 2} "):
            kit.xn.read(kit.me, data, 0, size)
