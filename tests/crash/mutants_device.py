"""Disks that do not do what they say: what the crash tests must see of each. See `mutants.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from xnfs_trials.crash.states import Event, Flush, Write, tear

from tests.crash.mutants import Mutant
from xnfs.disk.recording import RecordingDevice


def flush_does_nothing(p: pytest.MonkeyPatch) -> None:
    """Whatever was written stays in the disk's cache."""
    p.setattr(RecordingDevice, "flush", lambda _device: None)


def last_write_late(events: Sequence[Event]) -> list[Event]:
    """A flush lets the write before it slip."""
    out = list(events)
    for i in range(1, len(out)):
        if isinstance(out[i], Flush) and not isinstance(out[i - 1], Flush):
            out[i - 1], out[i] = out[i], out[i - 1]
    return out


def first_write_late(events: Sequence[Event]) -> list[Event]:
    """A flush covers all but the oldest write."""
    out = list(events)
    first: int | None = None
    for i, event in enumerate(events):
        if isinstance(event, Flush):
            if first is not None:
                out[first : i + 1] = [*out[first + 1 : i + 1], out[first]]
            first = None
        elif first is None:
            first = i
    return out


def every_other_flush(events: Sequence[Event]) -> list[Event]:
    """A flush that follows another soon is answered and not done."""
    flushes = [i for i, e in enumerate(events) if isinstance(e, Flush)]
    lost = set(flushes[1::2])
    return [
        replace(e, overlap=1 << 60) if i in lost and isinstance(e, Flush) else e
        for i, e in enumerate(events)
    ]


def lost_write(events: Sequence[Event]) -> list[Event]:
    """Every seventh write never happens."""
    return [e for i, e in enumerate(events) if isinstance(e, Flush) or i % 7]


def misdirected_write(events: Sequence[Event]) -> list[Event]:
    """Every seventh write goes to the block after its own."""
    return [
        replace(e, block=e.block + 1) if isinstance(e, Write) and not i % 7 else e
        for i, e in enumerate(events)
    ]


def half_a_write(events: Sequence[Event]) -> list[Event]:
    """Of every seventh write only the first sector arrives; the rest is zeros."""
    return [
        replace(e, data=tear(bytes(4096), e.data, 1)) if isinstance(e, Write) and not i % 7 else e
        for i, e in enumerate(events)
    ]


def flipped_bit(events: Sequence[Event]) -> list[Event]:
    """In every seventh write one bit is another."""
    return [
        replace(e, data=bytes([*e.data[:40], e.data[40] ^ 1]) + e.data[41:])
        if isinstance(e, Write) and not i % 7
        else e
        for i, e in enumerate(events)
    ]


def swapped_writes(events: Sequence[Event]) -> list[Event]:
    """Each two writes in a row to different blocks get each other's bytes, now and then."""
    out = list(events)
    for i in range(0, len(out) - 1, 9):
        one, two = out[i], out[i + 1]
        if isinstance(one, Write) and isinstance(two, Write):
            out[i], out[i + 1] = replace(one, data=two.data), replace(two, data=one.data)
    return out


DEVICES = (
    Mutant("flush_does_nothing", "device: flush", run=flush_does_nothing),
    Mutant("every_other_flush", "device: flush", disk=every_other_flush),
    Mutant("last_write_late", "device: flush covers all", disk=last_write_late),
    Mutant("first_write_late", "device: flush covers all", disk=first_write_late),
    Mutant("lost_write", "device: writes arrive", disk=lost_write),
    Mutant("misdirected_write", "device: where they belong", disk=misdirected_write),
    Mutant("half_a_write", "device: whole", disk=half_a_write),
    Mutant("flipped_bit", "device: as they are", disk=flipped_bit),
    Mutant("swapped_writes", "device: where they belong", disk=swapped_writes),
)
