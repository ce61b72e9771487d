"""Remote procedure calls on protected control transfer.

    server:  rpc = Server(me, {1: add}); yield from rpc.start()
    client:  far = Client(me, server, page); yield from far.connect()
             total = yield from far.call(1, 2, 3)

A call is one transfer: its time is the caller's, the server has no queue and no thread. Arguments
and results are integers of 64 bits and bytes, marshalled into one frame of the client's, which it
gives the server the right to bind when it connects; after that no call copies through the kernel
and none checks a capability. What is in the frame the client may change at any time, so the
server copies it before it looks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from xnfs import FRAME, GRANT, READ, WRITE, Boot, InUse, Program, XnError, calls

Value = int | bytes
#: A procedure gets the caller's id and the arguments, and returns a tuple of values.
Procedure = Callable[..., Program]

_CONNECT: Final = 0
_DONE, _FAILED = 0, 1
_INT, _BYTES = 0, 1
_HEAD: Final = struct.Struct("<BxxxI")  # kind, length
MAX_CLIENTS: Final = 64


class RemoteError(Exception):
    """The procedure failed, or there is none of that number."""


def pack(values: tuple[Value, ...]) -> bytes:
    """Marshal. Raises ValueError: too much for one frame, or no such value."""
    parts = [len(values).to_bytes(4, "little")]
    for value in values:
        if type(value) is int:
            if not 0 <= value < 1 << 64:
                raise ValueError("an integer of a call has 64 bits")
            parts.append(_HEAD.pack(_INT, 8) + value.to_bytes(8, "little"))
        elif type(value) is bytes:
            parts.append(_HEAD.pack(_BYTES, len(value)) + value)
        else:
            raise ValueError("a call takes integers and bytes")
    made = b"".join(parts)
    if len(made) > FRAME:
        raise ValueError("a call takes one frame")
    return made


def unpack(raw: bytes) -> tuple[Value, ...]:
    """Unmarshal what another has written. Raises ValueError."""
    values: list[Value] = []
    at = 4
    while at < len(raw):
        if at + _HEAD.size > len(raw):
            raise ValueError("cut short")
        kind, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        if length > len(raw) - at or kind not in (_INT, _BYTES) or (kind == _INT and length != 8):
            raise ValueError("no values")
        part = raw[at : at + length]
        values.append(int.from_bytes(part, "little") if kind == _INT else part)
        at += length
    if len(raw) < 4 or int.from_bytes(raw[:4], "little") != len(values):
        raise ValueError("not so many values")
    return tuple(values)


class Server:
    """Procedures that other environments may call."""

    def __init__(self, me: Boot, procedures: Mapping[int, Procedure], page: int = 1 << 30) -> None:
        """Clients' frames are bound at pages from `page` on."""
        self.me = me
        self.calls = 0
        self._procedures = procedures
        self._page = page
        self._clients: dict[int, int] = {}  # id -> its page

    def start(self) -> Program:
        """Take calls from now on."""
        yield (calls.HANDLER, calls.CALLED, self._called)

    def _called(self, caller: int, number: int, length: int, frame: int) -> Program:
        if number == _CONNECT:
            return (yield from self._connect(caller, frame))
        page = self._clients.get(caller)
        procedure = self._procedures.get(number)
        if page is None or procedure is None or length > FRAME:
            return _FAILED, 0, 0
        self.calls += 1
        try:
            raw = yield (calls.READ_BYTES, page << 12, length)
            answer = pack((yield from procedure(caller, *unpack(raw))))
            yield (calls.WRITE_BYTES, page << 12, answer)
        except Exception:  # whatever a procedure raises is an answer, not the server's end
            return _FAILED, 0, 0
        return _DONE, len(answer), 0

    def _connect(self, caller: int, frame: int) -> Program:
        """Bind the frame that a new client shares. Its token was granted to us."""
        for id in [c for c in self._clients if self.me.tables.state(c) in (0, calls.ENDED)]:
            yield (calls.UNBIND, self._clients.pop(id))
        tokens = yield (calls.ACCEPT,)
        taken = set(self._clients.values())
        free = (p for p in range(self._page, self._page + MAX_CLIENTS) if p not in taken)
        page = self._clients.get(caller) or next(free, 0)
        for token in reversed(tokens):
            try:
                if page:
                    yield (calls.PIN, page, frame, READ | WRITE, token)
                    self._clients[caller] = page
                    return _DONE, 0, 0
            except XnError:
                continue
        return _FAILED, 0, 0


class Client:
    """The procedures of one server, as seen by one environment."""

    def __init__(self, me: Boot, server: int, page: int) -> None:
        """The shared frame appears at the page."""
        self.me = me
        self.server = server
        self._page = page

    def connect(self) -> Program:
        """Take a frame and share it. Raises RemoteError, XnError."""
        me = self.me
        frame: Any = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.PIN, self._page, frame, READ | WRITE, me.token)
        token = yield (calls.NARROW, me.token, (f"f{frame}",), READ | WRITE | GRANT)
        yield (calls.GRANT, token, self.server)
        yield from self._transfer(_CONNECT, 0, frame)

    def call(self, number: int, *arguments: Value) -> Program:
        """Call a procedure; what it returned. Raises RemoteError, ValueError, XnError."""
        raw = pack(arguments)
        yield (calls.WRITE_BYTES, self._page << 12, raw)
        length = yield from self._transfer(number, len(raw), 0)
        return unpack((yield (calls.READ_BYTES, self._page << 12, length)))

    def _transfer(self, number: int, length: int, frame: int) -> Program:
        while True:
            try:
                state, size, _ = yield (calls.CALL, self.server, number, length, frame)
            except InUse:  # somebody else's call is not over: let it go on
                yield (calls.YIELD, 0)
                continue
            if state != _DONE:
                raise RemoteError(f"procedure {number} failed")
            return size
