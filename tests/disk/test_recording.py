"""What the recording device calls durable, and the disks that it says a power cut can leave."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.disk.device import BlockDevice, Buffers, MemoryDevice
from xnfs.disk.recording import COMPLETED, DURABLE, SUBMITTED, RecordingDevice
from xnfs.disk.records import BLOCK
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice, StackedDevice
from xnfs.errors import DeviceError


def block(value: int) -> bytes:
    return bytes([value]) * BLOCK


def first_bytes(device: BlockDevice) -> list[int]:
    out = []
    for bno in range(device.blocks):
        data = bytearray(BLOCK)
        device.read(bno, [memoryview(data)])
        out.append(data[0])
    return out


def recorder() -> RecordingDevice:
    below = MemoryDevice(4)
    below.write(0, [block(90)])
    return RecordingDevice(below)


def test_recording_splits_writes_and_tracks_states() -> None:
    disk = recorder()
    disk.write(1, [block(1) + block(2), memoryview(block(3))])
    assert [(e.block, e.data[0], e.state) for e in disk.events] == [
        (1, 1, COMPLETED), (2, 2, COMPLETED), (3, 3, COMPLETED),
    ]  # fmt: skip
    disk.flush()
    disk.write(0, [block(4)])
    assert [e.state for e in disk.events] == [DURABLE] * 3 + [COMPLETED, COMPLETED]
    assert [e.is_flush for e in disk.events] == [False] * 3 + [True, False]
    assert [e.id for e in disk.events] == list(range(5))
    assert first_bytes(disk) == [4, 1, 2, 3]


def test_recording_any_subset_of_what_no_flush_covers() -> None:
    disk = recorder()
    disk.write(1, [block(1)])
    disk.flush()
    disk.write(2, [block(2), block(3)])
    assert [e.id for e in disk.pending(4)] == [2, 3]
    assert first_bytes(disk.image_at(4)) == [90, 1, 0, 0]
    assert first_bytes(disk.image_at(4, [3])) == [90, 1, 0, 3]
    assert first_bytes(disk.image_at(4, [2, 3])) == [90, 1, 2, 3]
    # Earlier cuts, asked for later.
    assert first_bytes(disk.image_at(1)) == [90, 0, 0, 0]
    assert first_bytes(disk.image_at(1, [0])) == [90, 1, 0, 0]
    assert first_bytes(disk.image_at(0)) == [90, 0, 0, 0]
    assert first_bytes(disk.image_at(2)) == [90, 1, 0, 0]


def test_recording_later_of_two_kept_writes_wins() -> None:
    disk = recorder()
    disk.write(1, [block(1)])
    disk.write(1, [block(2)])
    seen = {
        first_bytes(disk.image_at(2, keep))[1]
        for n in range(3)
        for keep in itertools.combinations((0, 1), n)
    }
    assert seen == {0, 1, 2}
    assert first_bytes(disk.image_at(2, (0, 1)))[1] == 2


@given(sectors=st.sets(st.integers(0, 7)))
def test_recording_torn_block_mixes_old_and_new_sectors(sectors: set[int]) -> None:
    disk = recorder()
    disk.write(0, [block(91)])
    torn = bytearray(BLOCK)
    disk.image_at(1, [0], {0: sectors}).read(0, [memoryview(torn)])
    assert [torn[i * 512] for i in range(8)] == [91 if i in sectors else 90 for i in range(8)]
    assert {bytes(torn[i * 512 : i * 512 + 512]) for i in range(8)} <= {
        block(90)[:512], block(91)[:512],
    }  # fmt: skip


def test_recording_refuses_states_that_no_cut_can_leave() -> None:
    disk = recorder()
    disk.write(1, [block(1)])
    disk.flush()
    disk.write(2, [block(2)])
    for cut, keep, tear in ((3, [0], {}), (2, [2], {}), (3, [1], {}), (3, [], {2: [0]})):
        with pytest.raises(ValueError, match="not pending"):
            disk.image_at(cut, keep, tear)


def test_recording_failed_write_and_flush_never_count_as_done() -> None:
    faulty = FaultingDevice(MemoryDevice(4), Fault("write", "eio"), Fault("flush", "eio"))
    disk = RecordingDevice(faulty)
    with pytest.raises(DeviceError):
        disk.write(0, [block(1)])
    disk.write(1, [block(2)])
    with pytest.raises(DeviceError):
        disk.flush()
    assert [e.state for e in disk.events] == [SUBMITTED, COMPLETED, SUBMITTED]
    assert [e.id for e in disk.pending(3)] == [0, 1]
    disk.flush()
    # The failed write may have reached the disk, and may not, whatever is flushed afterwards.
    assert [e.id for e in disk.pending(4)] == [0]
    assert [e.state for e in disk.events] == [SUBMITTED, DURABLE, SUBMITTED, COMPLETED]


class _Reenters(StackedDevice):
    """Flushes, through the recorder, in the middle of a write: as a second thread could."""

    recorder: RecordingDevice | None = None

    def write(self, start: int, views: Buffers) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.flush()
        super().write(start, views)


def test_recording_flush_does_not_cover_a_write_that_was_under_way() -> None:
    below = _Reenters(MemoryDevice(4))
    disk = RecordingDevice(below)
    below.recorder = disk
    disk.write(1, [block(1)])
    assert [e.is_flush for e in disk.events] == [False, True]
    assert [e.state for e in disk.events] == [COMPLETED, COMPLETED]
    assert [e.id for e in disk.pending(2)] == [0]
    disk.flush()
    assert disk.events[0].state == DURABLE
    assert disk.pending(3) == []


def test_recording_starts_from_what_any_device_holds() -> None:
    below = MemoryDevice(4)
    below.write(2, [block(5)])
    disk = RecordingDevice(CountingDevice(below))
    disk.write(0, [block(6)])
    assert first_bytes(disk.image_at(1)) == [0, 0, 5, 0]
    assert first_bytes(disk.image_at(0)) == [0, 0, 5, 0]


@given(
    calls=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)) | st.none(), max_size=12),
    data=st.data(),
)
def test_recording_image_agrees_with_a_replay(
    calls: list[tuple[int, int] | None], data: st.DataObject
) -> None:
    disk = recorder()
    for call in calls:
        if call is None:
            disk.flush()
        else:
            disk.write(call[0], [block(call[1])])
    for _ in range(3):
        cut = data.draw(st.integers(0, len(calls)))
        flushes = [i for i in range(cut) if calls[i] is None]
        last = flushes[-1] if flushes else 0
        pending = [i for i in range(last, cut) if calls[i] is not None]
        assert [e.id for e in disk.pending(cut)] == pending
        keep = data.draw(st.sets(st.sampled_from(pending))) if pending else set()
        want = [90, 0, 0, 0]
        for i, call in enumerate(calls[:cut]):
            if call is not None and (i < last or i in keep):
                want[call[0]] = call[1]
        assert first_bytes(disk.image_at(cut, keep)) == want
