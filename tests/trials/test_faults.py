"""Every fault of a disk, struck at everything that XN and FFS keep there: what comes of it.

`docs/faults.md` shows these rows; a test holds the two together.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from xnfs_trials.crash.device import CACHED, COMPLETED, DURABLE, SUBMITTED, ModelDevice

from tests.trials import faultlab
from tests.trials.faultlab import DETECTED as DET
from tests.trials.faultlab import FSCK, TARGETS
from tests.trials.faultlab import SURVIVED as OK
from tests.trials.faultlab import UNNOTICED as OUT
from xnfs import DeviceError, MemoryDevice
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.disk.versions import Versions

DOC = Path(__file__).parents[2] / "docs" / "faults.md"


class Row(NamedTuple):
    """A fault, and its outcome at each of the targets."""

    name: str
    op: str
    kind: str
    how: dict[str, Any]
    outcomes: tuple[str, ...]


FOREVER = {"sticky": True}
#: outcomes in the order of TARGETS
ROWS = (
    Row("read-eio-once", "read", "eio", {}, (DET, DET, DET, DET, DET, DET, OK)),
    Row("read-eio-sticky", "read", "eio", FOREVER, (DET, DET, DET, DET, DET, DET, OK)),
    Row("read-short", "read", "short", {}, (DET, DET, DET, DET, DET, DET, OK)),
    Row("read-flip", "read", "flip", FOREVER, (DET, DET, OUT, OK, DET, DET, OK)),
    Row("read-misdirected", "read", "misdirected", FOREVER, (DET, DET, OUT, OK, DET, DET, OK)),
    Row("read-stale", "read", "stale", FOREVER, (OK, DET, OUT, OK, OK, DET, OK)),
    Row("write-eio-once", "write", "eio", {}, (DET,) * 7),
    Row("write-eio-sticky", "write", "eio", FOREVER, (DET,) * 7),
    Row("write-enospc", "write", "eio", {"errno": errno.ENOSPC}, (DET, DET, OK, OK, DET, DET, DET)),
    Row("write-short", "write", "short", {}, (DET,) * 7),
    Row("write-flip", "write", "flip", {}, (OK, DET, OUT, OK, OK, DET, FSCK)),
    Row("write-lost", "write", "lost", {}, (OK, DET, OUT, OK, OK, DET, OK)),
    Row("write-misdirected", "write", "misdirected", {}, (OK, DET, OUT, OK, OK, DET, DET)),
    Row("torn", "torn", "", {}, (OK,) * 7),
)
#: faults of the disk as a whole
WHOLE = {"flush-eio-once": DET, "flush-eio-sticky": DET, "flush-lies": OUT, "cache-eio": DET}


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_faults(row: Row) -> None:
    found = []
    for target in TARGETS:
        if row.op == "torn":
            found.append(faultlab.torn(target))
        else:
            fault = faultlab.plant(row.op, row.kind, target, **row.how)
            run = faultlab.read if row.op == "read" else faultlab.written
            found.append(run(fault, target))
    assert dict(zip(TARGETS, found, strict=True)) == dict(zip(TARGETS, row.outcomes, strict=True))


@pytest.mark.parametrize("name", ["read-stale", "write-lost", "write-misdirected"])
@pytest.mark.parametrize("off", ["check", "set"])
def test_faults_lost_without_versions(name: str, off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions not compared when blocks are read, or not kept: nobody notices while mounted."""
    monkeypatch.setattr(Versions, off, lambda self, block, seq: None)
    row, target = next(row for row in ROWS if row.name == name), "metadata, older"
    run = faultlab.read if row.op == "read" else faultlab.written
    assert run(faultlab.plant(row.op, row.kind, target, **row.how), target) in (OUT, FSCK)


@pytest.mark.parametrize("name", WHOLE)
def test_faults_of_the_whole(name: str) -> None:
    if name == "flush-lies":
        found = faultlab.lying()
    elif name == "cache-eio":
        found = faultlab.queued()
    else:
        sticky = name.endswith("sticky")
        found = faultlab.written(faultlab.plant("flush", "eio", "", sticky=sticky), "")
    assert found == WHOLE[name]


def test_faults_table_in_the_docs() -> None:
    lines = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", DOC.read_text(), re.MULTILINE)
    shown = {name: tuple(cell.strip() for cell in cells.split("|")) for name, cells in lines}
    want = {row.name: row.outcomes for row in ROWS} | {name: (o,) for name, o in WHOLE.items()}
    assert shown == want


def test_faults_without_a_fault() -> None:
    """The lab finds nothing wrong with a sound disk, and sees damage that is there."""
    disk = faultlab.base().fork()
    assert faultlab.look(disk.fork()) == "old"
    faultlab.act(disk, later=faultlab.ROUNDS)
    assert faultlab.judge(disk, told=False) == OK
    disk.write(faultlab.places().target["data"], [b"x" * 4096])
    assert faultlab.judge(disk, told=False) == OUT
    disk.write(faultlab.places().target["tables"], [b"x" * 4096])
    assert faultlab.judge(disk, told=False) == DET


# -- the device itself


def block(value: int) -> bytes:
    return bytes([value]) * 4096


def test_device_states_in_time() -> None:
    disk = ModelDevice(MemoryDevice(8), queue=2)
    times = [disk.now]
    disk.write(1, [block(1)])
    disk.write(2, [block(2)])
    times.append(disk.now)
    first, second = disk.requests
    assert [r.state(disk.now) for r in (first, second)] == [CACHED, CACHED]
    disk.write(3, [block(3)])  # pushes one out
    times.append(disk.now)
    assert sorted(r.state(disk.now) for r in disk.requests) == [CACHED, CACHED, COMPLETED]
    disk.flush()
    assert [r.state(disk.now) for r in disk.requests[:3]] == [DURABLE] * 3
    assert [r.state(times[0]) for r in disk.requests[:3]] == [CACHED] * 3
    pushed = next(r for r in disk.requests if r.submitted is not None and r.submitted < times[2])
    assert pushed.submitted is not None
    assert pushed.state(pushed.submitted) == SUBMITTED


def test_device_cache_answers_reads_and_keeps_the_newest() -> None:
    below = MemoryDevice(8)
    disk = ModelDevice(below, queue=4)
    disk.write(1, [block(1)])
    disk.write(1, [block(2), block(3)])
    seen = bytearray(3 * 4096)
    disk.read(0, [memoryview(seen)])
    assert (seen[0], seen[4096], seen[8192]) == (0, 2, 3)
    assert not below._contents
    disk.flush()
    assert [e.data[0] for e in disk.events if hasattr(e, "data")] in ([2, 3], [3, 2])


def test_device_failure_behind_the_cache_is_told_once() -> None:
    below = MemoryDevice(8)
    disk = ModelDevice(FaultingDevice(below, Fault("write", "eio", block=2)), queue=4)
    disk.write(1, [block(1), block(2)])
    with pytest.raises(DeviceError):
        disk.flush()
    disk.flush()
    assert 2 not in below._contents
    lost = next(r for r in disk.requests if r.block == 2)
    assert lost.state(disk.now) == SUBMITTED
