"""IPv4: headers, fragments both ways. Source: RFC 791; RFC 1122, section 3; RFC 6864.

Options are skipped on arrival, but for source routes, which are refused. Fragments that overlap
are evidence of an attack, never of a network (RFC 1858, RFC 3128): the whole datagram is dropped.
Routes, addresses and errors are `host` and `icmp`.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from libos.net import checksum
from libos.net.base import SECOND, Drops, Ip, Malformed

HEADER: Final = 20
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17

_FORMAT: Final = struct.Struct(">BBHHHBBHII")
_DONT_FRAGMENT: Final = 0x4000
_MORE: Final = 0x2000
_OFFSET: Final = 0x1FFF
_TTL: Final = 64
_SOURCE_ROUTES: Final = (131, 137)

MAX_DATAGRAMS: Final = 64
MAX_HELD: Final = 512 * 1024  # bytes of fragments, all datagrams together
MAX_PIECES: Final = 64  # fragments of one datagram
_LIFETIME: Final = 30 * SECOND
_MAX_PAYLOAD: Final = 65535 - HEADER


@dataclass(frozen=True, slots=True)
class Packet:
    """One IPv4 packet, whole or a fragment."""

    source: Ip
    destination: Ip
    protocol: int
    payload: memoryview
    identification: int
    offset: int  # in bytes, of a fragment's payload in its datagram
    more: bool
    head: memoryview  # the header, and the first bytes after it: what an ICMP error quotes

    @property
    def is_fragment(self) -> bool:
        """Whether there is more of this datagram elsewhere."""
        return self.more or self.offset > 0


def parse_ipv4_untrusted(data: memoryview) -> Packet:
    """The packet at the start of `data`; what follows its length is padding. Raises Malformed."""
    if len(data) < HEADER:
        raise Malformed("ipv4: truncated")
    first, _tos, total, ident, frag, _ttl, protocol, _sum, source, dest = _FORMAT.unpack_from(data)
    size = (first & 15) * 4
    if first >> 4 != 4 or size < HEADER:
        raise Malformed("ipv4: not a header")
    if not size <= total <= len(data):
        raise Malformed("ipv4: impossible length")
    if not checksum.holds(data[:size]):
        raise Malformed("ipv4: checksum")
    if size > HEADER:
        _check_options_untrusted(data[HEADER:size])
    payload = data[size:total]
    offset, more = (frag & _OFFSET) * 8, bool(frag & _MORE)
    if more and (len(payload) % 8 or not len(payload)):
        raise Malformed("ipv4: a fragment that ends between two units")
    if offset + len(payload) > _MAX_PAYLOAD:
        raise Malformed("ipv4: longer than a datagram can be")
    head = data[: min(total, size + 8)]
    return Packet(Ip(source), Ip(dest), protocol, payload, ident, offset, more, head)


def _check_options_untrusted(options: memoryview) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 >= len(options) or not 2 <= options[at + 1] <= len(options) - at:
            raise Malformed("ipv4: options")
        if options[at] in _SOURCE_ROUTES:
            raise Malformed("ipv4: source route")
        at += options[at + 1]


def ipv4_header(
    source: Ip, destination: Ip, protocol: int, length: int, ident: int, fragment: int
) -> bytearray:
    """The twenty bytes before `length` bytes of payload; `fragment` is that field as it is sent."""
    header = bytearray(
        _FORMAT.pack(
            *(0x45, 0, HEADER + length, ident, fragment, _TTL, protocol, 0, source, destination)
        )
    )
    checksum.stamp(header, 10)
    return header


def whole(source: Ip, destination: Ip, protocol: int, length: int) -> bytearray:
    """The header of a packet that must not be fragmented, which needs no identification."""
    return ipv4_header(source, destination, protocol, length, 0, _DONT_FRAGMENT)


def fragments(
    source: Ip, destination: Ip, protocol: int, payload: bytes, ident: int, mtu: int
) -> Iterator[tuple[bytearray, memoryview]]:
    """Header and payload of each packet that a datagram becomes: one, if it fits."""
    step = (mtu - HEADER) // 8 * 8
    view = memoryview(payload)
    if len(payload) <= mtu - HEADER:
        step = max(len(payload), 1)
    for at in range(0, max(len(payload), 1), step):
        piece = view[at : at + step]
        more = _MORE if at + step < len(payload) else 0
        header = ipv4_header(source, destination, protocol, len(piece), ident, more | at // 8)
        yield header, piece


@dataclass(slots=True)
class _Partial:
    """A datagram of which some fragments have come."""

    ends: int  # when it is given up
    pieces: dict[int, bytes] = field(default_factory=dict)
    total: int | None = None
    held: int = 0
    head: bytes = b""  # of the first fragment


_Key = tuple[int, int, int, int]  # source, destination, protocol, identification


class Reassembly:
    """Makes datagrams whole again, in bounded memory."""

    def __init__(self, drops: Drops) -> None:
        self._partial: OrderedDict[_Key, _Partial] = OrderedDict()
        self._held = 0
        self._drops = drops

    def add(self, packet: Packet, now: int) -> memoryview | None:
        """The payload of the datagram if this fragment makes it whole, else None."""
        key = (packet.source, packet.destination, packet.protocol, packet.identification)
        partial = self._partial.get(key)
        if partial is None:
            partial = self._partial[key] = _Partial(now + _LIFETIME)
        if not self._take(partial, packet):
            self._forget(key, "ipv4: fragments that contradict each other")
            return None
        while self._held > MAX_HELD or len(self._partial) > MAX_DATAGRAMS:
            self._forget(next(iter(self._partial)), "ipv4: too many fragments held")
        if partial.held != partial.total or key not in self._partial:
            return None
        del self._partial[key]
        self._held -= partial.held
        return memoryview(b"".join(partial.pieces[at] for at in sorted(partial.pieces)))

    def deadline(self) -> int | None:
        """When `advance` has something to do."""
        return next(iter(self._partial.values())).ends if self._partial else None

    def advance(self, now: int) -> list[bytes]:
        """Give up what waited too long; heads of first fragments that came, for ICMP errors."""
        heads = []
        while self._partial:
            key, partial = next(iter(self._partial.items()))
            if now < partial.ends:
                break
            self._forget(key, "ipv4: fragments missing")
            if partial.head:
                heads.append(partial.head)
        return heads

    def _take(self, partial: _Partial, packet: Packet) -> bool:
        """Keep a fragment. False: it can't belong to the same datagram as those before."""
        start, end = packet.offset, packet.offset + len(packet.payload)
        known = partial.pieces.get(start)
        if known is not None and known == packet.payload:
            return True  # the same one twice
        if any(s < end and start < s + len(p) for s, p in partial.pieces.items()):
            return False
        if not packet.more:
            if partial.total is not None:
                return False
            partial.total = end
        furthest = max((s + len(p) for s, p in partial.pieces.items()), default=0)
        if partial.total is not None and max(end, furthest) > partial.total:
            return False
        if len(partial.pieces) >= MAX_PIECES:
            return False
        partial.pieces[start] = bytes(packet.payload)
        partial.held += len(packet.payload)
        self._held += len(packet.payload)
        if start == 0:
            partial.head = bytes(packet.head)
        return True

    def _forget(self, key: _Key, why: str) -> None:
        self._drops[why] += 1
        self._held -= self._partial.pop(key).held
