"""The check of ownership: its holes in the published XN and elsewhere, each one closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.disk.xn_kit import (
    DATA,
    HIDDEN,
    NODE,
    NUMBER,
    RAW,
    Kit,
    extent,
    image,
    slot,
)
from xnfs import (
    ALLOC,
    BLOCK,
    READ,
    WRITE,
    Caller,
    Diff,
    MemoryDevice,
    NoSpace,
    NotCached,
    NotEmpty,
    NotFree,
    Refused,
    TypeSpec,
    UnknownType,
    XnError,
)
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.errors import DeviceError


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_ownership_free_that_installs_a_pointer(kit: Kit) -> None:
    mine = kit.node(kit.root, 0)
    other = kit.node(kit.root, 1)
    data = kit.data(other, 0, b"x")
    with pytest.raises(Refused):
        kit.xn.free(kit.me, kit.root, [slot(0), slot(2, DATA, data)], [extent(NODE, mine)])
    with pytest.raises(Refused):
        kit.xn.free(kit.me, kit.root, [slot(0, DATA, data)], [extent(NODE, mine)])
    assert kit.slots(kit.root) == {0: (NODE, mine, 1), 1: (NODE, other, 1)}
    assert kit.xn.refs(data) == 1


def test_ownership_claim_of_an_existing_block_under_another_type(kit: Kit) -> None:
    data = kit.data(kit.root, 0, b"x")
    diff, claim = [slot(1, NODE, data)], [extent(NODE, data)]
    with pytest.raises(NotFree):
        kit.xn.change(kit.me, [(kit.root, diff)], alloc=claim)
    with pytest.raises(Refused):
        kit.xn.change(kit.me, [(kit.root, diff)], share=claim)
    with pytest.raises(NotFree):  # only unreadable blocks change their type
        kit.xn.change(
            kit.me,
            [(kit.root, [slot(0, NODE, data)])],
            alloc=[extent(NODE, data)],
            free=[extent(DATA, data)],
        )
    hidden = kit.add(kit.root, 2, HIDDEN)
    with pytest.raises(NotFree):  # and never to metadata
        kit.xn.change(
            kit.me,
            [(kit.root, [slot(2, NODE, hidden)])],
            alloc=[extent(NODE, hidden)],
            free=[extent(HIDDEN, hidden)],
        )


def test_ownership_diff_that_reaches_another_partition_counts_there_too(kit: Kit) -> None:
    data = kit.data(kit.root, 1, b"x")
    new = kit.find()
    both = slot(0, DATA, new)[1] + bytes(16)  # installs in slot 0 and drops slot 1
    with pytest.raises(Refused):
        kit.xn.alloc(kit.me, kit.root, [(slot(0)[0], both)], [extent(DATA, new)])
    kit.xn.change(
        kit.me,
        [(kit.root, [(slot(0)[0], both)])],
        alloc=[extent(DATA, new)],
        free=[extent(DATA, data)],
    )
    assert kit.slots(kit.root) == {0: (DATA, new, 1)}


def test_ownership_diff_one_byte_into_a_neighbour_partition(kit: Kit) -> None:
    kit.data(kit.root, 1, b"x")
    at, raw = slot(0)
    with pytest.raises(Refused):
        kit.xn.update(kit.me, kit.root, [(at, raw + b"\0")])


def test_ownership_raw_range_ends_before_its_end(kit: Kit) -> None:
    lo, hi = RAW
    kit.xn.write_raw(kit.me, kit.root, lo, b"a")
    kit.xn.write_raw(kit.me, kit.root, hi - 1, b"b")
    kit.xn.write_raw(kit.me, kit.root, lo, bytes(hi - lo))
    for offset, size in ((lo - 1, 1), (lo - 1, 2), (hi - 1, 2), (hi, 1), (0, 1), (64, 16)):
        with pytest.raises(XnError):
            kit.xn.write_raw(kit.me, kit.root, offset, b"c" * size)


def test_ownership_stamp_is_the_kernels(kit: Kit) -> None:
    for diff in ([(0, b"x")], [(15, b"x")], [(15, b"xy")], [(8, bytes(100))]):
        with pytest.raises(Refused):
            kit.xn.update(kit.me, kit.root, diff)
    kit.xn.update(kit.me, kit.root, [(16, b"x")])


def test_ownership_a_diff_that_is_different_when_looked_at_again(kit: Kit) -> None:
    """A generator yields once: the check must not see bytes that the effect does not."""
    start = kit.find()

    def once() -> Iterator[tuple[int, bytes]]:
        yield slot(0, DATA, start)

    diff: Diff = once()  # type: ignore[assignment]
    kit.xn.alloc(kit.me, kit.root, diff, [extent(DATA, start)])
    assert kit.slots(kit.root) == {0: (DATA, start, 1)}


def test_ownership_overlapping_diffs_count_as_their_result(kit: Kit) -> None:
    start = kit.find()
    with pytest.raises(Refused):
        kit.xn.alloc(kit.me, kit.root, [slot(0, DATA, start), slot(0)], [extent(DATA, start)])
    kit.xn.alloc(kit.me, kit.root, [slot(0), slot(0, DATA, start)], [extent(DATA, start)])
    assert kit.slots(kit.root) == {0: (DATA, start, 1)}


def test_ownership_free_of_a_block_that_owns_blocks_by_way_of_another(kit: Kit) -> None:
    node = kit.node(kit.root, 0)
    kit.data(node, 0, b"x")
    with pytest.raises(NotEmpty):
        kit.free(kit.root, 0)
    kit.sync()
    kit.xn.evict(kit.me, [node])
    with pytest.raises(NotCached):  # nobody knows what it owns
        kit.free(kit.root, 0)


# --- counts


def test_ownership_one_pointer_takes_one_mark_along(kit: Kit) -> None:
    """Two pointers to a new block in one node; one goes elsewhere. A mark too many would let a
    block be freed at once that a durable pointer names.
    """
    other, third = kit.node(kit.root, 0), kit.node(kit.root, 3)
    kit.sync()
    data = kit.data(kit.root, 1, b"x")
    kit.share(kit.root, 2, DATA, data)
    kit.move(kit.root, 2, other, 0)
    kit.free(kit.root, 1)
    assert kit.xn.refs(data) == 1
    kit.free(other, 0)
    assert kit.xn.refs(data) == 0
    kit.sync()
    assert kit.find() == data
    diff = [slot(0, DATA, data)]
    kit.xn.alloc(kit.me, third, diff, [extent(DATA, data)])
    kit.sync()
    kit.move(third, 0, other, 0)
    kit.free(other, 0)
    assert kit.xn.find_free(data, 1)[0] != data  # R1: durably owned until the next sync


def test_ownership_65535_owners_and_no_more(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shares of one change count together."""
    data = kit.data(kit.root, 0, b"x")
    kit.xn._tables.set_total(data, 65534)
    diff = [slot(1, DATA, data), slot(2, DATA, data)]
    claim = [extent(DATA, data)] * 2
    with pytest.raises(NoSpace):
        kit.xn.change(kit.me, [(kit.root, diff)], share=claim)
    assert kit.slots(kit.root) == {0: (DATA, data, 1)}


def test_ownership_a_drop_from_a_held_block_is_not_forgotten(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    kit.data(kit.root, 0, b"x")
    kit.sync()
    held = kit.find()
    kit.xn.alloc_held(kit.me, kit.root, extent(NODE, held), init=())
    kit.move(kit.root, 0, held, 0)
    kit.free(held, 0)
    kit.xn.drop(kit.me, held)
    kit.sync()
    assert kit.xn.free_blocks() == free


# --- locks, roots, input


def test_ownership_lock_keeps_others_from_data_too(kit: Kit) -> None:
    data = kit.data(kit.root, 0, b"x")
    other = Caller(kit.xn.narrow(kit.me, "main", READ | WRITE | ALLOC))
    kit.xn.lock(kit.me, data)
    kit.xn.lock(kit.me, kit.root)
    calls: list[Callable[[], object]] = [
        lambda: kit.xn.write_raw(other, data, 0, b"y"),
        lambda: kit.xn.write_raw(other, kit.root, RAW[0], b"y"),
        lambda: kit.xn.update(other, kit.root, [(RAW[0], b"y")]),
        lambda: kit.xn.unlock(other, data),
        lambda: kit.xn.lock(other, data),
    ]
    for call in calls:
        with pytest.raises(Refused, match="locked"):
            call()
    kit.xn.write_raw(kit.me, data, 0, b"y")
    kit.xn.unlock(kit.me, data)
    kit.xn.write_raw(other, data, 0, b"z")


def test_ownership_a_root_has_a_type_of_its_own(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    for kind in (NUMBER[DATA], NUMBER[HIDDEN], 1):
        with pytest.raises(Refused):
            kit.xn.install_root(kit.admin, "new", kind)
    for unknown in (99, -1, 2**40):
        with pytest.raises(UnknownType):
            kit.xn.install_root(kit.admin, "new", unknown)
    for name in ("", "x" * 65, "a\0b", "\ud800", "main", "\0kernel"):
        with pytest.raises(XnError):
            kit.xn.install_root(kit.admin, name, NUMBER[NODE])
    assert kit.xn.free_blocks() == free
    assert len(kit.xn.roots()) == 1


def test_ownership_a_full_disk_has_room_for_no_root() -> None:
    kit = Kit()
    while kit.xn.free_blocks():
        start, n = kit.xn.find_free(0, 20)
        at = len(kit.slots(kit.root))
        kit.xn.alloc(kit.me, kit.root, [slot(at, HIDDEN, start, n)], [extent(HIDDEN, start, n)])
    with pytest.raises(NoSpace):
        kit.xn.install_root(kit.admin, "new", NUMBER[NODE])


def test_ownership_a_count_that_cannot_be_read_changes_nothing() -> None:
    """Reference counts are read when first needed: before the effect, not in the middle of it."""
    base = image()
    kit = Kit(base)
    data = kit.data(kit.root, 0, b"x")
    kit.share(kit.root, 1, DATA, data)
    kit.xn.close()
    device = FaultingDevice(base)
    kit = Kit(device)
    kit.load(kit.root)
    device.plant(Fault("read", "eio"))
    start = kit.find(2)
    with pytest.raises(DeviceError):
        kit.xn.alloc(kit.me, kit.root, [slot(5, DATA, start, 2)], [extent(DATA, start, 2)])
    assert kit.slots(kit.root) == {0: (DATA, data, 1), 1: (DATA, data, 1)}
    assert kit.xn.find_free(start, 2) == (start, 2)
    assert not kit.xn.cached(start)


def test_ownership_types_that_name_the_catalogue(kit: Kit) -> None:
    """`xn.roots` is the kernel's: a type of that name gives no way to it."""
    number = kit.xn.install_type(kit.admin, TypeSpec("xn.roots"))
    assert number >= 16


def test_ownership_device_is_left_alone_by_refused_calls() -> None:
    base = image()
    kit = Kit(base)
    before = base.fork()
    calls: list[Callable[[], object]] = [
        lambda: kit.xn.update(kit.me, kit.root, [(0, b"x")]),
        lambda: kit.xn.read(kit.me, 5, 0, 1),
        lambda: kit.xn.readin(kit.me, kit.root, 0, 50, 1),
    ]
    for call in calls:
        with pytest.raises(XnError):
            call()
    kit.xn.sync(kit.me)
    assert same_data(base, before)


def same_data(a: MemoryDevice, b: MemoryDevice) -> bool:
    """All but the superblock, whose state tells that the image is in use."""
    one, two = bytearray(BLOCK), bytearray(BLOCK)
    for block in range(1, a.blocks - 1):
        a.read(block, [memoryview(one)])
        b.read(block, [memoryview(two)])
        if one != two:
            return False
    return True


def test_ownership_a_lock_ends_with_its_capability(kit: Kit) -> None:
    """Nobody could ever undo it."""
    data = kit.data(kit.root, 0, b"x")
    node = kit.node(kit.root, 1)
    guest = Caller(kit.xn.narrow(kit.me, "main", READ | WRITE))
    for block in (data, node):
        kit.xn.lock(guest, block)
    other = kit.data(kit.root, 2, b"x")
    kit.xn.lock(guest, other)
    kit.sync()
    assert kit.xn.evict(kit.me, [data, node, other]) == 0
    kit.xn.revoke(kit.me, guest.cap)
    assert kit.xn.evict(kit.me, [other]) == 1
    for block in (data, node):
        seen = kit.xn.registered(block)
        assert seen is not None
        assert not seen.locked
    kit.xn.write_raw(kit.me, data, 0, b"y")
    kit.xn.update(kit.me, node, [(RAW[0], b"y")])
    with pytest.raises(Refused, match="not locked"):
        kit.xn.unlock(kit.me, data)
    kit.xn.lock(kit.me, data)
    kit.xn.unlock(kit.me, data)
    kit.sync()
    assert kit.xn.evict(kit.me, [data, node]) == 2


def test_ownership_a_lock_of_another_outlives_a_revocation(kit: Kit) -> None:
    one, two = (Caller(kit.xn.narrow(kit.me, "main", READ | WRITE)) for _ in range(2))
    kit.xn.lock(one, kit.root)
    kit.xn.revoke(kit.me, two.cap)
    with pytest.raises(Refused, match="locked"):
        kit.xn.update(kit.me, kit.root, [(RAW[0], b"y")])
