"""A peer that says exactly what a test tells it to, and a host to say it to."""

from __future__ import annotations

from typing import Any

from libos.net.arp import REPLY, ArpPacket, arp_packet
from libos.net.base import SECOND, Ip, ip, mac
from libos.net.ethernet import HEADER, TYPE_ARP, TYPE_IPV4, ethernet_header
from libos.net.host import Address, Host
from libos.net.ipv4 import TCP, parse_ipv4_untrusted, whole
from libos.net.tcp.connection import Connection
from libos.net.tcp.segment import ACK, SYN, Segment, build_tcp, parse_tcp_untrusted
from libos.net.tcp.state import State
from libos.net.tcp.tuning import Tuning

HOST = Address(mac("02:00:00:00:00:0a"), ip("10.0.0.1"))
PEER = Address(mac("02:00:00:00:00:0b"), ip("10.0.0.2"))
ISS = 0xFFFFFF00  # the peer's numbers pass 2**32 soon


class Script:
    """`say` gives the host a segment, `hear` what it answers, `wait` lets time pass."""

    def __init__(self, tuning: Tuning | None = None) -> None:
        self.now = SECOND
        self.host = Host(HOST, seed=1, tuning=tuning)
        self.port, self.host_port = 4000, 80
        self.seq = ISS
        self.ack = 0
        self.connection: Connection | None = None

    def frame(
        self,
        flags: int,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        window: int = 8192,
        source: Ip = PEER.ip,
        port: int | None = None,
        mss: int | None = None,
        sack_ok: bool = False,
        sacks: tuple[tuple[int, int], ...] = (),
    ) -> bytes:
        """A segment of the peer, as a frame."""
        segment = Segment(
            port or self.port,
            self.host_port,
            self.seq if seq is None else seq,
            self.ack if ack is None else ack,
            flags,
            window,
            (data,) if data else (),
            mss=mss,
            sack_ok=sack_ok,
            sacks=sacks,
        )
        header = build_tcp(segment, source, HOST.ip)
        before = whole(source, HOST.ip, TCP, len(header) + len(data))
        return ethernet_header(HOST.mac, PEER.mac, TYPE_IPV4) + bytes(before) + header + data

    def say(self, flags: int, data: bytes = b"", **how: Any) -> list[Segment]:
        """The host takes a segment; what it answers."""
        self.host.input(self.frame(flags, data, **how), self.now)
        return self.hear()

    def hear(self) -> list[Segment]:
        """The segments that the host sends to the peer now. Who asks for it by ARP is answered."""
        self.host.advance(self.now)
        heard = []
        frames = self.host.take()
        if any(frame[12:14] == b"\x08\x06" for frame in frames):
            answer = ArpPacket(REPLY, PEER.mac, PEER.ip, HOST.mac, HOST.ip)
            header = ethernet_header(HOST.mac, PEER.mac, TYPE_ARP)
            self.host.input(header + arp_packet(answer), self.now)
            frames += self.host.take()
        for frame in frames:
            if frame[12:14] == b"\x08\x00" and frame[23] == TCP:
                packet = parse_ipv4_untrusted(memoryview(frame)[HEADER:])
                heard.append(parse_tcp_untrusted(packet.payload, packet.source, packet.destination))
        return heard

    def wait(self, seconds: float) -> list[Segment]:
        """Let time pass, timer by timer; all that the host sends meanwhile."""
        heard = self.hear()
        end = self.now + int(seconds * SECOND)
        while (due := self.host.deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            heard += self.hear()
        self.now = end
        return heard + self.hear()

    def next(self) -> list[Segment]:
        """Let time pass until a timer is due; what the host sends then."""
        self.now = self.host.deadline() or self.now
        return self.hear()

    def open(self, **how: Any) -> Connection:
        """The peer opens a connection to port 80, which the host accepts."""
        listener = self.host.tcp.listen(80)
        (answer,) = self.say(SYN, **how)
        assert answer.flags == SYN | ACK
        self.seq, self.ack = ISS + 1, answer.seq + 1
        assert self.say(ACK) == []
        connection = listener.accept()
        assert connection is not None
        assert connection.state is State.ESTABLISHED
        self.connection = connection
        return connection
