"""Handlers (ASHs) for an endpoint: sources in the kernel's language, and the areas they need."""

from __future__ import annotations

from typing import Final

from libos.net.base import Ip, Mac
from libos.net.ethernet import TYPE_IPV4, ethernet_header
from libos.net.ipv4 import ICMP, whole
from xnfs.net import Action

_REPLY: Final = 256  # where in the area the prebuilt packet lies: behind the state
_LONGEST: Final = 1500

#: Answers ICMP echo requests in the kernel, whoever is running. The request is copied and its
#: checksum verified in one action; what differs in the reply is then patched.
ECHO: Final = f"""\
def handle(pkt, state, now):
    if len(pkt) < 42 or be16(pkt, 12) != 0x0800 or u8(pkt, 14) != 0x45:
        return
    if u8(pkt, 23) != {ICMP} or be16(pkt, 34) != 0x0800:
        return
    total = be16(pkt, 16)
    if total < 28 or total > {_LONGEST} or total + 14 > len(pkt):
        return
    emit({Action.COPY_SUM}, {_REPLY + 34}, 34, total - 20, 0xffff)
    emit({Action.COPY}, {_REPLY}, 6, 6, 0)
    emit({Action.COPY}, {_REPLY + 30}, 26, 4, 0)
    emit({Action.STORE}, {_REPLY + 16}, 2, total, 0)
    emit({Action.SUM}, {_REPLY + 24}, {_REPLY + 14}, 20, 0)
    emit({Action.STORE}, {_REPLY + 34}, 2, 0, 0)
    emit({Action.SUM}, {_REPLY + 36}, {_REPLY + 34}, total - 20, 0)
    emit({Action.SEND}, {_REPLY}, total + 14, 0, 0)
"""


def prepare_echo(area: memoryview, mac: Mac, address: Ip) -> None:
    """Build the packet that `ECHO` fills in. The area needs one page."""
    header = ethernet_header(Mac(bytes(6)), mac, TYPE_IPV4) + whole(address, Ip(0), ICMP, 0)
    area[_REPLY : _REPLY + len(header)] = header
