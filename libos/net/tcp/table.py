"""All TCP connections of one host: who gets a segment, who listens, whose timer is due.

Bounded: connections, half-open ones and those not yet accepted for each listener, and those in
TIME-WAIT. When a listener's half-open connections are too many, the oldest goes: a flood of SYNs
takes no more memory than that, and a peer that answers within a round trip still gets in
(RFC 4987, section 3.4).
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

from libos.net import icmp
from libos.net.base import Drops, Ip, is_unicast
from libos.net.tcp.connection import Connection
from libos.net.tcp.segment import (
    ACK,
    FIN,
    HEADER,
    RST,
    SYN,
    Data,
    Segment,
    build_tcp,
    parse_tcp_untrusted,
    unwrap,
)
from libos.net.tcp.state import Ends, State
from libos.net.tcp.tuning import Tuning
from libos.net.udp import EPHEMERAL

Send = Callable[[Ip, Sequence[Data]], None]
_MOST_SENT: Final = 256  # segments in one turn; the last connection may send more
_ISN_TICK: Final = 4000  # nanoseconds (RFC 6528: a step of the clock each 4 µs)


class Listener:
    """A port that takes connections. Made by `TcpTable.listen`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.half_open: OrderedDict[Ends, Connection] = OrderedDict()
        self._ready: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def accept(self) -> Connection | None:
        """The oldest connection that nobody has taken yet."""
        return self._ready.popleft() if self._ready else None

    def established(self, connection: Connection) -> None:
        """For the table: the handshake is complete."""
        if self.half_open.pop(connection.ends, None) is connection:
            self._ready.append(connection)


class TcpTable:
    """Made by `Host`."""

    def __init__(
        self, address: Ip, mtu: int, send: Send, rng: random.Random, drops: Drops, tuning: Tuning
    ) -> None:
        self._address, self._send, self._drops, self.tuning = address, send, drops, tuning
        self.mss = mtu - 20 - HEADER
        #: for an exchange of the fast path that needs more: it as a connection
        self.hand_over: Callable[[Ends, int], Connection | None] = lambda _ends, _now: None
        self._secret = rng.randbytes(16)
        self._port = rng.randrange(len(EPHEMERAL))
        self._connections: dict[Ends, Connection] = {}
        self._listeners: dict[int, Listener] = {}
        self._time_wait: OrderedDict[Ends, None] = OrderedDict()
        self._touched: dict[Connection, None] = {}  # to be looked at by `advance`
        self._timers: list[tuple[int, int, Connection]] = []  # a heap, with stale entries
        self._armed: dict[Connection, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._connections)

    # --- for applications -------------------------------------------------------------------

    def listen(self, port: int) -> Listener:
        """Take connections on a port. Raises ValueError: somebody does already."""
        if port in self._listeners or not 0 < port < 65536:
            raise ValueError(f"TCP port {port} is taken, or no port")
        listener = self._listeners[port] = Listener(port)
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Take no more; connections that nobody has accepted are reset."""
        if self._listeners.get(listener.port) is listener:
            del self._listeners[listener.port]
        waiting = list(listener.half_open.values())
        while (connection := listener.accept()) is not None:
            waiting.append(connection)
        for connection in waiting:
            connection.abort()

    def connect(self, peer: Ip, port: int, now: int) -> Connection:
        """Open a connection; it is usable once its state is ESTABLISHED. Raises OSError."""
        if not is_unicast(peer) or not 0 < port < 65536:
            raise OSError(errno.EADDRNOTAVAIL, "no host has that address, or no such port")
        if len(self._connections) >= self.tuning.max_connections:
            raise OSError(errno.ENFILE, "too many connections")
        ends = self._free_ends(peer, port)
        return self._add(Connection(ends, self.isn(ends, now), self.mss, self.tuning, self.touch))

    # --- segments and time ------------------------------------------------------------------

    def input_untrusted(self, data: memoryview, source: Ip, now: int) -> None:
        """Take in one segment. Raises Malformed."""
        segment = parse_tcp_untrusted(data, source, self._address)
        ends = Ends(segment.port, source, segment.source_port)
        connection = self._connections.get(ends) or self.hand_over(ends, now)
        if connection is not None and self._may_reopen(connection, segment):
            self._remove(connection)
            connection = None
        if connection is None:
            self._for_nobody(ends, segment, now)
            return
        was = connection.state
        connection.input(segment, now)
        self.touch(connection)
        if was is State.SYN_RECEIVED is not connection.state:
            self._left_half_open(connection)
        if connection.state is State.TIME_WAIT is not was:
            self._bound_time_wait(connection)
        if connection.notify is not None:
            connection.notify(connection)

    def error_arrived(self, message: icmp.Message, quoted: icmp.Quoted, now: int) -> None:
        """An ICMP error about one of our segments."""
        ends = Ends(quoted.source_port, quoted.destination, quoted.destination_port)
        connection = self._connections.get(ends) or self.hand_over(ends, now)
        if connection is None:
            self._drops["icmp: about no connection"] += 1
        elif (message.type, message.code) == (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED):
            length = int.from_bytes(message.body[2:4], "big")
            connection.packet_too_big(icmp.next_hop_mtu(message.rest, length), quoted.sequence)
            self.touch(connection)
        elif message.type == icmp.UNREACHABLE:
            refused = message.code in (icmp.PROTOCOL, icmp.PORT)
            connection.unreachable(
                errno.ECONNREFUSED if refused else errno.EHOSTUNREACH, quoted.sequence
            )
            self.touch(connection)

    def deadline(self) -> int | None:
        """When `advance` has something to do; 0 if it has already."""
        if self._touched:
            return 0
        while self._timers and self._armed.get(self._timers[0][2]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, now: int) -> None:
        """Timers, and what connections have to send.

        Not all of it in one turn: while segments are made nobody looks at those that arrive.
        """
        while self._timers and self._timers[0][0] <= now:
            due, _, connection = heapq.heappop(self._timers)
            if self._armed.get(connection) == due:
                del self._armed[connection]
                self.touch(connection)
        sent = 0
        while self._touched and sent < _MOST_SENT:
            connection = next(iter(self._touched))
            del self._touched[connection]
            for segment in connection.flush(now):
                self._transmit(connection.ends.peer, segment)
                sent += 1
            self._arm(connection)
            if connection.state is State.CLOSED and connection.notify is not None:
                connection.notify(connection)

    def adopt(self, connection: Connection) -> None:
        """A connection that began on the fast path, in any state after the SYN."""
        self._add(connection)
        listener = self._listeners.get(connection.ends.port)
        if listener is None:
            connection.abort()
        elif connection.state in (State.SYN_RECEIVED, State.ESTABLISHED):
            listener.half_open[connection.ends] = connection
            if connection.state is State.ESTABLISHED:
                listener.established(connection)
        if connection.state is State.TIME_WAIT:
            self._bound_time_wait(connection)
        self._arm(connection)

    # --- within -----------------------------------------------------------------------------

    def touch(self, connection: Connection) -> None:
        """`advance` must look at a connection: there may be something to send."""
        self._touched[connection] = None

    def _arm(self, connection: Connection) -> None:
        """Note when a connection is to be looked at again, or forget it when it is over."""
        if connection.state is State.CLOSED:
            self._remove(connection)
            return
        deadline = connection.deadline()
        if deadline is None:
            self._armed.pop(connection, None)
        elif self._armed.get(connection) != deadline:
            self._armed[connection] = deadline
            self._count += 1
            heapq.heappush(self._timers, (deadline, self._count, connection))

    def _for_nobody(self, ends: Ends, segment: Segment, now: int) -> None:
        """A segment of no connection: perhaps a new one, else it is answered with a reset."""
        listener = self._listeners.get(segment.port)
        if segment.flags & RST:
            return
        if listener is not None and segment.flags & (SYN | ACK | FIN) == SYN:
            self._passive_open(listener, ends, segment, now)
            return
        self._drops["tcp: no connection"] += 1
        seq, flags = (segment.ack, RST) if segment.flags & ACK else (0, RST | ACK)
        ack = segment.seq + segment.length
        self._transmit(ends.peer, Segment(ends.port, ends.peer_port, seq, ack, flags, 0))

    def _passive_open(self, listener: Listener, ends: Ends, segment: Segment, now: int) -> None:
        full = len(self._connections) >= self.tuning.max_connections
        if len(listener) >= self.tuning.backlog or full:
            self._drops["tcp: backlog full"] += 1
            return
        if len(listener.half_open) >= self.tuning.backlog:
            self._drops["tcp: half-open connections dropped"] += 1
            self._remove(next(iter(listener.half_open.values())))
        connection = Connection(ends, self.isn(ends, now), self.mss, self.tuning, self.touch)
        connection.passive_open(segment, now)
        listener.half_open[ends] = self._add(connection)

    def _left_half_open(self, connection: Connection) -> None:
        listener = self._listeners.get(connection.ends.port)
        if listener is None or not connection.passive:
            return
        if connection.state is State.CLOSED:
            listener.half_open.pop(connection.ends, None)
        else:
            listener.established(connection)

    def _may_reopen(self, connection: Connection, segment: Segment) -> bool:
        """RFC 9293, section 3.6.1: a new SYN beyond the old numbers ends TIME-WAIT."""
        if connection.state is not State.TIME_WAIT or segment.flags & (SYN | ACK | RST) != SYN:
            return False
        nxt = connection.receiver.nxt
        return unwrap(segment.seq, nxt) > nxt and segment.port in self._listeners

    def _bound_time_wait(self, connection: Connection) -> None:
        self._time_wait[connection.ends] = None
        if len(self._time_wait) > self.tuning.max_time_wait:
            ends, _ = self._time_wait.popitem(last=False)
            oldest = self._connections.get(ends)
            if oldest is not None and oldest.state is State.TIME_WAIT:
                self._remove(oldest)

    def _add(self, connection: Connection) -> Connection:
        self._connections[connection.ends] = connection
        self.touch(connection)
        return connection

    def _remove(self, connection: Connection) -> None:
        connection.state = State.CLOSED
        ends = connection.ends
        if self._connections.get(ends) is connection:
            del self._connections[ends]
            self._time_wait.pop(ends, None)
        self._armed.pop(connection, None)
        self._touched.pop(connection, None)
        listener = self._listeners.get(ends.port)
        if listener is not None and listener.half_open.get(ends) is connection:
            del listener.half_open[ends]

    def _transmit(self, peer: Ip, segment: Segment) -> None:
        cut = sum(map(len, segment.data)) > self.mss
        header = build_tcp(segment, self._address, peer, cut=cut)
        self._send(peer, (header, *segment.data))

    def _free_ends(self, peer: Ip, port: int) -> Ends:
        for _ in EPHEMERAL:
            self._port = (self._port + 1) % len(EPHEMERAL)
            ends = Ends(EPHEMERAL[self._port], peer, port)
            if ends not in self._connections and ends.port not in self._listeners:
                return ends
        raise OSError(errno.EADDRNOTAVAIL, "no port is free")

    def isn(self, ends: Ends, now: int) -> int:
        """The number that a connection begins with.

        RFC 6528: a clock, and for each pair of ends an offset that nobody can guess."""
        text = f"{ends.port} {ends.peer} {ends.peer_port}".encode()
        secret = hashlib.blake2b(text, key=self._secret, digest_size=4).digest()
        return (now // _ISN_TICK + int.from_bytes(secret, "big")) % (1 << 32)
