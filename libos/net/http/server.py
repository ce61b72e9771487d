"""A web server for many connections, as a state machine over streams of bytes.

A stream is a `Connection` of `libos.net.tcp`, or one of the host's sockets (`sockets`). The server
never waits: a stream is looked at when something came for it. Requests may be pipelined;
replies go out in order. Source: Kaashoek et al. 1997, section 7.3 (Cheetah): bodies are sent
from the pages of the documents without a copy, acknowledgements and FINs travel with data.

Bounded for each client: a head of 16 KiB, one reply at a time, and patience: so long for a
whole request, so long between requests, so long for a peer that takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from libos.net.base import SECOND
from libos.net.http.documents import Documents
from libos.net.http.kept import KeptReplies
from libos.net.http.reply import Reply, answer, refusal
from libos.net.http.request import MAX_HEAD, BadRequest, parse_head_untrusted
from libos.net.tcp.ready import Ready

_END: Final = b"\r\n\r\n"
_LINGER: Final = 2 * SECOND


class Stream(Protocol):
    """What the server needs of a connection: see `Connection`, whose words these are."""

    notify: Callable[[Any], None] | None

    @property
    def writable(self) -> int: ...
    @property
    def at_end(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def no_delay(self) -> None: ...
    def read(self, most: int) -> bytes: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def shut_down(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Streams(Protocol):
    """Where streams come from: a `Listener`."""

    def accept(self) -> Stream | None:
        """The oldest that nobody has taken yet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, and how many there may be."""

    request: int = 10 * SECOND  # from the first byte of a head to its last
    idle: int = 60 * SECOND  # between two requests
    stalled: int = 30 * SECOND  # without taking a byte of a reply
    clients: int = 1000  # with connections; the fast path is bounded by the host's TCP
    kept: int = 256  # replies that are given again


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
    stream: Stream
    deadline: int
    head: bytearray = field(default_factory=bytearray)
    piece: bytes | memoryview = b""  # of a reply, to be sent next
    rest: Iterator[bytes | memoryview] = field(default_factory=lambda: iter(()))
    busy: bool = False  # a reply is being sent
    last: bool = False  # after it the connection is closed


class Server:
    """Serves whoever comes by `streams`. Call `turn` in the application's turn of the host."""

    def __init__(
        self,
        streams: Streams,
        documents: Documents,
        wall: Callable[[], int],
        limits: Limits | None = None,
    ) -> None:
        """`wall` is the time of day, in seconds since 1970."""
        self.tally = Tally()
        self._streams = streams
        self._documents, self._wall = documents, wall
        self._limits = limits or Limits()
        self._kept = KeptReplies(self._limits.kept)
        self._clients: dict[Stream, _Client] = {}
        self._ready: dict[Stream, None] = {}
        self._next_look = 0  # when the patience of all clients is looked at

    def __len__(self) -> int:
        return len(self._clients)

    def turn(self, now: int) -> None:
        """Take new connections, and go on with those for which something came."""
        while (stream := self._streams.accept()) is not None:
            self._welcome(stream, now)
        ready, self._ready = self._ready, {}
        for stream in ready:
            client = self._clients.get(stream)
            if client is not None:
                self._step(client, now)
        if now >= self._next_look:
            self._next_look = now + SECOND
            for client in list(self._clients.values()):
                if now >= client.deadline:
                    self._time_out(client, now)

    def at_once(self, data: bytes) -> Ready | None:
        """The bytes that answer a segment, if that is whole requests and the replies are at hand: a
        `Handler` for `Host.answer_at_once`, for clients that then are none of ours. Nothing is read
        after a request that ends the connection.
        """
        found = self._kept.find_ready(data, self._wall())
        if found is None:
            if not data.endswith(_END) or len(data) > MAX_HEAD or data[:1] == b"\r":
                return None
            replies: list[Reply] = []
            for head in data[: -len(_END)].split(_END):
                replies.append(self._answer(head))
                if not isinstance(replies[-1].body, tuple):
                    return None
                if not replies[-1].keep_alive:
                    break
            found = self._kept.keep_ready(data, replies)
            if found is None:
                return None
        ready, count = found
        self.tally.requests += count
        return ready

    def _welcome(self, stream: Stream, now: int) -> None:
        stream.no_delay()
        if len(self._clients) >= self._limits.clients:
            self.tally.turned_away += 1
            stream.write(refusal(503, self._wall()).head)
            stream.close()
            return
        self._clients[stream] = _Client(stream, now + self._limits.request)
        stream.notify = self._note
        self._note(stream)

    def _note(self, stream: Stream) -> None:
        self._ready[stream] = None

    def _step(self, client: _Client, now: int) -> None:
        stream = client.stream
        if stream.closed:
            del self._clients[stream]
            return
        self._send(client, now)
        while not client.busy and not client.last:
            # Nothing more is read while a reply waits: the client's window closes.
            client.head += stream.read(MAX_HEAD + len(_END) - len(client.head))
            if not self._take_request(client, now):
                break
            self._send(client, now)
        if not client.busy and (client.last or stream.at_end):
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
        self.tally.requests += 1
        self._reply(client, self._answer(bytes(head[:end])))
        del head[: end + len(_END)]
        client.deadline = now + (self._limits.request if head else self._limits.idle)
        return True

    def _answer(self, head: bytes) -> Reply:
        now, keep = self._wall(), False
        known = self._kept.find(head, now)
        if known is not None:
            return known
        try:
            request = parse_head_untrusted(head)
            keep = request.keep_alive and request.method in (b"GET", b"HEAD")
            return self._kept.keep(head, answer(request, self._documents, now))
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
        stream = client.stream
        try:
            while client.busy:
                if not len(client.piece):
                    client.piece = next(client.rest, b"")
                    client.busy = len(client.piece) > 0
                elif stream.writable:
                    client.piece = client.piece[stream.write(client.piece) :]
                    client.deadline = now + self._limits.stalled
                else:
                    return
        except OSError:
            # The document can't be read to its end, and its length is promised already.
            self.tally.broken_off += 1
            stream.abort()
            client.busy, client.last = False, True

    def _time_out(self, client: _Client, now: int) -> None:
        """The patience with a client is at its end."""
        stream = client.stream
        self.tally.timed_out += not client.last
        if client.busy:
            stream.abort()
            del self._clients[stream]
        elif client.last:
            stream.close()
            del self._clients[stream]
        else:
            if client.head:
                client.head.clear()
                self._reply(client, self._refused(408))
                self._send(client, now)
            client.last = True
            self._close(client, now)

    def _close(self, client: _Client, now: int) -> None:
        """Say no more; wait a little for the client's end, lest a reset overtake the reply."""
        stream = client.stream
        stream.read(MAX_HEAD)  # what comes after the last request is nobody's
        if stream.at_end:
            stream.close()
            del self._clients[stream]
        elif stream.writable:
            stream.shut_down()
            client.deadline = now + _LINGER
