"""A network interface: the seam between the exokernel and what moves Ethernet frames.

A TAP device (`tap`), a simulated wire (`wire`), a recording and its replay (`pcap`) all look like
this, and stack. A frame is the bytes from the destination address to the end of the payload: no
preamble, no frame check sequence. Times are integers, nanoseconds of whatever clock is in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

#: Says what time it is, in nanoseconds. A virtual clock makes everything above deterministic.
Clock = Callable[[], int]

ETHERNET_HEADER: Final = 14
DEFAULT_MTU: Final = 1500
SECOND: Final = 1_000_000_000


class Interface(Protocol):
    """Sends and receives whole frames. No call waits."""

    @property
    def mtu(self) -> int:
        """The longest payload of a frame, in bytes; frames are up to 14 bytes longer."""

    def send(self, frame: bytes) -> bool:
        """Hand over one frame. False: it was dropped, because the way out is full.

        True promises nothing: like on any wire, the frame may still be lost.
        """

    def receive(self) -> bytes | None:
        """The next frame that has arrived; None if there is none now."""


def fits(frame: bytes, mtu: int) -> bool:
    """Whether a frame has a whole header and no more payload than the interface carries."""
    return ETHERNET_HEADER <= len(frame) <= ETHERNET_HEADER + mtu
