"""What all protocols share: addresses, times, the error for bad packets, the count of drops."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final, NewType

Ip = NewType("Ip", int)  # IPv4, as the number that its four bytes spell
Mac = NewType("Mac", bytes)  # six bytes

BROADCAST_MAC: Final = Mac(b"\xff" * 6)
BROADCAST_IP: Final = Ip(0xFFFFFFFF)

SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000

#: Why packets were dropped, and how often.
Drops = Counter[str]


class Malformed(Exception):
    """A packet is not what its protocol asks for. Raised by what parses, caught by `Host.input`.

    `reason` is one of a fixed set of words, so that counting them takes bounded memory.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def ip(text: str) -> Ip:
    """The address that a dotted quad names. Raises ValueError."""
    return Ip(int(ipaddress.IPv4Address(text)))


def mac(text: str) -> Mac:
    """The address written as `02:00:00:00:00:01`. Raises ValueError."""
    raw = bytes.fromhex(text.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"an Ethernet address has six bytes: {text!r}")
    return Mac(raw)


def is_unicast(address: int) -> bool:
    """Whether an address can be one host's: neither multicast nor reserved nor 0.0.0.0/8."""
    return 0x01000000 <= address < 0xE0000000


def earliest(*times: int | None) -> int | None:
    """The first of some times, those that are None left out."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
