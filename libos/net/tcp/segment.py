"""TCP segments: bytes to fields and back, options included.

Sources: RFC 9293, sections 3.1 and 3.2; RFC 6691 (what MSS counts); RFC 7323 (window scale);
RFC 2018 (SACK). Sequence numbers are 32 bits in a segment and unbounded everywhere else: `unwrap`
makes one from the other, so that no comparison above this file has to think of overflow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from libos.net import checksum
from libos.net.base import Ip, Malformed
from libos.net.ipv4 import TCP

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16

HEADER: Final = 20
MODULUS: Final = 1 << 32
MAX_SHIFT: Final = 14  # RFC 7323, section 2.3
DEFAULT_MSS: Final = 536  # RFC 9293, section 3.7.1: when the peer names none
MIN_MSS: Final = 64  # a peer that names less makes us send headers only
_FORMAT: Final = struct.Struct(">HHIIBBHHH")

Data = bytes | bytearray | memoryview
Sacks = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Segment:
    """One segment. `mss`, `shift` and `sack_ok` are options of a SYN."""

    source_port: int
    port: int
    seq: int
    ack: int
    flags: int
    window: int
    data: tuple[Data, ...] = ()
    mss: int | None = None
    shift: int | None = None
    sack_ok: bool = False
    sacks: Sacks = ()

    @property
    def length(self) -> int:
        """How much of the sequence space it takes."""
        return sum(map(len, self.data)) + (self.flags & SYN and 1) + (self.flags & FIN and 1)


def unwrap(seq: int, near: int) -> int:
    """The unbounded number that is `seq` modulo 2**32 and closest to `near`."""
    return near + ((seq - near + (MODULUS >> 1)) % MODULUS) - (MODULUS >> 1)


def parse_tcp_untrusted(data: memoryview, source: Ip, destination: Ip) -> Segment:
    """Raises Malformed."""
    if len(data) < HEADER:
        raise Malformed("tcp: truncated")
    from_port, port, seq, ack, offset, flags, window, _sum, _urgent = _FORMAT.unpack_from(data)
    size = (offset >> 4) * 4
    if not HEADER <= size <= len(data):
        raise Malformed("tcp: impossible header length")
    if not checksum.holds(data, checksum.pseudo_header(source, destination, TCP, len(data))):
        raise Malformed("tcp: checksum")
    if from_port == 0 or port == 0:
        raise Malformed("tcp: port 0")
    rest = data[size:]
    segment = Segment(from_port, port, seq, ack, flags & 0x1F, window, (rest,) if rest else ())
    if size > HEADER:
        parse_options_untrusted(data[HEADER:size], segment)
    return segment


def parse_options_untrusted(options: memoryview, segment: Segment) -> None:
    """Take in the options of a segment. Raises Malformed."""
    at = 0
    while at < len(options) and options[at] != 0:
        kind = options[at]
        if kind == 1:
            at += 1
            continue
        if at + 1 >= len(options) or not 2 <= options[at + 1] <= len(options) - at:
            raise Malformed("tcp: options")
        _option_untrusted(kind, options[at + 2 : at + options[at + 1]], segment)
        at += options[at + 1]


def _option_untrusted(kind: int, value: memoryview, segment: Segment) -> None:
    """Take in what is understood and whole; all other options are skipped, as RFC 9293 says."""
    if segment.flags & SYN:
        if kind == 2 and len(value) == 2:
            segment.mss = max(int.from_bytes(value, "big"), MIN_MSS)
        elif kind == 3 and len(value) == 1:
            segment.shift = min(value[0], MAX_SHIFT)
        elif kind == 4 and not len(value):
            segment.sack_ok = True
    elif kind == 5 and len(value) and len(value) % 8 == 0:
        edges = struct.unpack(f">{len(value) // 4}I", value)
        segment.sacks = tuple(zip(edges[::2], edges[1::2], strict=True))


def build_tcp(segment: Segment, source: Ip, destination: Ip, *, cut: bool = False) -> bytearray:
    """The header of a segment; its data follow.

    `cut`: the interface cuts it, and sums each part beginning with the sum of the pseudo header.
    """
    options = build_options(segment)
    size = HEADER + len(options)
    header = bytearray(
        _FORMAT.pack(
            segment.source_port,
            segment.port,
            segment.seq % MODULUS,
            segment.ack % MODULUS,
            size // 4 << 4,
            segment.flags,
            segment.window,
            *(0, 0),
        )
    )
    header += options
    length = size + sum(map(len, segment.data))
    before = checksum.pseudo_header(source, destination, TCP, length)
    if cut:
        struct.pack_into(">H", header, 16, checksum.fold(before))
    else:
        checksum.stamp(header, 16, _sum(segment.data) + before)
    return header


def _sum(data: tuple[Data, ...]) -> int:
    if len(data) <= 1:
        return checksum.partial_sum(data[0]) if data else 0
    return checksum.partial_sum(b"".join(data))  # the parts may have odd lengths


def build_options(segment: Segment) -> bytes:
    """The options of a segment, a multiple of four bytes long."""
    options = b""
    if segment.flags & SYN:
        if segment.mss is not None:
            options += struct.pack(">BBH", 2, 4, segment.mss)
        if segment.sack_ok:
            options += b"\x01\x01\x04\x02"
        if segment.shift is not None:
            options += struct.pack(">BBBB", 1, 3, 3, segment.shift)
    elif segment.sacks:
        edges = [edge % MODULUS for block in segment.sacks for edge in block]
        options += struct.pack(f">BBBB{len(edges)}I", 1, 1, 5, 2 + 4 * len(edges), *edges)
    return options
