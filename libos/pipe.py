"""A pipe in one frame that its users share: bytes, in order, without the kernel.

    word 0   bytes taken out since the beginning
    word 1   bytes put in
    word 2   readers, word 3 writers
    from 32  a ring of SIZE bytes

Who must wait downloads a predicate over the frame: not empty, or not full, or the other side
gone. So nobody is woken by name, and a writer need not know who reads. Each user binds the frame
at a page of its own choice; that check of the capability is the only one there is.
"""

from __future__ import annotations

from typing import Any, Final

from xnfs import FRAME, READ, WRITE, Boot, Program, calls

_DATA: Final = 32
SIZE: Final = FRAME - _DATA
_TAKEN, _PUT, _READERS, _WRITERS = 0, 8, 16, 24

_READABLE: Final = """\
def ready(kernel, a, b, c, d, args):
    return u64(a, 0) != u64(a, 8) or u64(a, 24) == 0
"""
_WRITABLE: Final = f"""\
def ready(kernel, a, b, c, d, args):
    taken = u64(a, 0)
    put = u64(a, 8)
    return put < taken or put - taken < {SIZE} or u64(a, 16) == 0
"""


class BrokenPipe(Exception):
    """Nobody is left to read."""


class Pipe:
    """One environment's view of a pipe."""

    def __init__(self, me: Boot, frame: int, token: bytes, page: int) -> None:
        """`token` lets the environment read and write the frame, which appears at the page."""
        self.me = me
        self.frame = frame
        self.token = token
        self._base = page << 12
        self._page = page
        self._readable = self._writable = -1

    def attach(self) -> Program:
        """Bind the frame. `calls.PIN` has the kernel answer every miss on it."""
        yield (calls.PIN, self._page, self.frame, READ | WRITE, self.token)

    def detach(self) -> Program:
        """Forget the binding and what was downloaded."""
        for number in (self._readable, self._writable):
            if number >= 0:
                yield (calls.PREDICATE_FREE, number)
        self._readable = self._writable = -1
        yield (calls.UNBIND, self._page)

    def count(self, readers: int, writers: int) -> Program:
        """Add to the numbers of users."""
        for offset, change in ((_READERS, readers), (_WRITERS, writers)):
            if change:
                users = yield (calls.LOAD, self._base + offset)
                yield (calls.STORE, self._base + offset, users + change)

    def read(self, count: int) -> Program:
        """Up to so many bytes, at least one; b"" when it is empty and nobody writes any more."""
        while True:
            taken = yield (calls.LOAD, self._base + _TAKEN)
            put = yield (calls.LOAD, self._base + _PUT)
            if put != taken:
                break
            if not (yield (calls.LOAD, self._base + _WRITERS)):
                return b""
            if self._readable < 0:
                source = (calls.PREDICATE, _READABLE, (self.frame,), self.token)
                self._readable = yield source
            yield (calls.WAIT, self._readable, (), 0)
        count = min(count, put - taken)
        pieces = []
        for at, length in self._pieces(taken, count):
            pieces.append((yield (calls.READ_BYTES, at, length)))
        yield (calls.STORE, self._base + _TAKEN, taken + count)
        return b"".join(pieces)

    def write(self, data: bytes) -> Program:
        """All of the bytes, waiting for room. Raises BrokenPipe."""
        left = memoryview(data)
        while left:
            if not (yield (calls.LOAD, self._base + _READERS)):
                raise BrokenPipe
            taken = yield (calls.LOAD, self._base + _TAKEN)
            put = yield (calls.LOAD, self._base + _PUT)
            room = min(SIZE - (put - taken), len(left))
            if not room:
                if self._writable < 0:
                    source = (calls.PREDICATE, _WRITABLE, (self.frame,), self.token)
                    self._writable = yield source
                yield (calls.WAIT, self._writable, (), 0)
                continue
            done = 0
            for at, length in self._pieces(put, room):
                yield (calls.WRITE_BYTES, at, bytes(left[done : done + length]))
                done += length
            yield (calls.STORE, self._base + _PUT, put + room)
            left = left[room:]

    def _pieces(self, at: int, count: int) -> list[tuple[int, int]]:
        """Where a run of bytes of the stream lies: one piece, or two around the end."""
        start = at % SIZE
        first = min(count, SIZE - start)
        pieces = [(self._base + _DATA + start, first)]
        if first < count:
            pieces.append((self._base + _DATA, count - first))
        return pieces


def make(me: Boot, account: int, token: bytes) -> Program:
    """A frame for a pipe, cleared: nothing in it and no users."""
    frame: Any = yield (calls.FRAME_ALLOC, account, calls.ANY, token)
    return frame
