"""The merged tree against a list, and its cost against the number of filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.net.base import ip
from libos.net.filters import to_port
from tests.net.test_meaning import understood
from xnfs.net.cube import WINDOW, Cube, head_bits
from xnfs.net.demux import Demux

TOP = 8 * (WINDOW - 2)  # the first two bytes hold all that these cubes look at
masks = st.sampled_from([0, 0xFF00, 0x00FF, 0x0FF0, 0xFFFF, 0xF000, 0x000F])


@st.composite
def cubes(draw: st.DrawFn) -> Cube:
    mask = draw(masks)
    value = draw(st.integers(0, 0xFFFF)) & 0x3333 & mask
    lo = draw(st.integers(14, 20))
    return Cube(mask << TOP, value << TOP, lo, draw(st.integers(lo, 24)))


@given(
    owners=st.lists(st.lists(cubes(), max_size=3), max_size=12),
    gone=st.sets(st.integers(0, 11)),
    packets=st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(14, 25)), max_size=20),
    probe=cubes(),
)
def test_demux_agrees_with_a_list(
    owners: list[list[Cube]], gone: set[int], packets: list[tuple[int, int]], probe: Cube
) -> None:
    demux = Demux()
    for number, wanted in enumerate(owners):
        demux.add(number, wanted)
    for number in gone & set(range(len(owners))):
        demux.remove(number, owners[number])
        owners[number] = []
    for head, length in packets:
        packet = (head & 0x3333).to_bytes(2, "big") + bytes(length - 2)
        bits = head_bits(packet)
        holders = [
            n for n, wanted in enumerate(owners) if any(c.holds(bits, length) for c in wanted)
        ]
        assert demux.find(packet) == (max(holders) if holders else None)
    overlapping = {n for n, wanted in enumerate(owners) if any(c.overlaps(probe) for c in wanted)}
    assert demux.overlapping(probe) == overlapping


def test_demux_is_empty_when_all_are_gone() -> None:
    demux = Demux()
    filters = {n: understood(to_port(ip("10.0.0.1"), 6, n))[1] for n in range(1, 8)}
    for number, wanted in filters.items():
        demux.add(number, wanted)
    for number, wanted in filters.items():
        demux.remove(number, wanted)
    assert demux._root.empty


@pytest.mark.parametrize("count", [2, 40])
def test_demux_cost_does_not_grow_with_the_filters(count: int) -> None:
    """DPF's result: forty filters on ports cost what two do."""
    demux = Demux()
    host = ip("10.0.0.1")
    for port in range(1, count + 1):
        demux.add(port, understood(to_port(host, 17, port))[1])
    packet = bytearray(60)
    packet[12:15] = b"\x08\x00\x45"
    packet[23], packet[30:34] = 17, host.to_bytes(4, "big")
    packet[36:38] = count.to_bytes(2, "big")
    assert demux.find(bytes(packet)) == count
    assert demux.looks(bytes(packet)) <= 3
