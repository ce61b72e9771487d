"""What a packet costs: finding its owner, TCP, a handler's answer against a host's.

    python benchmarks/network.py

Prints Markdown. Figures are CPU time of this process, so that others on the machine disturb them
little; each is the best of a few. Needs nothing but this repository: frames go over a simulated
wire, under a virtual clock.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from libos.net.base import ip, mac
from libos.net.endpoint import bind_host
from libos.net.filters import for_host, from_host, to_port
from libos.net.handlers import ECHO, prepare_echo
from libos.net.host import Address, Host
from libos.net.ipv4 import UDP
from tests.libos_net.kit import Lab, both_ways
from xnfs.capability import ALL, Capabilities
from xnfs.memory.frames import FramePool
from xnfs.net import Conditions, Network, VirtualClock, Wire
from xnfs.net.demux import Demux
from xnfs.net.meaning import meaning
from xnfs.net.network import FILTER, FILTER_BUDGET
from xnfs.sandbox import verify

HERE: Final = Address(mac("02:00:00:00:00:01"), ip("10.0.0.1"))
THERE: Final = Address(mac("02:00:00:00:00:02"), ip("10.0.0.2"))
_TURNS: Final = 5


def cpu(act: Callable[[], object], count: int) -> float:
    """µs of CPU for one of `count` repetitions; the best of some turns."""
    best = float("inf")
    for _ in range(_TURNS):
        began = time.process_time()
        for _ in range(count):
            act()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def owners() -> None:
    """Finding the owner of a UDP packet among filters on ports."""
    print(
        "| filters | tables looked at | µs, merged | µs, one program after another | µs to bind |"
    )
    print("|---|---|---|---|---|")
    frame = bytearray(64)
    frame[12:15], frame[23], frame[30:34] = b"\x08\x00\x45", UDP, struct.pack(">I", HERE.ip)
    demux, programs, done = Demux(), [], 0
    for count in (1, 10, 100, 1000):
        began = time.process_time()
        for port in range(done + 1, count + 1):
            program = verify(to_port(HERE.ip, UDP, port), FILTER, budget=FILTER_BUDGET)
            cubes = meaning(program)
            assert not any(demux.overlapping(cube) for cube in cubes)
            demux.add(port, cubes)
            programs.append(program.run)
        bind = (time.process_time() - began) / (count - done) * 1e6
        done = count
        frame[36:38] = struct.pack(">H", count)  # the last one: the worst for a list
        packet = bytes(frame)
        assert demux.find(packet) == count

        def search(packet: bytes = packet) -> None:
            for run in programs:
                if run(packet):
                    return

        merged = cpu(lambda packet=packet: demux.find(packet), 5000)  # type: ignore[misc]
        linear = cpu(search, max(5, 3000 // count))
        print(f"| {count} | {demux.looks(packet)} | {merged:.2f} | {linear:.1f} | {bind:.0f} |")


def transfers() -> None:
    """TCP from end to end, both ends and the wire in one process."""
    print("\n| path | µs for a segment of data, all told | MiB/s of CPU time |\n|---|---|---|")
    good = Conditions(latency=1_000_000, bandwidth=1_000_000_000)
    bad = Conditions(latency=1_000_000, bandwidth=1_000_000_000, loss=0.05, reordering=0.1)
    for name, path in (("good", good), ("5 % loss, 10 % reordering", bad)):
        size = 4 << 20
        best = min(_transfer(path, size) for _ in range(3))
        segments = 2 * size / 1460
        print(f"| {name} | {best / segments * 1e6:.0f} | {2 * size / best / (1 << 20):.0f} |")


def _transfer(path: Conditions, size: int) -> float:
    lab = Lab(path, seed=1)
    began = time.process_time()
    there, back = both_ways(lab, size)
    assert there.intact
    assert back.intact
    return time.process_time() - began


def answers() -> None:
    """An echo request, from its arrival to the reply on the wire."""
    print("\n| ping of 56 bytes answered by | µs |\n|---|---|")
    for name, make in (
        ("a host, on the interface itself", _bare),
        ("a host, through its ring", _ring),
        ("a handler", _handler),
    ):
        print(f"| {name} | {cpu(make(), 2000):.0f} |")


def _request(host: Host, wire: Wire) -> bytes:
    """An echo request of THERE, which knows and is known to `host`."""
    peer = Host(THERE, seed=2)
    peer.ping(HERE.ip, 1, 1, bytes(56))
    for frame in peer.take():
        host.input(frame, 0)
    for frame in host.take():
        peer.input(frame, 0)
    (request,) = peer.take()
    return request


def _bare() -> Callable[[], object]:
    clock = VirtualClock()
    wire = Wire(clock, Conditions())
    host = Host(HERE, seed=1)
    request = _request(host, wire)

    def act() -> None:
        wire.b.send(request)
        frame = wire.a.receive()
        assert frame is not None
        host.input(frame, 0)
        host.advance(0)
        for reply in host.take():
            wire.a.send(reply)
        assert wire.b.receive() is not None

    return act


def _kernel(wire: Wire, clock: VirtualClock) -> tuple[Network, bytes]:
    capabilities = Capabilities(b"bench")
    network = Network(capabilities, FramePool(256), clock)
    network.attach("eth", wire.a)
    return network, capabilities.mint(("net", "eth"), ALL, "bench")


def _ring() -> Callable[[], object]:
    clock = VirtualClock()
    wire = Wire(clock, Conditions())
    network, capability = _kernel(wire, clock)
    port = bind_host(network, capability, "eth", HERE, 9)
    host = Host(HERE, seed=1)
    request = _request(host, wire)

    def act() -> None:
        wire.b.send(request)
        network.service()
        frame = port.receive()
        assert frame is not None
        host.input(frame, 0)
        host.advance(0)
        for reply in host.take():
            port.send(reply)
        assert wire.b.receive() is not None

    return act


def _handler() -> Callable[[], object]:
    clock = VirtualClock()
    wire = Wire(clock, Conditions())
    network, capability = _kernel(wire, clock)
    filters = for_host(HERE.ip), from_host(HERE.mac, HERE.ip)
    bound = network.bind(capability, "eth", *filters, 9)
    area = network.install_handler(bound.capability, bound.endpoint, ECHO, 1)
    prepare_echo(area, HERE.mac, HERE.ip)
    request = _request(Host(HERE, seed=1), wire)

    def act() -> None:
        wire.b.send(request)
        network.service()
        assert wire.b.receive() is not None
        clock.advance_to(clock.now + 1_000_000)  # a thousand a second: within the allowance

    return act


def main() -> None:
    """All tables."""
    random.seed(1)
    owners()
    transfers()
    answers()


if __name__ == "__main__":
    main()
