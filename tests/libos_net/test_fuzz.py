"""Whatever arrives, nothing is raised and memory stays bounded.

Frames come from two sources: hypothesis, which damages good ones, and the fuzzer of scapy, which
knows the formats on its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy import packet
from scapy.layers import inet, l2

from libos.net import checksum, icmp
from libos.net.arp import REQUEST, ArpPacket
from libos.net.base import MILLISECOND, Mac
from libos.net.host import Host
from libos.net.ipv4 import ICMP, TCP, UDP
from libos.net.tcp.ready import Ready
from libos.net.tcp.segment import ACK, FIN, PSH, RST, SYN
from libos.net.udp import udp_datagram
from tests.libos_net.script import HOST, ISS, PEER, Script
from tests.libos_net.test_ip import arp, frames


def seeds() -> list[bytes]:
    """Good frames of all kinds, to begin from."""
    script = Script()
    good = [
        arp(ArpPacket(REQUEST, PEER.mac, PEER.ip, Mac(bytes(6)), HOST.ip)),
        *frames(icmp.icmp_message(icmp.ECHO, 0, 1, b"x" * 40), ICMP),
        *frames(icmp.icmp_message(icmp.UNREACHABLE, 4, 600, bytes(range(60))), ICMP),
        *frames(udp_datagram(PEER.ip, HOST.ip, 7, 9, b"y" * 2000), UDP),
        *frames(b"?" * 100, TCP),
    ]
    for flags in (SYN, ACK, FIN | ACK, RST, SYN | ACK, PSH | ACK):
        good.append(script.frame(flags, b"data" * 10))
        good.append(script.frame(flags, sacks=((5, 9), (1, 2)), mss=1, sack_ok=True))
    return good


SEEDS = seeds()


def open_hosts() -> tuple[Script, Callable[[], None]]:
    """A host with sockets, a listener, and a connection; and a check of what it holds."""
    script = Script()
    script.open(sack_ok=True, mss=600)
    script.host.answer_at_once(80, lambda data: Ready([data] * 9, len(data) > 30))
    script.host.udp_open(9)

    def check() -> None:
        host = script.host
        connection = script.connection
        assert connection is not None
        assert len(host.tcp) <= 300
        assert host._fast is not None
        assert len(host._fast) <= 128 + 1024
        assert len(host._arp._entries) <= 512
        assert host._reassembly._held <= 1 << 20
        assert len(connection.receiver._runs) <= 256
        assert connection.receiver.readable <= 256 * 1024
        assert len(host.drops) < 60  # reasons are a fixed set of words

    return script, check


@given(st.binary(max_size=2000))
def test_any_bytes_are_taken(data: bytes) -> None:
    host = Host(HOST, seed=1)
    for frame in (data, HOST.mac + data, SEEDS[1][:14] + data, SEEDS[1][:34] + data):
        host.input(frame, 0)
    host.advance(0)


damages = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "add", "mend"]), st.integers(0, 100), st.binary()),
    max_size=5,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(SEEDS), damages), max_size=20))
def test_damaged_frames_are_dropped_or_taken(given_frames: list[tuple[bytes, object]]) -> None:
    script, check = open_hosts()
    for good, todo in given_frames:
        frame = bytearray(good)
        for kind, at, more in todo:  # type: ignore[attr-defined]
            if kind == "set":
                frame[at : at + len(more)] = more
            elif kind == "cut":
                del frame[max(at, 14) :]
            elif kind == "add":
                frame += more
            else:
                _mend(frame)
        script.now += MILLISECOND
        script.host.input(bytes(frame), script.now)
        script.hear()
    check()


def _mend(frame: bytearray) -> None:
    """Make the checksums right, so that what is behind them is reached."""
    size = (frame[14] & 15) * 4 if len(frame) > 14 else 0
    if size < 20 or len(frame) < 14 + size + 20:
        return
    frame[16:18] = (len(frame) - 14).to_bytes(2, "big")
    frame[24:26] = b"\0\0"
    frame[24:26] = checksum.checksum(frame[14 : 14 + size]).to_bytes(2, "big")
    at = 14 + size + {ICMP: 2, UDP: 6, TCP: 16}.get(frame[23], 2)
    frame[at : at + 2] = b"\0\0"
    body = frame[14 + size :]
    source, dest = (int.from_bytes(frame[i : i + 4], "big") for i in (26, 30))
    before = 0 if frame[23] == ICMP else checksum.pseudo_header(source, dest, frame[23], len(body))
    total = checksum.partial_sum(body) + before
    frame[at : at + 2] = checksum.finish(total).to_bytes(2, "big")


@settings(max_examples=60)
@given(st.lists(st.tuples(
    st.integers(0, 31), st.integers(-300, 300000), st.integers(-300, 300000),
    st.binary(max_size=1400), st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=4),
    st.integers(0, 300),
), max_size=40))  # fmt: skip
def test_any_segments_of_a_connection_are_survived(segments: list[tuple]) -> None:  # type: ignore[type-arg]
    script, check = open_hosts()
    assert script.connection is not None
    for flags, seq, ack, data, window, sacks, wait in segments:
        script.connection.write(b"z" * 3000)
        script.say(
            flags, data, seq=ISS + seq, ack=script.ack + ack, window=window, sacks=tuple(sacks)
        )
        script.connection.read(500)
        script.wait(wait)
        check()
    sender = script.connection.sender
    assert sender._board.pipe >= 0
    assert sender.una <= sender.nxt


@pytest.mark.parametrize("layer", ["ARP", "IP", "ICMP", "UDP", "TCP"])
def test_frames_of_scapy_are_survived(layer: str) -> None:
    link = l2.Ether(dst="02:00:00:00:00:0a", src="02:00:00:00:00:0b")
    whole = inet.IP(dst="10.0.0.1", src="10.0.0.2")
    fuzz, body = packet.fuzz, packet.Raw(b"x" * 40)
    made: dict[str, Callable[[], object]] = {
        "ARP": lambda: link / fuzz(l2.ARP(pdst="10.0.0.1")),
        "IP": lambda: link / fuzz(inet.IP(dst="10.0.0.1")) / body,
        "ICMP": lambda: link / whole / fuzz(inet.ICMP()) / body,
        "UDP": lambda: link / whole / fuzz(inet.UDP(dport=9)) / body,
        "TCP": lambda: link / whole / fuzz(inet.TCP(sport=4000, dport=80)) / body,
    }
    script, check = open_hosts()
    random.seed(layer)
    for n in range(200):
        script.now += MILLISECOND
        script.host.input(bytes(made[layer]()), script.now)  # type: ignore[call-overload]
        if n % 20 == 0:
            script.hear()
    check()
