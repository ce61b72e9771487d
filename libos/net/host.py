"""A host: Ethernet, ARP, IPv4, ICMP, UDP and TCP of one address, without input or output.

Frames and the time go in, frames come out; nothing here waits, sleeps or looks at a clock. So the
same code runs on a TAP device in real time (`loop`) and on a simulated wire under a virtual clock,
where every run is the same. A turn is:

    host.input(frame, now)      for each frame that came
    ...                         the application reads and writes its connections
    host.advance(now)           timers; and all that is to be sent
    host.take()                 the frames to send

Since nothing is sent before the application had its turn, an acknowledgement travels with the
answer to what it acknowledges, and a FIN with the last bytes (Kaashoek et al. 1997, section 7.3).

Guarantees: whatever the frames are, `input` raises nothing and takes bounded memory; what it does
not understand is dropped and counted in `drops`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from libos.net import icmp, ipv4
from libos.net.arp import ArpCache, ArpPacket, Parts, arp_packet, parse_arp_untrusted
from libos.net.base import (
    BROADCAST_IP,
    BROADCAST_MAC,
    Drops,
    Ip,
    Mac,
    Malformed,
    earliest,
    is_unicast,
)
from libos.net.ethernet import TYPE_ARP, TYPE_IPV4, ethernet_header, parse_ethernet_untrusted
from libos.net.tcp.fastpath import FastPath, Handler
from libos.net.tcp.table import TcpTable
from libos.net.tcp.tuning import Tuning
from libos.net.udp import EPHEMERAL, Datagram, UdpSocket, parse_udp_untrusted, udp_datagram


@dataclass(frozen=True, slots=True)
class Address:
    """Who a host is, and what it can reach without a router."""

    mac: Mac
    ip: Ip
    prefix: int = 24
    gateway: Ip | None = None

    @property
    def broadcast(self) -> int:
        """The address of all hosts on the link."""
        return self.ip | (0xFFFFFFFF >> self.prefix)

    def next_hop(self, destination: Ip) -> Ip | None:
        """Whose Ethernet address a packet goes to; None: there is no way."""
        if (destination ^ self.ip) >> (32 - self.prefix) == 0:
            return destination
        return self.gateway


class Host:
    """One host. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        address: Address,
        *,
        mtu: int = 1500,
        seed: int | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """With a `seed`, sequence numbers and ports are the same in each run."""
        self.address = address
        self.mtu = mtu
        self.drops: Drops = Drops()
        rng = random.SystemRandom() if seed is None else random.Random(seed)
        self._out: deque[bytes] = deque()
        self._arp = ArpCache(address.ip, self._send_arp, self._send_frame, address.mac, self.drops)
        self._reassembly = ipv4.Reassembly(self.drops)
        self._ident = rng.randrange(65536)
        self._ports = rng.randrange(len(EPHEMERAL))
        self._errors = icmp.RateLimit()
        self._udp: dict[int, UdpSocket] = {}
        self._now = 0
        self.tcp = TcpTable(address.ip, mtu, self._send_tcp, rng, self.drops, tuning or Tuning())
        self._fast: FastPath | None = None

    # --- one turn ---------------------------------------------------------------------------

    def input(self, frame: bytes, now: int) -> None:
        """Take in one frame. Raises nothing, whatever it is."""
        self._now = now
        if self._fast is not None and self._fast.input(frame, now):
            return
        try:
            self._input_untrusted(frame, now)
        except Malformed as error:
            self.drops[error.reason] += 1

    def advance(self, now: int) -> None:
        """Do what is due, and send what the application and the frames have given rise to."""
        self._now = now
        self._arp.advance(now)
        for head in self._reassembly.advance(now):
            self._icmp_error(icmp.TIME_EXCEEDED, icmp.REASSEMBLY, memoryview(head), now)
        if self._fast is not None:
            self._fast.advance(now)
        self.tcp.advance(now)

    def take(self) -> list[bytes]:
        """The frames to send, in order; each is given once."""
        frames = list(self._out)
        self._out.clear()
        return frames

    def deadline(self) -> int | None:
        """By when `advance` must be called, even if no frame comes. None: no hurry."""
        fast = None if self._fast is None else self._fast.deadline()
        return earliest(
            self._arp.deadline(), self._reassembly.deadline(), self.tcp.deadline(), fast
        )

    def answer_at_once(self, port: int, handler: Handler) -> None:
        """On a TCP port that somebody listens on: what `handler` has an answer for needs no
        connection. See `fastpath`."""
        if self._fast is None:
            address, out = self.address, self._out.append
            routed = lambda peer: address.next_hop(peer) is not None  # noqa: E731
            self._fast = FastPath(address.mac, address.ip, self.tcp, out, routed, self.drops)
            self.tcp.hand_over = self._fast.hand_over
        self._fast.serve(port, handler)

    # --- UDP --------------------------------------------------------------------------------

    def udp_open(self, port: int = 0) -> UdpSocket:
        """A socket on a port, or on a free one. Raises ValueError: it is taken, or none is free."""
        if port == 0:
            port = self._free_port()
        if port in self._udp or not 0 < port < 65536:
            raise ValueError(f"UDP port {port} is taken, or no port")
        socket = self._udp[port] = UdpSocket(port, self._send_udp)
        return socket

    def udp_close(self, socket: UdpSocket) -> None:
        """Give the port back."""
        if self._udp.get(socket.port) is socket:
            del self._udp[socket.port]

    def _free_port(self) -> int:
        for _ in EPHEMERAL:
            self._ports = (self._ports + 1) % len(EPHEMERAL)
            if EPHEMERAL[self._ports] not in self._udp:
                return EPHEMERAL[self._ports]
        raise ValueError("no UDP port is free")

    # --- ICMP -------------------------------------------------------------------------------

    def ping(self, destination: Ip, ident: int, sequence: int, body: bytes) -> None:
        """Send an echo request. Replies are given to nobody: `ping` of the host is the tool."""
        message = icmp.icmp_message(icmp.ECHO, 0, ident << 16 | sequence, body)
        self._send_ip(destination, ipv4.ICMP, message)

    # --- input ------------------------------------------------------------------------------

    def _input_untrusted(self, frame: bytes, now: int) -> None:
        header, data = parse_ethernet_untrusted(frame)
        if header.destination != self.address.mac and header.destination != BROADCAST_MAC:
            raise Malformed("ethernet: for another host")
        if header.type == TYPE_IPV4:
            self._ipv4_untrusted(data, header.destination == BROADCAST_MAC, now)
        elif header.type == TYPE_ARP:
            self._arp.input(parse_arp_untrusted(data), now)
        else:
            raise Malformed("ethernet: unknown type")

    def _ipv4_untrusted(self, data: memoryview, broadcast: bool, now: int) -> None:
        packet = ipv4.parse_ipv4_untrusted(data)
        to_all = packet.destination in (BROADCAST_IP, self.address.broadcast)
        if packet.destination != self.address.ip and not to_all:
            raise Malformed("ipv4: for another host")
        if not is_unicast(packet.source) or packet.source == self.address.ip:
            raise Malformed("ipv4: no possible sender")
        payload = self._reassembly.add(packet, now) if packet.is_fragment else packet.payload
        if payload is None:
            return
        to_all = to_all or broadcast
        if packet.protocol == ipv4.TCP and not to_all:
            self.tcp.input_untrusted(payload, packet.source, now)
        elif packet.protocol == ipv4.UDP:
            self._udp_untrusted(packet, payload, to_all, now)
        elif packet.protocol == ipv4.ICMP:
            self._icmp_untrusted(packet, payload, to_all, now)
        else:
            if not to_all:
                self._icmp_error(icmp.UNREACHABLE, icmp.PROTOCOL, packet.head, now)
            raise Malformed("ipv4: unknown protocol")

    def _udp_untrusted(
        self, packet: ipv4.Packet, payload: memoryview, to_all: bool, now: int
    ) -> None:
        from_port, to_port, data = parse_udp_untrusted(payload, packet.source, packet.destination)
        socket = self._udp.get(to_port)
        if socket is None:
            if not to_all:
                self._icmp_error(icmp.UNREACHABLE, icmp.PORT, packet.head, now)
            raise Malformed("udp: nobody has the port")
        socket.deliver(Datagram(packet.source, from_port, bytes(data)), self.drops)

    def _icmp_untrusted(
        self, packet: ipv4.Packet, payload: memoryview, to_all: bool, now: int
    ) -> None:
        message = icmp.parse_icmp_untrusted(payload)
        if message.type == icmp.ECHO:
            if to_all:
                raise Malformed("icmp: echo for all hosts")
            reply = icmp.icmp_message(icmp.ECHO_REPLY, 0, message.rest, message.body)
            self._send_ip(packet.source, ipv4.ICMP, reply)
        elif message.type in icmp.ERRORS:
            self._error_arrived_untrusted(message)
        elif message.type != icmp.ECHO_REPLY:
            raise Malformed("icmp: unknown type")

    def _error_arrived_untrusted(self, message: icmp.Message) -> None:
        quoted = icmp.parse_quoted_untrusted(message.body)
        if quoted.source != self.address.ip:
            raise Malformed("icmp: about a packet that is not ours")
        if quoted.protocol == ipv4.UDP and message.type == icmp.UNREACHABLE:
            socket = self._udp.get(quoted.source_port)
            if socket is not None:
                socket.errors.append((quoted.destination, quoted.destination_port))
        elif quoted.protocol == ipv4.TCP:
            self.tcp.error_arrived(message, quoted, self._now)

    # --- output -----------------------------------------------------------------------------

    def _icmp_error(self, kind: int, code: int, head: memoryview, now: int) -> None:
        """Tell the sender of a packet, unless a rule of RFC 1122 says not to."""
        protocol, offset = head[9], int.from_bytes(head[6:8], "big") & 0x1FFF
        if offset or (protocol == ipv4.ICMP and head[(head[0] & 15) * 4] in icmp.ERRORS):
            return
        if not self._errors.allow(now):
            self.drops["icmp: errors limited"] += 1
            return
        source = Ip(int.from_bytes(head[12:16], "big"))
        self._send_ip(source, ipv4.ICMP, icmp.icmp_message(kind, code, 0, head))

    def _send_udp(self, socket: UdpSocket, destination: Ip, port: int, data: bytes) -> None:
        datagram = udp_datagram(self.address.ip, destination, socket.port, port, data)
        self._send_ip(destination, ipv4.UDP, datagram)

    def _send_ip(self, destination: Ip, protocol: int, payload: bytes) -> None:
        """Send a datagram, in fragments where it is too long for one packet."""
        self._ident = (self._ident + 1) % 65536
        for header, piece in ipv4.fragments(
            self.address.ip, destination, protocol, payload, self._ident, self.mtu
        ):
            self._route(destination, (header, piece))

    def _send_tcp(self, destination: Ip, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        length = sum(map(len, parts))
        header = ipv4.whole(self.address.ip, destination, ipv4.TCP, length)
        self._route(destination, (header, *parts))

    def _route(self, destination: Ip, parts: Parts) -> None:
        if destination in (BROADCAST_IP, self.address.broadcast):
            self._send_frame(BROADCAST_MAC, parts)
            return
        hop = self.address.next_hop(destination)
        if hop is None:
            self.drops["ipv4: no route"] += 1
            return
        self._arp.send(hop, parts, self._now)

    def _send_frame(self, destination: Mac, parts: Parts) -> None:
        header = ethernet_header(destination, self.address.mac, TYPE_IPV4)
        self._out.append(b"".join((header, *parts)))

    def _send_arp(self, packet: ArpPacket) -> None:
        to = BROADCAST_MAC if packet.target_mac == bytes(6) else packet.target_mac
        header = ethernet_header(to, self.address.mac, TYPE_ARP)
        self._out.append(header + arp_packet(packet))
