"""ICMP: echo, and the errors that tell a sender what became of its packet.

Sources: RFC 792; RFC 1122, section 3.2.2 (no error about an error, a broadcast, or any fragment
but the first); RFC 1191 (the size of packet that a path takes); RFC 1812, section 4.3.2.8 (rate).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from libos.net import checksum
from libos.net.base import SECOND, Ip, Malformed

ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
ECHO: Final = 8
TIME_EXCEEDED: Final = 11

PORT: Final = 3  # codes of UNREACHABLE
FRAGMENTATION_NEEDED: Final = 4
PROTOCOL: Final = 2
REASSEMBLY: Final = 1  # a code of TIME_EXCEEDED

ERRORS: Final = (UNREACHABLE, 4, 5, TIME_EXCEEDED, 12)
_HEADER: Final = 8
_RATE: Final = 100  # errors a second
_MIN_MTU: Final = 576


@dataclass(frozen=True, slots=True)
class Message:
    """One ICMP message: `rest` is the second word, `body` what follows."""

    type: int
    code: int
    rest: int
    body: memoryview


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet of ours that an error is about."""

    source: Ip
    destination: Ip
    protocol: int
    source_port: int
    destination_port: int
    sequence: int  # of a TCP segment


def parse_icmp_untrusted(data: memoryview) -> Message:
    """Raises Malformed."""
    if len(data) < _HEADER:
        raise Malformed("icmp: truncated")
    if not checksum.holds(data):
        raise Malformed("icmp: checksum")
    kind, code, _sum, rest = struct.unpack_from(">BBHI", data)
    return Message(kind, code, rest, data[_HEADER:])


def parse_quoted_untrusted(body: memoryview) -> Quoted:
    """What an error quotes: an IPv4 header and eight bytes more. Raises Malformed."""
    size = (body[0] & 15) * 4 if len(body) else 0
    if size < 20 or len(body) < size + 8 or body[0] >> 4 != 4:
        raise Malformed("icmp: quotes no packet")
    protocol, source, destination = struct.unpack_from(">xB2xII", body, 8)
    if int.from_bytes(body[6:8], "big") & 0x1FFF:
        raise Malformed("icmp: quotes a later fragment")
    from_port, port, sequence = struct.unpack_from(">HHI", body, size)
    return Quoted(Ip(source), Ip(destination), protocol, from_port, port, sequence)


def icmp_message(kind: int, code: int, rest: int, body: bytes | memoryview) -> bytes:
    """The bytes."""
    message = bytearray(struct.pack(">BBHI", kind, code, 0, rest)) + body
    checksum.stamp(message, 2)
    return bytes(message)


def next_hop_mtu(rest: int, quoted_length: int) -> int:
    """What FRAGMENTATION_NEEDED says; routers older than RFC 1191 say 0: then a step down."""
    said = rest & 0xFFFF
    return max(said, _MIN_MTU) if said else max(_MIN_MTU, quoted_length * 3 // 4)


class RateLimit:
    """So many events a second, a second's worth of them at once."""

    def __init__(self, rate: int = _RATE) -> None:
        self._rate = rate
        self._full_at = 0  # when all allowance will be back

    def allow(self, now: int) -> bool:
        """Whether one more may happen now; if so, it did."""
        start = max(self._full_at, now)
        if start + SECOND // self._rate > now + SECOND:
            return False
        self._full_at = start + SECOND // self._rate
        return True
