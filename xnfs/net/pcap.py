"""Recording frames in pcap files, and replaying them.

The classic format, which tcpdump, tshark and everything else can read: a file header of 24 bytes,
then for each frame a header of 16 and its bytes. Written with nanosecond times, read with either
resolution and either byte order. Source: draft-ietf-opsawg-pcap.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from xnfs.net.interface import DEFAULT_MTU, SECOND, Clock, Interface

_NANO: Final = 0xA1B23C4D
_MICRO: Final = 0xA1B2C3D4
_ETHERNET: Final = 1
_SNAPLEN: Final = 262144  # the longest frame that any reader accepts
_FILE: Final = "IHHiIII"  # magic, version 2.4, time zone, accuracy, snapshot length, link type
_RECORD: Final = "IIII"  # seconds, fraction, bytes here, bytes on the wire


class PcapError(Exception):
    """The bytes are not a pcap file of Ethernet frames; where reading stopped is in the text."""


@dataclass(frozen=True, slots=True)
class Record:
    """One frame and when it was seen, in nanoseconds since 1970, or since whatever began at 0."""

    time: int
    frame: bytes


class PcapWriter:
    """Appends frames to a file that is open for binary writing, and does not close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(struct.pack("<" + _FILE, _NANO, 2, 4, 0, 0, _SNAPLEN, _ETHERNET))

    def write(self, time: int, frame: bytes) -> None:
        """Append one frame."""
        seconds, fraction = divmod(time, SECOND)
        kept = frame[:_SNAPLEN]
        self._file.write(
            struct.pack("<" + _RECORD, seconds & 0xFFFFFFFF, fraction, len(kept), len(frame))
        )
        self._file.write(kept)


def read_pcap_untrusted(file: BinaryIO) -> Iterator[Record]:
    """The frames of a pcap file, one by one. Raises PcapError where the file is not one."""
    head = file.read(24)
    if len(head) < 24:
        raise PcapError("shorter than a file header")
    for order in "<>":
        magic, major, _minor, _zone, _accuracy, _snap, link = struct.unpack(order + _FILE, head)
        if magic in (_NANO, _MICRO):
            break
    else:
        raise PcapError("no pcap magic")
    if major != 2 or link & 0x0FFFFFFF != _ETHERNET:
        raise PcapError(f"version {major}, link type {link}: only 2 and Ethernet are known")
    tick = 1 if magic == _NANO else 1000
    number = 0
    while head := file.read(16):
        if len(head) < 16:
            raise PcapError(f"the header of frame {number} is cut short")
        seconds, fraction, here, _wire = struct.unpack(order + _RECORD, head)
        frame = file.read(here) if here <= _SNAPLEN else b""
        if len(frame) < here or fraction * tick >= SECOND:
            raise PcapError(f"frame {number} is cut short, or has no possible time")
        yield Record(seconds * SECOND + fraction * tick, frame)
        number += 1


class Recorded:
    """An `Interface` over another one that records what passes, both ways."""

    def __init__(self, below: Interface, writer: PcapWriter, clock: Clock) -> None:
        self._below, self._writer, self._clock = below, writer, clock

    @property
    def mtu(self) -> int:
        """See Interface."""
        return self._below.mtu

    def send(self, frame: bytes) -> bool:
        """See Interface. A frame that was dropped is not recorded."""
        taken = self._below.send(frame)
        if taken:
            self._writer.write(self._clock(), frame)
        return taken

    def receive(self) -> bytes | None:
        """See Interface."""
        frame = self._below.receive()
        if frame is not None:
            self._writer.write(self._clock(), frame)
        return frame


class Replay:
    """An `Interface` on which recorded frames arrive as far apart as they were seen.

    What is sent is kept in `sent`, and goes nowhere.
    """

    def __init__(self, records: Iterable[Record], clock: Clock, mtu: int = DEFAULT_MTU) -> None:
        self._waiting = deque(records)
        self._clock = clock
        first = self._waiting[0].time if self._waiting else 0
        self._shift = clock() - first
        self._mtu = mtu
        self.sent: list[bytes] = []

    @property
    def mtu(self) -> int:
        """See Interface."""
        return self._mtu

    def send(self, frame: bytes) -> bool:
        """See Interface."""
        self.sent.append(bytes(frame))
        return True

    def receive(self) -> bytes | None:
        """See Interface."""
        due = self.next_arrival()
        if due is None or due > self._clock():
            return None
        return self._waiting.popleft().frame

    def next_arrival(self) -> int | None:
        """When the next frame is due; None when all have been given."""
        return self._waiting[0].time + self._shift if self._waiting else None
