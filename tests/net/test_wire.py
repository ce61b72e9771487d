"""The simulated wire: time, bandwidth, queues, and each way to fail."""

from __future__ import annotations

from typing import Any

import pytest

from xnfs.net import Conditions, Impaired, VirtualClock, Wire

FRAME = bytes(12) + b"\x08\x00" + bytes(111)  # 1000 bits


def drain(wire: Wire, clock: VirtualClock) -> list[tuple[int, bytes]]:
    """All that arrives at b, with its time."""
    got = []
    while (due := wire.next_arrival()) is not None:
        clock.advance_to(due)
        while (frame := wire.b.receive()) is not None:
            got.append((clock(), frame))
    return got


def test_wire_takes_its_time() -> None:
    clock = VirtualClock()
    wire = Wire(clock, Conditions(latency=500, bandwidth=1_000_000_000))
    assert wire.a.send(FRAME)
    assert wire.a.send(FRAME)
    assert wire.b.receive() is None
    # Each takes 1000 ns to be sent, one after the other, then 500 to arrive.
    assert [time for time, _ in drain(wire, clock)] == [1500, 2500]
    assert wire.a.receive() is None


def test_wire_queue_is_bounded() -> None:
    clock = VirtualClock()
    wire = Wire(clock, Conditions(latency=1, queue=3))
    assert [wire.a.send(FRAME) for _ in range(5)] == [True, True, True, False, False]
    assert wire.there.tally.overflowed == 2
    assert len(drain(wire, clock)) == 3


def test_wire_refuses_what_does_not_fit() -> None:
    wire = Wire(VirtualClock(), Conditions(), mtu=100)
    assert not wire.a.send(bytes(13))
    assert wire.a.send(bytes(114))
    assert not wire.a.send(bytes(115))


@pytest.mark.parametrize(
    ("field", "counted"),
    [
        ("loss", "lost"),
        ("duplication", "duplicated"),
        ("corruption", "corrupted"),
        ("reordering", "reordered"),
    ],
)
def test_wire_fails_as_often_as_it_is_told(field: str, counted: str) -> None:
    clock = VirtualClock()
    often: dict[str, Any] = {field: 0.2}
    conditions = Conditions(queue=10_000, late=5, **often)
    wire = Wire(clock, conditions, seed=4)
    sent = [bytes(14) + n.to_bytes(4, "big") for n in range(2000)]
    sent = [frame[:12] + b"\x08\x00" + frame[14:] for frame in sent]
    for frame in sent:
        wire.a.send(frame)
    got = [frame for _, frame in drain(wire, clock)]
    count = getattr(wire.there.tally, counted)
    assert 300 < count < 500
    assert len(got) == 2000 + {"lost": -count, "duplicated": count}.get(counted, 0)
    assert (sorted(got) == sorted(sent)) == (counted == "reordered")
    if counted == "corrupted":
        damaged = [(a, b) for a, b in zip(sent, got, strict=True) if a != b]
        assert len(damaged) == count
        for a, b in damaged:
            assert a[:14] == b[:14]
            assert (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count() == 1


def test_wire_spares_what_has_no_checksum() -> None:
    clock = VirtualClock()
    wire = Wire(clock, Conditions(corruption=1.0))
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    wire.a.send(arp)
    assert drain(wire, clock) == [(0, arp)]


def test_wire_is_the_same_for_the_same_seed() -> None:
    def run(seed: int) -> list[tuple[int, bytes]]:
        clock = VirtualClock()
        wire = Wire(clock, Conditions(jitter=1000, loss=0.3, reordering=0.3), seed=seed)
        for n in range(100):
            wire.a.send(bytes(14) + bytes([n]))
        return drain(wire, clock)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_impaired_is_the_same_between_others() -> None:
    clock = VirtualClock()
    below = Wire(clock, Conditions(latency=10))
    bad = Impaired(below.a, clock, Conditions(latency=100), Conditions(latency=1000))
    assert bad.mtu == below.a.mtu
    bad.send(FRAME)
    below.b.send(FRAME)
    assert bad.next_arrival() == 100
    clock.advance_to(100)
    assert bad.receive() is None  # it has left below and come in from below by now
    clock.advance_to(110)
    assert below.b.receive() == FRAME
    assert bad.next_arrival() == 1100
    clock.advance_to(1100)
    assert bad.receive() == FRAME
