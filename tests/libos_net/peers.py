"""A host in a thread, on the TAP device of a namespace, and the little applications it runs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from libos.net.base import ip, mac
from libos.net.host import Address, Host
from libos.net.loop import Loop, Port
from libos.net.tcp.connection import Connection
from libos.net.tcp.state import State
from tests.libos_net.namespace import HOST_IP, HOST_MAC, Namespace
from xnfs.net import Conditions, Impaired, PcapWriter, Recorded

ECHO, SINK, SOURCE = 7, 9, 19


class Machine:
    """Use as a context: a namespace, a host in it, and echo, discard and source servers."""

    def __init__(
        self, pcap: Path | None = None, bad: Conditions | None = None, size: int = 0
    ) -> None:
        self.space = Namespace()
        self.host = Host(Address(mac(HOST_MAC), ip(HOST_IP)))
        self.body = hashlib.shake_128(b"source").digest(size)
        self.received = hashlib.sha256()
        self.count = 0
        self._pcap = pcap.open("wb") if pcap else None
        port: Port = self.space.tap
        due: Callable[[], int | None] = _never
        if self._pcap is not None:
            port = Recorded(self.space.tap, PcapWriter(self._pcap), time.time_ns)
        if bad is not None:
            port = impaired = Impaired(self.space.tap, time.monotonic_ns, bad, seed=1)
            due = impaired.next_arrival
        self._listeners = [self.host.tcp.listen(p) for p in (ECHO, SINK, SOURCE)]
        self._open: list[tuple[Connection, bytearray]] = []
        self._udp = self.host.udp_open(ECHO)
        self._calls: SimpleQueue[tuple[str, int, bytes]] = SimpleQueue()
        self._called: Connection | None = None
        self.answer = b""
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._loop = Loop(self.host, port, self.space.tap.fileno(), self._serve, next_arrival=due)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Machine:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(20)
        self.space.__exit__()
        if self._pcap is not None:
            self._pcap.close()
        if self._error is not None:
            raise self._error

    @property
    def open_connections(self) -> int:
        """Connections that the applications still have."""
        return len(self._open)

    def call(self, address: str, port: int, say: bytes) -> None:
        """Open a connection, send some bytes, and collect the `answer`."""
        self._calls.put((address, port, say))

    def _run(self) -> None:
        try:
            self._loop.run(self._stop.is_set)
        except BaseException as error:
            self._error = error

    def _serve(self, now: int) -> None:
        while (datagram := self._udp.receive()) is not None:
            self._udp.send_to(datagram.data, datagram.source, datagram.port)
        while not self._calls.empty():
            address, port, say = self._calls.get()
            self._called = self.host.tcp.connect(ip(address), port, now)
            self._called.write(say)
        if self._called is not None:
            self.answer += self._called.read()
            if self._called.at_end:
                self._called.close()
        for listener in self._listeners:
            while (connection := listener.accept()) is not None:
                first = self.body if listener.port == SOURCE else b""
                self._open.append((connection, bytearray(first)))
        self._open = [pair for pair in self._open if self._step(*pair)]

    def _step(self, connection: Connection, waiting: bytearray) -> bool:
        """One connection's turn. False: it is over."""
        # Take no more than can be given back, so that the peer's window does its work.
        data = connection.read() if len(waiting) < 65536 else b""
        if connection.ends.port == ECHO:
            waiting += data
        else:
            self.received.update(data)
            self.count += len(data)
        if waiting:
            del waiting[: connection.write(bytes(waiting[:65536]))]
        if not waiting and connection.ends.port == SOURCE:
            connection.shut_down()
        if not waiting and connection.at_end:
            connection.close()
            return False
        return connection.state is not State.CLOSED


def _never() -> None:
    """When a device that holds nothing back has something due."""
