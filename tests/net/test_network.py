"""Endpoints: whose packets, who may send what, rings, fragments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.net.filters import nothing, to_port
from tests.net.kit import HOST, UDP, Kernel, in_fragments, udp, udp_back, waiting, with_options
from xnfs import CapabilityError, NoFrames, Refused
from xnfs.capability import ALLOC, READ, WRITE

EVERYTHING = "def accept(pkt):\n    return 1\n"


def test_packets_go_to_their_owner() -> None:
    kernel = Kernel()
    dns, ntp = kernel.bind("dns", 53), kernel.bind("ntp", 123)
    first, second = kernel.reader(dns), kernel.reader(ntp)
    kernel.arrive(udp(53, b"a"), udp(123, b"b"), udp(99, b"c"), with_options(udp(53, b"d"), 3))
    assert waiting(first) == [udp(53, b"a"), with_options(udp(53, b"d"), 3)]
    assert waiting(second) == [udp(123, b"b")]
    assert kernel.net.interface_statistics("eth").unclaimed == 1
    assert kernel.net.statistics(dns.capability, dns.endpoint).received == 2


def test_overlap_is_refused_unless_it_is_granted() -> None:
    kernel = Kernel()
    dns = kernel.bind("dns", 53)
    thief = kernel.application("thief")
    for claim in (EVERYTHING, to_port(HOST, UDP, 53)):
        with pytest.raises(Refused, match="some of these packets are endpoint 1's"):
            kernel.net.bind(thief, "eth", claim, nothing(), 3)
        with pytest.raises(Refused, match="template: some of these packets are endpoint 1's"):
            kernel.net.bind(thief, "eth", nothing(), EVERYTHING, 3)
    # Other rights over the endpoint, or over another one, are no grant.
    own = kernel.bind("thief", 99)
    narrowed = kernel.capabilities.narrow(dns.capability, ("net", "eth", "1"), READ | WRITE)
    for token in (narrowed, own.capability, b"forged"):
        with pytest.raises(CapabilityError):
            kernel.net.bind(thief, "eth", EVERYTHING, nothing(), 3, grants=[(1, token)])
    # The owner of port 53 lets somebody have what comes from port 2000.
    grant = kernel.capabilities.narrow(dns.capability, ("net", "eth", "1"), ALLOC)
    special = (
        "def accept(pkt):\n    if len(pkt) < 38 or be16(pkt, 12) != 0x0800:\n        return 0\n"
        f"    return u8(pkt, 14) == 0x45 and u8(pkt, 23) == 17 and be32(pkt, 30) == {HOST} and "
        "be16(pkt, 34) == 2000 and be16(pkt, 36) == 53\n"
    )
    granted = kernel.net.bind(thief, "eth", special, nothing(), 3, grants=[(1, grant)])
    kernel.arrive(udp(53, b"x", 2000), udp(53, b"y", 2001))
    assert waiting(kernel.reader(granted)) == [udp(53, b"x", 2000)]
    assert waiting(kernel.reader(dns)) == [udp(53, b"y", 2001)]
    # When it is unbound its packets are the first one's again.
    kernel.net.unbind(granted.capability, granted.endpoint)
    kernel.arrive(udp(53, b"z", 2000))
    assert waiting(kernel.reader(dns)) == [udp(53, b"z", 2000)]


def test_refused_bind_has_no_effect() -> None:
    kernel = Kernel(frames=8)
    kernel.bind("dns", 53)
    free = kernel.pool.free_frames
    cap = kernel.application("other")
    for claim in (EVERYTHING, "def accept(pkt):\n    return u8(pkt, 20)\n"):
        with pytest.raises(Refused):
            kernel.net.bind(cap, "eth", claim, nothing(), 3)
    with pytest.raises(NoFrames):
        kernel.net.bind(cap, "eth", to_port(HOST, UDP, 9), nothing(), 6)
    with pytest.raises(Refused, match="no interface"):
        kernel.net.bind(cap, "wlan", nothing(), nothing(), 3)
    with pytest.raises(CapabilityError):
        kernel.net.bind(b"forged", "eth", nothing(), nothing(), 3)
    assert kernel.pool.free_frames == free
    kernel.bind("other", 9)


def test_refusal_names_the_line() -> None:
    kernel = Kernel()
    bad = "def accept(pkt):\n    x = 1\n    return be16(pkt, 30)\n"
    with pytest.raises(Refused, match=r"filter: line 3: load of 2 bytes .* may pass the end"):
        kernel.net.bind(kernel.application("a"), "eth", bad, nothing(), 3)
    with pytest.raises(Refused, match=r"template: line 1: .*must begin"):
        kernel.net.bind(kernel.application("a"), "eth", nothing(), "def f():\n    pass\n", 3)


def test_sending_what_is_not_ones_own_is_refused() -> None:
    kernel = Kernel()
    dns = kernel.bind("dns", 53)
    send = kernel.net.send
    assert send(dns.capability, dns.endpoint, udp_back(53))
    assert kernel.left() == [udp_back(53)]
    for frame in (udp_back(54), udp(53), b"", bytes(100), udp_back(53)[:37]):
        with pytest.raises(Refused, match="no right to send"):
            send(dns.capability, dns.endpoint, frame)
    other = kernel.bind("other", 54)
    with pytest.raises(CapabilityError):
        send(other.capability, dns.endpoint, udp_back(53))
    assert kernel.left() == []
    stats = kernel.net.statistics(dns.capability, dns.endpoint)
    assert (stats.sent, stats.refused) == (1, 5)


def test_unbound_is_gone() -> None:
    kernel = Kernel()
    dns = kernel.bind("dns", 53)
    free = kernel.pool.free_frames
    kernel.net.unbind(dns.capability, dns.endpoint)
    assert kernel.pool.free_frames == free + 3
    with pytest.raises(Refused, match="no endpoint"):
        kernel.net.ring(dns.capability, dns.endpoint)
    assert not kernel.capabilities.alive(dns.capability)
    kernel.arrive(udp(53))
    assert kernel.net.interface_statistics("eth").unclaimed == 1


# --- rings ---------------------------------------------------------------------------------------


def test_full_ring_drops_and_counts() -> None:
    kernel = Kernel()
    dns = kernel.bind("dns", 53, pages=3)  # two pages of two slots
    reader = kernel.reader(dns)
    kernel.arrive(*(udp(53, bytes([n])) for n in range(6)))
    assert reader.dropped == 2
    assert waiting(reader) == [udp(53, bytes([n])) for n in range(4)]
    kernel.arrive(udp(53, b"later"))
    assert waiting(reader) == [udp(53, b"later")]
    assert kernel.net.statistics(dns.capability, dns.endpoint).dropped == 2


@pytest.mark.parametrize("lie", [0, 1, 3, 2**63, 2**64 - 1])
def test_ring_that_lies_hurts_its_owner_only(lie: int) -> None:
    kernel = Kernel()
    liar, honest = kernel.bind("liar", 1), kernel.bind("honest", 2)
    ring = kernel.net.ring(liar.capability, liar.endpoint)
    kernel.arrive(udp(1), udp(1))
    ring[:] = bytes([0xFF]) * len(ring)
    ring[8:16] = lie.to_bytes(8, "little")
    kernel.arrive(*(udp(1) for _ in range(9)), udp(2, b"safe"))
    assert waiting(kernel.reader(honest)) == [udp(2, b"safe")]
    stats = kernel.net.statistics(liar.capability, liar.endpoint)
    # Two were put in before. What can't have been taken out makes the ring look full.
    assert stats.received == (4 + lie if lie <= 2 else 2)
    assert stats.received + stats.dropped == 11


def test_ring_does_not_show_the_last_owners_bytes() -> None:
    kernel = Kernel(frames=3)
    first = kernel.bind("first", 1)
    kernel.arrive(udp(1, b"secret"))
    kernel.net.unbind(first.capability, first.endpoint)
    second = kernel.bind("second", 2)
    assert b"secret" not in bytes(kernel.net.ring(second.capability, second.endpoint))


def test_arrival_at_an_empty_ring_wakes_the_owner_once() -> None:
    kernel = Kernel()
    dns = kernel.bind("dns", 53, wakes=7)
    kernel.arrive(udp(53), udp(53))
    assert kernel.woken == [7]
    waiting(kernel.reader(dns))
    kernel.arrive(udp(53))
    assert kernel.woken == [7, 7]


# --- fragments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_fragments_follow_the_first(order: list[int]) -> None:
    kernel = Kernel()
    dns, other = kernel.bind("dns", 53), kernel.bind("other", 54)
    frames = in_fragments(53, bytes(1400))
    assert len(frames) == 3
    kernel.arrive(*(frames[i] for i in order))
    assert sorted(waiting(kernel.reader(dns))) == sorted(frames)
    assert waiting(kernel.reader(other)) == []


def test_later_fragment_is_not_taken_for_a_packet() -> None:
    """Its bytes where ports would be say 54: nobody gets it but the owner of the first."""
    kernel = Kernel()
    dns, other = kernel.bind("dns", 53), kernel.bind("other", 54)
    frames = in_fragments(53, bytes([0, 54]) * 700)
    kernel.arrive(frames[1])
    assert waiting(kernel.reader(other)) == []
    kernel.arrive(frames[0])
    assert waiting(kernel.reader(dns)) == [frames[0], frames[1]]


def test_fragments_without_a_first_are_bounded() -> None:
    kernel = Kernel()
    kernel.bind("dns", 53)
    for ident in range(1000):
        kernel.arrive(in_fragments(53, bytes(1400), ident)[1])
    assert kernel.net.interface_statistics("eth").fragments_dropped >= 1000 - 64
    kernel.clock.advance_to(kernel.clock() + 31_000_000_000)
    kernel.arrive(*in_fragments(53, bytes(1400), 2000))
    assert kernel.net.interface_statistics("eth").fragments_dropped == 1000


@given(st.lists(st.binary(max_size=80), max_size=30), st.integers(0, 0xFFFF))
def test_any_frame_is_taken_or_dropped(tails: list[bytes], where: int) -> None:
    kernel = Kernel()
    kernel.bind("dns", 53)
    good = in_fragments(53, bytes(700))
    for number, tail in enumerate(tails):
        frame = bytearray(good[number % 2])
        frame[where % 40 : where % 40 + len(tail)] = tail
        kernel.arrive(bytes(frame), good[0][:14] + tail)
    kernel.net.service()


def test_fragments_are_sent_by_who_sent_the_first() -> None:
    kernel = Kernel()
    dns, other = kernel.bind("dns", 53), kernel.bind("other", 54)
    frames = in_fragments(53, bytes(1400), back=True)
    with pytest.raises(Refused):
        kernel.net.send(dns.capability, dns.endpoint, frames[1])
    for frame in frames:
        assert kernel.net.send(dns.capability, dns.endpoint, frame)
        with pytest.raises(Refused):
            kernel.net.send(other.capability, other.endpoint, frame)
    assert kernel.left() == frames
