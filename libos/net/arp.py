"""ARP: which Ethernet address has an IPv4 address. Source: RFC 826; RFC 1122, section 2.3.2.

The cache learns from whoever asks for or answers to us, and corrects what it has from anybody; it
believes no announcement about addresses it never asked for. What waits for an answer waits in a
short queue. Everything is bounded: entries, askings, packets that wait.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from libos.net.base import SECOND, Drops, Ip, Mac, Malformed, is_unicast

REQUEST: Final = 1
REPLY: Final = 2

_FORMAT: Final = ">HHBBH6sI6sI"  # hardware, protocol, their lengths, operation, two pairs
_BYTES: Final = struct.calcsize(_FORMAT)
_LIFETIME: Final = 60 * SECOND
_ASK_EVERY: Final = SECOND
_TRIES: Final = 3
_MAX_ENTRIES: Final = 512
_MAX_ASKING: Final = 64
_MAX_WAITING: Final = 16  # packets for one address

#: The parts of an IPv4 packet, to be joined behind an Ethernet header.
Parts = Sequence[bytes | bytearray | memoryview]


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """One ARP packet for IPv4 over Ethernet."""

    operation: int
    sender_mac: Mac
    sender_ip: Ip
    target_mac: Mac
    target_ip: Ip


def parse_arp_untrusted(data: memoryview) -> ArpPacket:
    """Raises Malformed."""
    if len(data) < _BYTES:
        raise Malformed("arp: truncated")
    hardware, protocol, hlen, plen, operation, *pairs = struct.unpack_from(_FORMAT, data)
    if (hardware, protocol, hlen, plen) != (1, 0x0800, 6, 4) or operation not in (REQUEST, REPLY):
        raise Malformed("arp: not IPv4 over Ethernet")
    packet = ArpPacket(operation, Mac(pairs[0]), Ip(pairs[1]), Mac(pairs[2]), Ip(pairs[3]))
    if packet.sender_mac[0] & 1:
        raise Malformed("arp: the sender is a group")
    return packet


def arp_packet(packet: ArpPacket) -> bytes:
    """The bytes."""
    return struct.pack(
        _FORMAT,
        *(1, 0x0800, 6, 4, packet.operation),
        *(packet.sender_mac, packet.sender_ip, packet.target_mac, packet.target_ip),
    )


@dataclass(slots=True)
class _Asking:
    next_try: int
    tries: int = 0
    waiting: list[Parts] = field(default_factory=list)


class ArpCache:
    """What one host knows of its neighbours' addresses."""

    def __init__(
        self,
        address: Ip,
        send_arp: Callable[[ArpPacket], None],
        send_ip: Callable[[Mac, Parts], None],
        own: Mac,
        drops: Drops,
    ) -> None:
        self._address, self._own, self._drops = address, own, drops
        self._send_arp, self._send_ip = send_arp, send_ip
        self._entries: OrderedDict[Ip, tuple[Mac, int]] = OrderedDict()  # with the time of its end
        self._asking: dict[Ip, _Asking] = {}

    def send(self, neighbour: Ip, parts: Parts, now: int) -> None:
        """Send a packet to a neighbour: now, when it has answered, or never."""
        entry = self._entries.get(neighbour)
        if entry is not None and now < entry[1]:
            self._send_ip(entry[0], parts)
            return
        asking = self._asking.get(neighbour)
        if asking is None:
            if len(self._asking) >= _MAX_ASKING:
                # The oldest goes: who floods us from addresses that nobody has gets no further.
                self._drops["arp: too many addresses asked for"] += 1
                del self._asking[next(iter(self._asking))]
            asking = self._asking[neighbour] = _Asking(now)
            self._ask(neighbour, asking, now)
        if len(asking.waiting) >= _MAX_WAITING:
            self._drops["arp: too many packets wait"] += 1
            return
        asking.waiting.append(parts)

    def input(self, packet: ArpPacket, now: int) -> None:
        """Learn from a packet that arrived, and answer if it asks for us."""
        sender = packet.sender_ip
        if sender == self._address:
            self._drops["arp: another host has our address"] += 1
            return
        asked = packet.target_ip == self._address
        if is_unicast(sender) and (sender in self._asking or asked or sender in self._entries):
            self._learn(sender, packet.sender_mac, now)
        if asked and packet.operation == REQUEST:
            self._send_arp(ArpPacket(REPLY, self._own, self._address, packet.sender_mac, sender))

    def lookup(self, address: Ip, now: int) -> Mac | None:
        """What is known of an address."""
        entry = self._entries.get(address)
        return entry[0] if entry is not None and now < entry[1] else None

    def deadline(self) -> int | None:
        """When `advance` has something to do."""
        return min((a.next_try for a in self._asking.values()), default=None)

    def advance(self, now: int) -> None:
        """Ask again, or give up and drop what waits."""
        for address, asking in list(self._asking.items()):
            if now < asking.next_try:
                continue
            if asking.tries < _TRIES:
                self._ask(address, asking, now)
            else:
                self._drops["arp: no answer"] += len(asking.waiting)
                del self._asking[address]

    def _ask(self, address: Ip, asking: _Asking, now: int) -> None:
        asking.tries += 1
        asking.next_try = now + _ASK_EVERY
        self._send_arp(ArpPacket(REQUEST, self._own, self._address, Mac(bytes(6)), address))

    def _learn(self, address: Ip, hardware: Mac, now: int) -> None:
        self._entries[address] = (hardware, now + _LIFETIME)
        self._entries.move_to_end(address)
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)
        asking = self._asking.pop(address, None)
        for parts in asking.waiting if asking else ():
            self._send_ip(hardware, parts)
