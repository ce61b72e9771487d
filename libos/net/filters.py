"""Packet filters and templates for those who use IPv4: sources in the kernel's language.

They are ordinary programs: anybody may write others. What each accepts is in its docstring.
"""

from __future__ import annotations

from libos.net.base import Ip, Mac


def _number(mac: Mac) -> tuple[int, int]:
    return int.from_bytes(mac[:4], "big"), int.from_bytes(mac[4:], "big")


def nothing() -> str:
    """No packet: for who only receives, or only sends."""
    return "def accept(pkt):\n    return 0\n"


def for_host(address: Ip) -> str:
    """ARP about an address, and IPv4 to it: all that a host of its own needs."""
    return f"""\
def accept(pkt):
    if len(pkt) < 34:
        return 0
    if be16(pkt, 12) == 0x0806:
        return len(pkt) >= 42 and be32(pkt, 38) == {address}
    return be16(pkt, 12) == 0x0800 and u8(pkt, 14) >> 4 == 4 and be32(pkt, 30) == {address}
"""


def from_host(mac: Mac, address: Ip) -> str:
    """ARP and IPv4 that say truly who sends them."""
    high, low = _number(mac)
    return f"""\
def accept(pkt):
    if len(pkt) < 34 or be32(pkt, 6) != {high} or be16(pkt, 10) != {low}:
        return 0
    if be16(pkt, 12) == 0x0806:
        if be32(pkt, 22) != {high} or be16(pkt, 26) != {low}:
            return 0
        return be32(pkt, 28) == {address}
    return be16(pkt, 12) == 0x0800 and u8(pkt, 14) >> 4 == 4 and be32(pkt, 26) == {address}
"""


def to_port(address: Ip, protocol: int, port: int) -> str:
    """UDP (17) or TCP (6) to a port of an address, behind IPv4 headers of any length."""
    return _with_port(protocol, 30, address, 2, port)


def from_port(address: Ip, protocol: int, port: int) -> str:
    """UDP or TCP from a port of an address."""
    return _with_port(protocol, 26, address, 0, port)


def _with_port(protocol: int, address_at: int, address: Ip, port_at: int, port: int) -> str:
    return f"""\
def accept(pkt):
    if len(pkt) < 38 or be16(pkt, 12) != 0x0800:
        return 0
    if u8(pkt, 23) != {protocol} or be32(pkt, {address_at}) != {address}:
        return 0
    if u8(pkt, 14) < 0x45 or u8(pkt, 14) > 0x4f:
        return 0
    at = 14 + (u8(pkt, 14) & 15) * 4
    if len(pkt) < at + 4:
        return 0
    return be16(pkt, at + {port_at}) == {port}
"""
