"""Long segments, which an interface cuts: the packets are those that would be sent without."""

from __future__ import annotations

import hashlib
import random
import threading

from scapy.layers.inet import IP, TCP, in4_pseudoheader
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from libos.net.base import ip, mac
from libos.net.host import Address, Host
from libos.net.http.documents import MemoryDocuments
from libos.net.http.server import Server
from libos.net.loop import Loop
from libos.net.tcp.connection import Connection
from libos.net.tcp.segment import ACK
from libos.net.tcp.tuning import BURST, Tuning
from tests.libos_net.kit import A, B
from tests.libos_net.namespace import HOST_IP, HOST_MAC, Namespace
from tests.libos_net.script import Script
from xnfs.net import TapDevice

DATA = random.Random(1).randbytes(200_001)
MSS = 1460


def cut(frame: bytes) -> list[bytes]:
    """What a device makes of a frame, by scapy."""
    if len(frame) <= 1514:
        return [frame]
    parts = []
    whole = Ether(frame)
    data = bytes(whole[TCP].payload)
    pseudo = in4_pseudoheader(6, whole[IP], len(data) + 20)
    assert whole[TCP].chksum == 0xFFFF - checksum(pseudo)
    for at in range(0, len(data), MSS):
        part = Ether(frame[:54])
        part[TCP].seq = (whole[TCP].seq + at) % 2**32
        if at + MSS < len(data):
            part[TCP].flags = "A"
        del part[TCP].chksum, part[IP].chksum, part[IP].len
        parts.append(bytes(part / data[at : at + MSS]))
    return parts


def test_cut_frames_are_those_of_a_host_without() -> None:
    client = Host(A, seed=1)
    plain = Host(B, seed=2)
    bursts = Host(B, seed=2, tuning=Tuning(burst=BURST))
    listeners = [host.tcp.listen(80) for host in (plain, bursts)]
    reader = client.tcp.connect(B.ip, 80, 0)
    got, long, now, lost = bytearray(), 0, 0, 0
    while len(got) < len(DATA):
        now += 1_000_000
        assert now < 10_000_000_000
        client.advance(now)
        for frame in client.take():
            plain.input(frame, now)
            bursts.input(frame, now)
        for listener in listeners:
            connection = listener.accept()
            if connection is not None:
                connection.write(memoryview(DATA))
                connection.close()
        plain.advance(now)
        bursts.advance(now)
        sent, given = plain.take(), bursts.take()
        long += sum(len(frame) > 1514 for frame in given)
        assert [part for frame in given for part in cut(frame)] == sent
        for frame in sent:
            lost += 1
            if lost % 50:  # what is repeated is repeated in the same way
                client.input(frame, now)
        got += reader.read()
    assert bytes(got) == DATA
    assert long > 5


def test_short_segments_that_are_repeated_stay_apart() -> None:
    client = Host(A, seed=1)
    hosts = Host(B, seed=2), Host(B, seed=2, tuning=Tuning(burst=BURST))
    listeners = [host.tcp.listen(80) for host in hosts]
    client.tcp.connect(B.ip, 80, 0)
    connections: list[Connection] = []
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    for turn in range(600):
        now = turn * 10_000_000
        client.advance(now)
        for frame in client.take():
            for host in hosts:
                host.input(frame, now)
        connections += [c for c in (one.accept() for one in listeners) if c is not None]
        if len(connections) == 2 and turn < 50:
            for connection in connections:
                connection.no_delay()
                connection.write(b"short")
        for host, frames in zip(hosts, sent, strict=True):
            host.advance(now)
            taken = host.take()
            frames += taken
            if turn < 5:  # then everything is lost
                for frame in taken * (host is hosts[0]):
                    client.input(frame, now)
    assert sent[0] == sent[1]
    assert len(sent[0]) > 50


class Longest(TapDevice):
    """Notes how long the frames are."""

    longest = 0

    def send(self, frame: bytes) -> bool:
        self.longest = max(self.longest, len(frame))
        return super().send(frame)


def test_linux_takes_long_segments() -> None:
    with Namespace(cuts=True) as space:
        tap = Longest(space.tap.fileno(), cuts=True)
        address = Address(mac(HOST_MAC), ip(HOST_IP))
        host = Host(address, tuning=Tuning(burst=BURST))
        server = Server(host.tcp.listen(80), MemoryDocuments({b"big": DATA}), lambda: 0)
        stop = threading.Event()
        loop = Loop(host, tap, tap.fileno(), server.turn)
        thread = threading.Thread(target=loop.run, args=(stop.is_set,))
        thread.start()
        try:
            said = space.sh(f"curl -sS -m 20 http://{HOST_IP}/big | sha256sum").split()[0]
        finally:
            stop.set()
            thread.join()
    assert said == hashlib.sha256(DATA).hexdigest()
    assert tap.longest > 30_000


def test_no_burst_to_a_peer_that_takes_less() -> None:
    client = Host(A, seed=1, mtu=1000)
    bursts = Host(B, seed=2, tuning=Tuning(burst=BURST))
    listener = bursts.tcp.listen(80)
    client.tcp.connect(B.ip, 80, 0)
    longest = 0
    for now in range(0, 100_000_000, 1_000_000):
        client.advance(now)
        for frame in client.take():
            bursts.input(frame, now)
        connection = listener.accept()
        if connection is not None:
            connection.write(memoryview(DATA))
        bursts.advance(now)
        for frame in bursts.take():
            longest = max(longest, len(frame))
            client.input(frame, now)
    assert longest == 1014


def test_frames_are_no_longer_than_the_burst() -> None:
    script = Script(Tuning(burst=4 * MSS))
    connection = script.open(mss=MSS)
    script.say(ACK, window=60_000)
    connection.no_delay()
    connection.write(DATA[: 4 * MSS + 100])
    script.host.advance(script.now)
    assert [len(frame) - 54 for frame in script.host.take()] == [4 * MSS, 100]
