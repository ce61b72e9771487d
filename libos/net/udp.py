"""UDP. Source: RFC 768; RFC 1122, section 4.1.

A socket keeps what arrives in a queue bounded in datagrams and in bytes; what finds it full is
dropped and counted.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from libos.net import checksum
from libos.net.base import Drops, Ip, Malformed
from libos.net.ipv4 import UDP

HEADER: Final = 8
MAX_PAYLOAD: Final = 65535 - 20 - HEADER
_MAX_QUEUED: Final = 256
_MAX_BYTES: Final = 256 * 1024
EPHEMERAL: Final = range(49152, 65536)


@dataclass(frozen=True, slots=True)
class Datagram:
    """What arrived, and from whom."""

    source: Ip
    port: int
    data: bytes


def parse_udp_untrusted(
    data: memoryview, source: Ip, destination: Ip
) -> tuple[int, int, memoryview]:
    """Source port, destination port, payload. Raises Malformed."""
    if len(data) < HEADER:
        raise Malformed("udp: truncated")
    from_port, to_port, length, summed = struct.unpack_from(">HHHH", data)
    if not HEADER <= length <= len(data):
        raise Malformed("udp: impossible length")
    data = data[:length]
    # 0 says that the sender did not sum.
    if summed and not checksum.holds(
        data, checksum.pseudo_header(source, destination, UDP, length)
    ):
        raise Malformed("udp: checksum")
    return from_port, to_port, data[HEADER:]


def udp_datagram(source: Ip, destination: Ip, from_port: int, to_port: int, data: bytes) -> bytes:
    """Header and payload."""
    length = HEADER + len(data)
    header = struct.pack(">HHHH", from_port, to_port, length, 0)
    total = checksum.partial_sum(header) + checksum.partial_sum(data)
    total += checksum.pseudo_header(source, destination, UDP, length)
    # A sum of 0 would say that there is none; 65535 is the other zero.
    return header[:6] + (checksum.finish(total) or 0xFFFF).to_bytes(2, "big") + data


class UdpSocket:
    """One port of a host. Made by `Host.udp_open`."""

    def __init__(self, port: int, send: Callable[[UdpSocket, Ip, int, bytes], None]) -> None:
        self.port = port
        self.errors: deque[tuple[Ip, int]] = deque(maxlen=16)  # who said: nobody is here
        self._send = send
        self._queue: deque[Datagram] = deque()
        self._bytes = 0

    def send_to(self, data: bytes, destination: Ip, port: int) -> None:
        """Send one datagram; it may be lost, and nobody says so. Raises ValueError: too long."""
        if len(data) > MAX_PAYLOAD or not 0 < port < 65536:
            raise ValueError("a datagram has at most 65507 bytes, a port 1 to 65535")
        self._send(self, destination, port, data)

    def receive(self) -> Datagram | None:
        """The oldest datagram that waits."""
        if not self._queue:
            return None
        datagram = self._queue.popleft()
        self._bytes -= len(datagram.data)
        return datagram

    def deliver(self, datagram: Datagram, drops: Drops) -> None:
        """For the host: a datagram has come."""
        if len(self._queue) >= _MAX_QUEUED or self._bytes + len(datagram.data) > _MAX_BYTES:
            drops["udp: queue full"] += 1
            return
        self._queue.append(datagram)
        self._bytes += len(datagram.data)
