"""Ethernet II: six bytes to, six bytes from, two bytes of type. Source: RFC 894."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from libos.net.base import Mac, Malformed

HEADER: Final = 14
TYPE_IPV4: Final = 0x0800
TYPE_ARP: Final = 0x0806


@dataclass(frozen=True, slots=True)
class EthernetHeader:
    """The header of one frame."""

    destination: Mac
    source: Mac
    type: int


def parse_ethernet_untrusted(frame: bytes) -> tuple[EthernetHeader, memoryview]:
    """The header and what follows it, padding included. Raises Malformed."""
    if len(frame) < HEADER:
        raise Malformed("ethernet: truncated")
    kind = int.from_bytes(frame[12:14], "big")
    return EthernetHeader(Mac(frame[:6]), Mac(frame[6:12]), kind), memoryview(frame)[HEADER:]


def ethernet_header(destination: Mac, source: Mac, kind: int) -> bytes:
    """The fourteen bytes."""
    return destination + source + kind.to_bytes(2, "big")
