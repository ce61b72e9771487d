"""Hosts and handlers on the exokernel's network: what a packet goes through in earnest."""

from __future__ import annotations

import threading

import pytest

from libos.net.base import ip, mac
from libos.net.endpoint import EndpointPort, bind_host
from libos.net.filters import for_host, from_host, nothing
from libos.net.handlers import ECHO, prepare_echo
from libos.net.host import Address, Host
from libos.net.tcp.connection import Connection
from libos.net.tcp.state import State
from tests.libos_net.namespace import HOST_IP, HOST_MAC, Namespace
from tests.net.kit import Kernel
from xnfs import Refused
from xnfs.capability import ALL, Capabilities
from xnfs.memory.frames import FramePool
from xnfs.net import Network

ONE = Address(mac("02:00:00:00:00:01"), ip("10.0.0.1"))
TWO = Address(mac("02:00:00:00:00:02"), ip("10.0.0.2"))
OUTSIDE = Address(mac("02:00:00:00:00:03"), ip("10.0.0.3"))


class Site:
    """Two hosts in one kernel, and one outside, at the other end of the wire."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        net = self.kernel.net
        self.outside = Host(OUTSIDE, seed=3)
        self.hosts: list[tuple[Host, EndpointPort]] = []
        for seed, address in enumerate((ONE, TWO)):
            cap = self.kernel.application(f"host{seed}")
            self.hosts.append((Host(address, seed=seed), bind_host(net, cap, "eth", address, 17)))

    def turn(self) -> None:
        now = self.kernel.clock()
        self.kernel.net.service()
        for host, port in self.hosts:
            while (frame := port.receive()) is not None:
                host.input(frame, now)
            host.advance(now)
            for frame in host.take():
                port.send(frame)
        while (arrived := self.kernel.wire.b.receive()) is not None:
            self.outside.input(arrived, now)
        self.outside.advance(now)
        for frame in self.outside.take():
            self.kernel.wire.b.send(frame)
        self.kernel.clock.advance_to(now + 1_000_000)


def test_two_hosts_share_an_interface() -> None:
    site = Site()
    opened: list[Connection] = []
    for host, _ in site.hosts:
        listener = host.tcp.listen(80)
        mine = site.outside.tcp.connect(host.address.ip, 80, site.kernel.clock())
        mine.write(b"to " + bytes([65 + len(opened)]))
        opened.append(mine)
        for _ in range(10):
            site.turn()
        theirs = listener.accept()
        assert theirs is not None
        assert theirs.read() == b"to " + bytes([64 + len(opened)])
    assert [c.state for c in opened] == [State.ESTABLISHED] * 2
    # Neither host ever saw a packet of the other.
    assert not any(host.drops for host, _ in site.hosts)


def test_host_can_not_speak_for_another() -> None:
    site = Site()
    first = site.hosts[0][1]
    liar = Host(TWO, seed=9)
    liar.udp_open(9).send_to(b"I am two", OUTSIDE.ip, 9)
    frames = liar.take()  # an ARP request that says that it comes from TWO
    assert frames
    for frame in frames:
        with pytest.raises(Refused, match="no right to send"):
            first.send(frame)
    cap = site.kernel.application("thief")
    with pytest.raises(Refused, match="endpoint 2's"):
        bind_host(site.kernel.net, cap, "eth", TWO)
    with pytest.raises(Refused, match=r"template: .* endpoint 2's"):
        site.kernel.net.bind(cap, "eth", nothing(), from_host(TWO.mac, TWO.ip), 3)


def test_ping_is_answered_while_nobody_runs() -> None:
    """Real pings, over TAP, are answered by a handler alone: no host exists."""
    with Namespace() as space:
        caps = Capabilities(b"secret")
        net = Network(caps, FramePool(16), lambda: 0)
        net.attach("tap", space.tap)
        cap = caps.mint(("net", "tap"), ALL, "echo")
        own, address = mac(HOST_MAC), ip(HOST_IP)
        bound = net.bind(cap, "tap", for_host(address), from_host(own, address), 3)
        area = net.install_handler(bound.capability, bound.endpoint, ECHO, 1)
        prepare_echo(area, own, address)
        stop = threading.Event()

        def kernel() -> None:
            while not stop.wait(0.0005):
                net.service()

        thread = threading.Thread(target=kernel)
        thread.start()
        try:
            space.sh(f"ip neigh add {HOST_IP} lladdr {HOST_MAC} dev tap0")
            done = space.run("ping", "-c", "20", "-i", "0.002", "-s", "1000", HOST_IP)
        finally:
            stop.set()
            thread.join()
        assert "20 packets transmitted, 20 received, 0% packet loss" in done.stdout
        stats = net.statistics(bound.capability, bound.endpoint)
        assert (stats.handled, stats.sent) == (20, 20)


def test_echo_handler_leaves_what_is_damaged_to_the_host() -> None:
    site = Site()
    host, port = site.hosts[0]
    net, bound = site.kernel.net, port.bound
    prepare_echo(net.install_handler(bound.capability, bound.endpoint, ECHO, 1), ONE.mac, ONE.ip)
    for sequence in (1, 2):  # the first one has both ask for addresses
        site.outside.ping(ONE.ip, 1, sequence, b"x" * 50)
        before = net.statistics(bound.capability, bound.endpoint)
        for _ in range(6):
            site.turn()
    after = net.statistics(bound.capability, bound.endpoint)
    assert (after.handled - before.handled, after.sent - before.sent) == (1, 1)
    assert after.received == before.received
    assert not site.outside.drops
    site.outside.ping(ONE.ip, 1, 2, b"y" * 50)
    (request,) = site.outside.take()
    site.kernel.wire.b.send(request[:-1] + b"z")
    site.turn()
    assert net.statistics(bound.capability, bound.endpoint).impossible == 1
    assert host.drops["icmp: checksum"] == 1
