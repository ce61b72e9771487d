"""A kernel's network on one end of a wire, and packets to send from the other."""

from __future__ import annotations

import struct

from libos.net.base import ip, mac
from libos.net.filters import from_port, to_port
from libos.net.ipv4 import fragments, ipv4_header
from libos.net.udp import udp_datagram
from xnfs.capability import ALL, Capabilities
from xnfs.memory.frames import FramePool
from xnfs.net import Bound, Conditions, Network, RingReader, VirtualClock, Wire
from xnfs.net.handler import STEPS_PER_SECOND

HOST = ip("10.0.0.1")
PEER = ip("10.0.0.9")
MAC = mac("02:00:00:00:00:01")
PEER_MAC = mac("02:00:00:00:00:09")
UDP = 17
LINK = MAC + PEER_MAC + b"\x08\x00"
LINK_BACK = PEER_MAC + MAC + b"\x08\x00"


def udp(port: int, data: bytes = b"hello", source_port: int = 1000) -> bytes:
    """A frame from the peer."""
    datagram = udp_datagram(PEER, HOST, source_port, port, data)
    return LINK + bytes(ipv4_header(PEER, HOST, UDP, len(datagram), 7, 0)) + datagram


def udp_back(port: int, data: bytes = b"hello") -> bytes:
    """A frame to the peer, from a port of the host."""
    datagram = udp_datagram(HOST, PEER, port, 1000, data)
    return LINK_BACK + bytes(ipv4_header(HOST, PEER, UDP, len(datagram), 7, 0)) + datagram


def in_fragments(port: int, data: bytes, ident: int = 5, back: bool = False) -> list[bytes]:
    """The frames of one datagram, in packets of at most 600 bytes."""
    here, there = (HOST, PEER) if back else (PEER, HOST)
    ports = (port, 1000) if back else (1000, port)
    datagram = udp_datagram(here, there, *ports, data)
    pieces = fragments(here, there, UDP, datagram, ident, 600)
    return [(LINK_BACK if back else LINK) + bytes(h) + bytes(p) for h, p in pieces]


def with_options(frame: bytes, words: int) -> bytes:
    """The same packet with so many words of options in its IPv4 header."""
    header = bytearray(frame[14:34])
    header[0] = 0x40 | 5 + words
    header[2:4] = struct.pack(">H", len(frame) - 14 + 4 * words)
    return frame[:14] + bytes(header) + b"\x01" * 4 * words + frame[34:]


class Kernel:
    """A network with one interface, `eth`."""

    def __init__(self, frames: int = 256, handler_steps: int = STEPS_PER_SECOND) -> None:
        self.clock = VirtualClock(1_000_000_000)
        self.wire = Wire(self.clock, Conditions())
        self.capabilities = Capabilities(b"secret")
        self.pool = FramePool(frames)
        self.woken: list[int] = []
        wake = self.woken.append
        self.net = Network(self.capabilities, self.pool, self.clock, wake, handler_steps)
        self.net.attach("eth", self.wire.a)

    def application(self, name: str) -> bytes:
        """A capability to bind endpoints."""
        return self.capabilities.mint(("net", "eth"), ALL, name)

    def bind(self, name: str, port: int, pages: int = 3, wakes: int | None = None) -> Bound:
        """An endpoint for a UDP port of the host."""
        receives, sends = to_port(HOST, UDP, port), from_port(HOST, UDP, port)
        return self.net.bind(self.application(name), "eth", receives, sends, pages, wakes=wakes)

    def reader(self, bound: Bound) -> RingReader:
        """The application's side of an endpoint's ring."""
        return RingReader(self.net.ring(bound.capability, bound.endpoint))

    def arrive(self, *frames: bytes) -> None:
        """Frames come in from the wire."""
        for frame in frames:
            assert self.wire.b.send(frame)
        self.net.service()

    def left(self) -> list[bytes]:
        """What the kernel has sent."""
        frames = []
        while (frame := self.wire.b.receive()) is not None:
            frames.append(frame)
        return frames


def waiting(reader: RingReader) -> list[bytes]:
    """All packets of a ring."""
    frames = []
    while (taken := reader.take()) is not None:
        frames.append(taken[1])
    return frames
