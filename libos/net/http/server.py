"""A web server for many connections, as a state machine over `TcpTable`.

It never waits: a connection is looked at when a segment came for it. Requests may be pipelined;
replies go out in order. Source: Kaashoek et al. 1997, section 7.3 (Cheetah): bodies are sent
from the pages of the documents without a copy, acknowledgements and FINs travel with data.

Bounded for each connection: a head of 16 KiB, one reply at a time, and patience: so long for a
whole request, so long between requests, so long for a peer that takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from libos.net.base import SECOND
from libos.net.http.documents import Documents
from libos.net.http.reply import Reply, answer, refusal
from libos.net.http.request import MAX_HEAD, BadRequest, parse_head_untrusted
from libos.net.tcp.connection import Connection, State
from libos.net.tcp.table import TcpTable

_END: Final = b"\r\n\r\n"
_LINGER: Final = 2 * SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, and how many there may be."""

    request: int = 10 * SECOND  # from the first byte of a head to its last
    idle: int = 60 * SECOND  # between two requests
    stalled: int = 30 * SECOND  # without taking a byte of a reply
    clients: int = 1000


@dataclass(slots=True)
class Tally:
    """What the server did so far."""

    requests: int = 0
    refused: int = 0  # answered with an error
    timed_out: int = 0
    turned_away: int = 0  # too many clients
    broken_off: int = 0  # the document could not be read


@dataclass(slots=True, eq=False)
class _Client:
    connection: Connection
    deadline: int
    head: bytearray = field(default_factory=bytearray)
    piece: bytes | memoryview = b""  # of a reply, to be sent next
    rest: Iterator[bytes | memoryview] = field(default_factory=lambda: iter(()))
    busy: bool = False  # a reply is being sent
    last: bool = False  # after it the connection is closed


class Server:
    """One port. Call `turn` in the application's turn of the host."""

    def __init__(
        self,
        table: TcpTable,
        port: int,
        documents: Documents,
        wall: Callable[[], int],
        limits: Limits | None = None,
    ) -> None:
        """`wall` is the time of day, in seconds since 1970."""
        self.tally = Tally()
        self._listener = table.listen(port)
        self._documents, self._wall = documents, wall
        self._limits = limits or Limits()
        self._clients: dict[Connection, _Client] = {}
        self._ready: dict[Connection, None] = {}
        self._next_look = 0  # when the patience of all clients is looked at

    def __len__(self) -> int:
        return len(self._clients)

    def turn(self, now: int) -> None:
        """Take new connections, and go on with those for which something came."""
        while (connection := self._listener.accept()) is not None:
            self._welcome(connection, now)
        ready, self._ready = self._ready, {}
        for connection in ready:
            client = self._clients.get(connection)
            if client is not None:
                self._step(client, now)
        if now >= self._next_look:
            self._next_look = now + SECOND
            for client in list(self._clients.values()):
                if now >= client.deadline:
                    self._time_out(client, now)

    def _welcome(self, connection: Connection, now: int) -> None:
        connection.sender.nodelay = True
        if len(self._clients) >= self._limits.clients:
            self.tally.turned_away += 1
            connection.write(refusal(503, self._wall()).head)
            connection.close()
            return
        self._clients[connection] = _Client(connection, now + self._limits.request)
        connection.notify = self._note
        self._note(connection)

    def _note(self, connection: Connection) -> None:
        self._ready[connection] = None

    def _step(self, client: _Client, now: int) -> None:
        connection = client.connection
        if connection.state is State.CLOSED:
            del self._clients[connection]
            return
        self._send(client, now)
        while not client.busy and not client.last:
            # Nothing more is read while a reply waits: the client's window closes.
            client.head += connection.read(MAX_HEAD + len(_END) - len(client.head))
            if not self._take_request(client, now):
                break
            self._send(client, now)
        if not client.busy and (client.last or connection.at_end):
            client.last = True
            self._close(client, now)

    def _take_request(self, client: _Client, now: int) -> bool:
        """Answer the next request. False: it has not all come yet."""
        head = client.head
        while head[:2] == b"\r\n":  # a server should ignore it (RFC 9112, section 2.2)
            del head[:2]
        end = head.find(_END)
        if end < 0:
            if len(head) >= MAX_HEAD:
                self._reply(client, self._refused(431))
                return True
            return False
        self._reply(client, self._answer(bytes(head[:end])))
        del head[: end + len(_END)]
        client.deadline = now + (self._limits.request if head else self._limits.idle)
        return True

    def _answer(self, head: bytes) -> Reply:
        self.tally.requests += 1
        keep = False
        try:
            request = parse_head_untrusted(head)
            keep = request.keep_alive and request.method in (b"GET", b"HEAD")
            return answer(request, self._documents, self._wall())
        except BadRequest as error:
            return self._refused(error.status, keep)

    def _refused(self, status: int, keep_alive: bool = False) -> Reply:
        self.tally.refused += 1
        return refusal(status, self._wall(), keep_alive)

    def _reply(self, client: _Client, reply: Reply) -> None:
        client.piece, client.rest = reply.head, iter(reply.body)
        client.busy, client.last = True, not reply.keep_alive

    def _send(self, client: _Client, now: int) -> None:
        """Send as much of the reply as there is room for."""
        connection = client.connection
        try:
            while client.busy:
                if not len(client.piece):
                    client.piece = next(client.rest, b"")
                    client.busy = len(client.piece) > 0
                elif connection.writable:
                    client.piece = client.piece[connection.write(client.piece) :]
                    client.deadline = now + self._limits.stalled
                else:
                    return
        except OSError:
            # The document can't be read to its end, and its length is promised already.
            self.tally.broken_off += 1
            connection.abort()
            client.busy, client.last = False, True

    def _time_out(self, client: _Client, now: int) -> None:
        """The patience with a client is at its end."""
        connection = client.connection
        self.tally.timed_out += not client.last
        if client.busy:
            connection.abort()
            del self._clients[connection]
        elif client.last:
            connection.close()
            del self._clients[connection]
        else:
            if client.head:
                client.head.clear()
                self._reply(client, self._refused(408))
                self._send(client, now)
            client.last = True
            self._close(client, now)

    def _close(self, client: _Client, now: int) -> None:
        """Say no more; wait a little for the client's end, lest a reset overtake the reply."""
        connection = client.connection
        connection.read()  # what comes after the last request is nobody's
        if connection.at_end:
            connection.close()
            del self._clients[connection]
        elif connection.writable:
            connection.shut_down()
            client.deadline = now + _LINGER
