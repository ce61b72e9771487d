"""Packet rings: where received packets wait, in memory that kernel and application share.

The first page holds the numbers, the other pages the slots:

    0   u64 produced     packets put in so far; written by the kernel
    8   u64 consumed     packets taken out so far; written by the application
    16  u64 dropped      packets that found the ring full, or did not fit; by the kernel
    24  u32 slots, u32 bytes of a slot

A slot: u64 time of arrival in nanoseconds, u32 length, u32 zero, the packet. Packet number k lies
in slot k mod slots. Little-endian.

The kernel believes nothing that it reads here: its own count is what it goes by, and a `consumed`
that can't be makes the ring look full. So an application can lose its own packets, nothing more.
"""

from __future__ import annotations

import struct
from typing import Final

from xnfs.errors import Refused

PAGE: Final = 4096
_NUMBERS: Final = struct.Struct("<QQQII")
_SLOT: Final = struct.Struct("<QII")
MAX_PAGES: Final = 1024


def slot_bytes(mtu: int) -> int:
    """How large the slots of a ring are: a power of two, at least two in a page if possible."""
    return max(512, 1 << (_SLOT.size + 14 + mtu - 1).bit_length())


class Ring:
    """The kernel's side of a ring."""

    def __init__(self, memory: memoryview, mtu: int) -> None:
        """Over whole pages, which it clears. Raises Refused: too few for one slot."""
        self._memory = memory
        self._slot = slot_bytes(mtu)
        self._slots = (len(memory) - PAGE) // self._slot
        if self._slots < 1:
            raise Refused(f"a ring of {len(memory) // PAGE} pages has no room for a packet")
        memory[:] = bytes(len(memory))  # the last owner's bytes are nobody's business
        self._produced = self.dropped = 0
        self._publish(0)

    @property
    def produced(self) -> int:
        """Packets put in so far."""
        return self._produced

    def put(self, frame: bytes | memoryview, time: int) -> bool:
        """Add a packet. False: there is no room, and it is counted as dropped."""
        consumed = self._consumed_untrusted()
        waiting = self._produced - consumed
        if not 0 <= waiting < self._slots or _SLOT.size + len(frame) > self._slot:
            self.dropped += 1
            self._publish(consumed)
            return False
        at = PAGE + self._produced % self._slots * self._slot
        _SLOT.pack_into(self._memory, at, time, len(frame), 0)
        self._memory[at + _SLOT.size : at + _SLOT.size + len(frame)] = frame
        self._produced += 1
        self._publish(consumed)
        return True

    def empty(self) -> bool:
        """Whether the application has taken all, as far as it says."""
        return self._consumed_untrusted() == self._produced

    def _consumed_untrusted(self) -> int:
        return int.from_bytes(self._memory[8:16], "little")

    def _publish(self, consumed: int) -> None:
        _NUMBERS.pack_into(
            self._memory, 0, self._produced, consumed, self.dropped, self._slots, self._slot
        )


class RingReader:
    """The application's side, over the same memory."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        _, self._consumed, _, self._slots, self._slot = _NUMBERS.unpack_from(memory, 0)

    @property
    def dropped(self) -> int:
        """Packets that the kernel could not put in."""
        return int.from_bytes(self._memory[16:24], "little")

    def take(self) -> tuple[int, bytes] | None:
        """The oldest packet and its time of arrival; its slot is free for another."""
        if int.from_bytes(self._memory[0:8], "little") == self._consumed:
            return None
        at = PAGE + self._consumed % self._slots * self._slot
        time, length, _zero = _SLOT.unpack_from(self._memory, at)
        frame = bytes(self._memory[at + _SLOT.size : at + _SLOT.size + length])
        self._consumed += 1
        self._memory[8:16] = self._consumed.to_bytes(8, "little")
        return time, frame
