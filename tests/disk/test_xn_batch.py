"""`batch`: many calls, one crossing."""

from __future__ import annotations

import pytest

from tests.disk.xn_kit import DATA, Kit, extent, fill, slot
from xnfs import Caller, CapabilityError, NotFree, Refused


def test_batch_makes_the_calls_in_order() -> None:
    kit = Kit()
    a = kit.find()
    results = kit.xn.batch(
        kit.me,
        [
            ("alloc", (kit.root, [slot(0, DATA, a)], [extent(DATA, a)])),
            ("write_raw", (a, 0, fill(b"batch"))),
            ("read", (a, 0, 5)),
        ],
    )
    assert results == [None, None, b"batch"]


def test_batch_stops_at_the_first_that_fails() -> None:
    kit = Kit()
    a = kit.find()
    again = ("alloc", (kit.root, [slot(1, DATA, a)], [extent(DATA, a)]))
    first = ("alloc", (kit.root, [slot(0, DATA, a)], [extent(DATA, a)]))
    with pytest.raises(NotFree):
        kit.xn.batch(kit.me, [first, again, ("write_raw", (a, 0, b"never"))])
    assert list(kit.slots(kit.root)) == [0]
    assert kit.xn.read(kit.me, a, 0, 5) == bytes(5)


def test_batch_gives_no_right_that_its_caller_has_not() -> None:
    kit = Kit()
    with pytest.raises(CapabilityError):
        kit.xn.batch(Caller(b"forged"), [("read", (kit.root, 0, 16))])


@pytest.mark.parametrize("name", ["close", "batch", "sync", "_writable", "__init__", "admin", "x"])
def test_batch_makes_only_calls_on_its_list(name: str) -> None:
    kit = Kit()
    with pytest.raises(Refused):
        kit.xn.batch(kit.me, [("read", (kit.root, 0, 16)), (name, ())])
    assert not kit.xn._closed
