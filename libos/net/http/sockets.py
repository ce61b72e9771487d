"""The host's TCP instead of ours: sockets of the operating system, as streams for `Server`.

For where there is no TAP device. Behind it everything is the same: documents, replies, limits. No
call waits but `Sockets.run`; each socket holds a bounded number of bytes either way.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from libos.net.http.server import Server

_HELD: Final = 256 * 1024  # bytes taken from the server and not yet from us
_PIECES: Final = 64  # handed over in one call, where they lie
_CHUNK: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: at once, which sends a reset
_WAIT: Final = 0.1  # seconds: so often the server looks at the patience of its clients
_NO_MORE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SocketStream:
    """One accepted socket. What each method means stands in `Connection`."""

    def __init__(self, sock: socket.socket, dirty: Callable[[SocketStream], None]) -> None:
        """`dirty` is called when there is something to do for `advance`."""
        sock.setblocking(False)
        self.socket = sock
        self.notify: Callable[[SocketStream], None] | None = None
        self._dirty = dirty
        self._in = b""
        self._out: deque[memoryview] = deque()
        self._held = 0
        self._ended = self._shut = self._orphan = self._fin_sent = False
        self.closed = False

    @property
    def writable(self) -> int:
        """Bytes that `write` would take now."""
        return 0 if self._shut or self.closed else max(0, _HELD - self._held)

    @property
    def at_end(self) -> bool:
        """Whether the peer has closed its half and all its bytes were read."""
        return self._ended and not self._in

    @property
    def wanted(self) -> int:
        """The events to wait for, as `selectors` names them."""
        reading = not self._in and not self._ended and not self.closed
        return selectors.EVENT_READ * reading | selectors.EVENT_WRITE * bool(self._out)

    def no_delay(self) -> None:
        """Don't hold back small segments."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, most: int) -> bytes:
        """Up to `most` bytes."""
        data, self._in = self._in[:most], self._in[most:]
        if data:
            self._dirty(self)
        return data

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes to send; how many that was."""
        taken = memoryview(data)[: self.writable]
        if taken:
            self._out.append(taken)
            self._held += len(taken)
            self._dirty(self)
        return len(taken)

    def shut_down(self) -> None:
        """Write no more."""
        self._shut = True
        self._dirty(self)

    def close(self) -> None:
        """Let go of it: what was written is still sent."""
        if self._in:
            self.abort()
        else:
            self._orphan = True
            self.shut_down()

    def abort(self) -> None:
        """End it at once, with a reset."""
        if not self.closed:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._end()

    def take_in(self) -> None:
        """The socket is readable."""
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        self._in += data
        self._ended = not data
        if data and self._orphan:
            self.abort()

    def advance(self) -> None:
        """Send what can be sent."""
        try:
            while self._out and not self.closed:
                sent = self.socket.sendmsg(islice(self._out, _PIECES))
                self._held -= sent
                while sent and sent >= len(self._out[0]):
                    sent -= len(self._out.popleft())
                if sent:
                    self._out[0] = self._out[0][sent:]
            if self._shut and not self._out and not self._fin_sent and not self.closed:
                self._fin_sent = True
                self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._end()
        if self._orphan and (self._ended or self._fin_sent):
            self._end()

    def _end(self) -> None:
        self.closed = True
        self._out.clear()
        self._dirty(self)


class Sockets:
    """A listening socket and those accepted from it. Use as a context."""

    def __init__(self, address: str, port: int) -> None:
        """Raises OSError: the port is taken, or may not be had."""
        self._listener = socket.create_server((address, port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accepted: deque[SocketStream] = deque()
        self._dirty: dict[SocketStream, None] = {}
        self._open: dict[SocketStream, int] = {}  # with the events waited for

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_error: object) -> None:
        for stream in self._open:
            stream.socket.close()
        self._selector.close()
        self._listener.close()

    def accept(self) -> SocketStream | None:
        """The oldest connection that the server has not taken yet."""
        return self._accepted.popleft() if self._accepted else None

    def run(self, server: Server, until: Callable[[], bool]) -> None:
        """Serve until `until` says so; it is asked ten times a second at least."""
        while not until():
            self._take_in()
            server.turn(time.monotonic_ns())
            while self._dirty:
                stream = next(iter(self._dirty))
                del self._dirty[stream]
                self._advance(stream)

    def _take_in(self) -> None:
        for key, events in self._selector.select(_WAIT):
            stream = key.data
            if stream is None:
                self._accept()
                continue
            if events & selectors.EVENT_READ:
                stream.take_in()
            self._mark(stream)
            if stream.notify is not None:
                stream.notify(stream)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_MORE:
                time.sleep(_WAIT)  # it stays readable: don't spin until somebody leaves
            return
        stream = SocketStream(sock, self._mark)
        self._selector.register(sock, selectors.EVENT_READ, stream)
        self._open[stream] = selectors.EVENT_READ
        self._accepted.append(stream)

    def _mark(self, stream: SocketStream) -> None:
        self._dirty[stream] = None

    def _advance(self, stream: SocketStream) -> None:
        events = self._open.get(stream)
        if events is None:
            return
        stream.advance()
        self._dirty.pop(stream, None)
        if stream.closed:
            self._wait_for(stream, events, 0)
            del self._open[stream]
            stream.socket.close()
        else:
            self._open[stream] = self._wait_for(stream, events, stream.wanted)
        if stream.notify is not None:
            stream.notify(stream)

    def _wait_for(self, stream: SocketStream, old: int, new: int) -> int:
        """Change what is waited for, where it is something else."""
        if old and new and old != new:
            self._selector.modify(stream.socket, new, stream)
        elif old and not new:
            self._selector.unregister(stream.socket)
        elif new and not old:
            self._selector.register(stream.socket, new, stream)
        return new
