"""Ethernet, ARP, IPv4 with fragments, ICMP and UDP of one host, frame by frame."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.net import checksum, icmp, ipv4
from libos.net.arp import REPLY, REQUEST, ArpPacket, arp_packet, parse_arp_untrusted
from libos.net.base import BROADCAST_IP, BROADCAST_MAC, SECOND, Drops, Ip, Mac, ip
from libos.net.ethernet import TYPE_ARP, TYPE_IPV4, ethernet_header
from libos.net.host import Address, Host
from libos.net.ipv4 import ICMP, UDP, Reassembly, fragments, ipv4_header, parse_ipv4_untrusted
from libos.net.tcp.segment import ACK
from libos.net.udp import udp_datagram
from tests.libos_net.script import HOST, PEER, Script


def neighbours() -> Host:
    """A host that knows the peer's address."""
    host = Host(HOST, seed=1)
    host.input(arp(ArpPacket(REQUEST, PEER.mac, PEER.ip, Mac(bytes(6)), HOST.ip)), 0)
    host.take()
    return host


def arp(packet: ArpPacket) -> bytes:
    return ethernet_header(HOST.mac, PEER.mac, TYPE_ARP) + arp_packet(packet)


def frames(
    payload: bytes, protocol: int, *, to: Ip = HOST.ip, mtu: int = 1500, source: Ip = PEER.ip
) -> list[bytes]:
    link = ethernet_header(HOST.mac, PEER.mac, TYPE_IPV4)
    pieces = fragments(source, to, protocol, payload, 77, mtu)
    return [link + bytes(h) + bytes(p) for h, p in pieces]


def answers(host: Host, *sent: bytes, now: int = 0) -> list[ipv4.Packet]:
    for frame in sent:
        host.input(frame, now)
    host.advance(now)
    out = [f for f in host.take() if f[12:14] == b"\x08\x00"]
    return [parse_ipv4_untrusted(memoryview(f)[14:]) for f in out]


# --- ARP -----------------------------------------------------------------------------------------


def test_arp_request_for_us_is_answered() -> None:
    host = Host(HOST, seed=1)
    host.input(arp(ArpPacket(REQUEST, PEER.mac, PEER.ip, Mac(bytes(6)), HOST.ip)), 0)
    (frame,) = host.take()
    reply = parse_arp_untrusted(memoryview(frame)[14:])
    assert reply == ArpPacket(REPLY, HOST.mac, HOST.ip, PEER.mac, PEER.ip)
    assert frame[:6] == PEER.mac


def test_arp_asks_three_times_and_gives_up() -> None:
    host = Host(HOST, seed=1)
    socket = host.udp_open(9)
    socket.send_to(b"x", PEER.ip, 9)
    asked = 0
    now = 0
    while (due := host.deadline()) is not None:
        now = due
        host.advance(now)
        asked += len(host.take())
    assert (asked, now) == (3, 3 * SECOND)
    assert host.drops["arp: no answer"] == 1


def test_arp_believes_no_announcement_that_it_did_not_ask_for() -> None:
    host = Host(HOST, seed=1)
    other = ip("10.0.0.77")
    host.input(arp(ArpPacket(REPLY, PEER.mac, other, PEER.mac, ip("10.0.0.50"))), 0)
    assert host._arp.lookup(other, 0) is None
    host.input(arp(ArpPacket(REPLY, PEER.mac, HOST.ip, HOST.mac, HOST.ip)), 0)
    assert host.drops["arp: another host has our address"] == 1


def test_arp_keeps_packets_until_the_answer() -> None:
    host = Host(HOST, seed=1)
    socket = host.udp_open(9)
    for n in range(30):
        socket.send_to(bytes([n]), PEER.ip, 9)
    reply = arp(ArpPacket(REPLY, PEER.mac, PEER.ip, HOST.mac, HOST.ip))
    assert len(answers(host, reply)) == 16
    assert host.drops["arp: too many packets wait"] == 14


def test_arp_cache_is_bounded() -> None:
    host = Host(HOST, seed=1)
    for n in range(5000):
        sender = Ip(ip("10.0.0.0") + 256 + n)
        host.input(arp(ArpPacket(REQUEST, PEER.mac, sender, Mac(bytes(6)), HOST.ip)), 0)
    host.take()
    assert len(host._arp._entries) == 512


# --- IPv4 ----------------------------------------------------------------------------------------


@given(st.binary(max_size=6000), st.integers(68, 1500), st.randoms(use_true_random=False))
def test_fragments_in_any_order_make_the_datagram(
    data: bytes, mtu: int, rng: random.Random
) -> None:
    reassembly = Reassembly(Drops())
    pieces = [
        parse_ipv4_untrusted(memoryview(bytes(h) + bytes(p)))
        for h, p in fragments(PEER.ip, HOST.ip, UDP, data, 5, mtu)
    ]
    pieces = pieces[: ipv4.MAX_PIECES]
    if len(data) <= mtu - 20:
        assert [bytes(p.payload) for p in pieces] == [data]
        assert not pieces[0].is_fragment
        return
    if len(pieces) == ipv4.MAX_PIECES:
        return
    for piece in pieces:
        assert 20 + len(piece.payload) <= mtu
    twice = pieces + pieces[:-1]
    rng.shuffle(twice)
    done = [bytes(d) for d in (reassembly.add(p, 0) for p in twice) if d is not None]
    assert data in done
    assert all(d == data for d in done)


def piece(offset: int, data: bytes, more: bool, ident: int = 5) -> ipv4.Packet:
    header = ipv4_header(PEER.ip, HOST.ip, UDP, len(data), ident, offset // 8 | 0x2000 * more)
    return parse_ipv4_untrusted(memoryview(bytes(header) + data))


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, bytes(16), True), piece(8, b"x" * 16, False)],
        [piece(0, bytes(16), True), piece(0, b"x" * 16, True)],
        [piece(8, bytes(8), False), piece(16, bytes(8), True)],
        [piece(8, bytes(8), False), piece(24, bytes(8), False)],
        [piece(16, bytes(8), True), piece(8, bytes(8), False)],
    ],
    ids=["overlap", "other bytes", "beyond the end", "two ends", "end before"],
)
def test_fragments_that_contradict_drop_the_datagram(pieces: list[ipv4.Packet]) -> None:
    drops = Drops()
    reassembly = Reassembly(drops)
    assert [reassembly.add(p, 0) for p in pieces] == [None] * len(pieces)
    assert drops["ipv4: fragments that contradict each other"] == 1
    assert reassembly._held == 0


def test_fragments_are_bounded_in_number_bytes_and_time() -> None:
    drops = Drops()
    reassembly = Reassembly(drops)
    for ident in range(3000):
        for offset in (0, 1480, 2960):
            reassembly.add(piece(offset, bytes(1480), True, ident), 0)
        assert reassembly._held <= ipv4.MAX_HELD
        assert len(reassembly._partial) <= ipv4.MAX_DATAGRAMS
    assert drops["ipv4: too many fragments held"] == 3000 - ipv4.MAX_DATAGRAMS
    assert reassembly.deadline() == 30 * SECOND
    heads = reassembly.advance(30 * SECOND)
    assert (len(heads), reassembly._held) == (ipv4.MAX_DATAGRAMS, 0)
    for offset in range(0, 2000, 8):  # many small ones of one datagram
        reassembly.add(piece(offset, bytes(8), True), 0)
    assert max((len(p.pieces) for p in reassembly._partial.values()), default=0) <= ipv4.MAX_PIECES


def test_missing_fragments_are_told_to_the_sender() -> None:
    host = neighbours()
    host.input(frames(bytes(3000), UDP)[0], 0)
    (packet,) = answers(host, now=30 * SECOND) or answers(host, now=31 * SECOND)
    message = icmp.parse_icmp_untrusted(packet.payload)
    assert (message.type, message.code) == (icmp.TIME_EXCEEDED, icmp.REASSEMBLY)


def test_missing_fragments_of_an_error_are_told_to_nobody() -> None:
    host = neighbours()
    error = icmp.icmp_message(icmp.UNREACHABLE, icmp.PORT, 0, bytes(3000))
    host.input(frames(error, ICMP)[0], 0)
    assert answers(host, now=31 * SECOND) == []
    assert host.drops["ipv4: fragments missing"] == 1
    echo = icmp.icmp_message(icmp.ECHO, 0, 0, bytes(3000))
    host.input(frames(echo, ICMP)[0], 0)
    assert len(answers(host, now=31 * SECOND)) == 1


def test_packets_with_options_are_taken_and_source_routes_refused() -> None:
    host = neighbours()
    echo = icmp.icmp_message(icmp.ECHO, 0, 5, b"abc")

    def with_options(options: bytes) -> bytes:
        size = 20 + len(options)
        head = struct.pack(">BBHHHBBHII", 0x40 | size // 4, 0, size + len(echo), 0, 0, 9, 1, 0,
                           PEER.ip, HOST.ip) + options  # fmt: skip
        head = head[:10] + checksum.checksum(head).to_bytes(2, "big") + head[12:]
        return ethernet_header(HOST.mac, PEER.mac, TYPE_IPV4) + head + echo

    assert len(answers(host, with_options(b"\x07\x07\x04" + bytes(4) + b"\x01"))) == 1
    assert answers(host, with_options(b"\x83\x07\x04" + bytes(4) + b"\x01")) == []
    assert host.drops["ipv4: source route"] == 1


def test_wrong_header_checksum_drops_the_packet() -> None:
    host = neighbours()
    (good,) = frames(icmp.icmp_message(icmp.ECHO, 0, 5, b"abc"), ICMP)
    bad = bytearray(good)
    bad[22] -= 1  # the time to live, which nothing else looks at
    assert answers(host, bytes(bad)) == []
    assert host.drops["ipv4: checksum"] == 1
    assert len(answers(host, good)) == 1


def test_no_route_and_gateway() -> None:
    far = ip("192.0.2.1")
    host = Host(HOST, seed=1)
    host.udp_open(9).send_to(b"x", far, 9)
    assert host.drops["ipv4: no route"] == 1
    host = Host(Address(HOST.mac, HOST.ip, 24, PEER.ip), seed=1)
    host.udp_open(9).send_to(b"x", far, 9)
    (asked,) = host.take()
    assert parse_arp_untrusted(memoryview(asked)[14:]).target_ip == PEER.ip


# --- ICMP and UDP --------------------------------------------------------------------------------


@given(st.binary(max_size=4000), st.integers(576, 1500))
def test_echo_of_any_size_is_answered(body: bytes, mtu: int) -> None:
    host = neighbours()
    packets = answers(host, *frames(icmp.icmp_message(icmp.ECHO, 0, 9, body), ICMP, mtu=mtu))
    reply = icmp.parse_icmp_untrusted(memoryview(b"".join(p.payload for p in packets)))
    assert (reply.type, reply.rest, bytes(reply.body)) == (icmp.ECHO_REPLY, 9, body)


def test_no_errors_about_errors_broadcasts_or_groups() -> None:
    host = neighbours()
    nobody = udp_datagram(PEER.ip, HOST.ip, 9, 9, b"x")
    (error,) = answers(host, *frames(nobody, UDP))
    assert icmp.parse_icmp_untrusted(error.payload).code == icmp.PORT
    to_all = udp_datagram(PEER.ip, BROADCAST_IP, 9, 9, b"x")
    assert answers(host, *frames(to_all, UDP, to=BROADCAST_IP)) == []
    echo = icmp.icmp_message(icmp.ECHO, 0, 5, b"")
    assert answers(host, *frames(echo, ICMP, to=BROADCAST_IP)) == []
    (frame,) = frames(nobody, UDP)
    assert answers(host, BROADCAST_MAC + frame[6:]) == []
    about = icmp.icmp_message(icmp.UNREACHABLE, icmp.PORT, 0, memoryview(error.payload)[8:])
    assert answers(host, *frames(about, ICMP)) == []
    for source in ("224.0.0.1", "255.255.255.255", "0.0.0.1", "10.0.0.1"):
        assert answers(host, *frames(nobody, UDP, source=ip(source))) == []


def test_errors_are_limited() -> None:
    host = neighbours()
    (frame,) = frames(udp_datagram(PEER.ip, HOST.ip, 9, 9, b"x"), UDP)
    assert len(answers(host, *[frame] * 1000)) == 100
    assert host.drops["icmp: errors limited"] == 900


def test_udp_queue_is_bounded() -> None:
    host = neighbours()
    socket = host.udp_open(9)
    (frame,) = frames(udp_datagram(PEER.ip, HOST.ip, 7, 9, b"x"), UDP)
    for _ in range(1000):
        host.input(frame, 0)
    assert host.drops["udp: queue full"] == 1000 - 256
    datagram = socket.receive()
    assert datagram is not None
    assert (datagram.source, datagram.port, datagram.data) == (PEER.ip, 7, b"x")


def test_udp_without_checksum_is_taken_and_a_wrong_one_is_not() -> None:
    host = neighbours()
    socket = host.udp_open(9)
    datagram = udp_datagram(PEER.ip, HOST.ip, 7, 9, b"abc")
    for summed in (b"\0\0", b"\x12\x34"):
        host.input(frames(datagram[:6] + summed + datagram[8:], UDP)[0], 0)
    assert socket.receive() is not None
    assert socket.receive() is None
    assert host.drops["udp: checksum"] == 1


def test_udp_ports_are_taken_once() -> None:
    host = neighbours()
    socket = host.udp_open(9)
    with pytest.raises(ValueError, match="taken"):
        host.udp_open(9)
    host.udp_close(socket)
    host.udp_open(9)
    assert host.udp_open().port != host.udp_open().port


def test_path_mtu_makes_segments_smaller() -> None:
    script = Script()
    connection = script.open(mss=1460)
    connection.write(bytes(2920))
    script.host.advance(script.now)
    sent = [f for f in script.host.take() if len(f) == 1514]
    assert len(sent) == 2
    said = icmp.icmp_message(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, 700, sent[0][14:42])
    script.host.input(frames(said, ICMP)[0], script.now)
    again = script.hear()
    assert again[0].length == 660
    # Who only guesses numbers changes nothing.
    wrong = bytearray(sent[0][14:42])
    wrong[24] ^= 0x55
    guess = icmp.icmp_message(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, 600, bytes(wrong))
    script.host.input(frames(guess, ICMP)[0], script.now)
    assert connection.sender.mss == 660
    script.ack += 2920
    script.say(ACK)
    assert connection.sender.drained
