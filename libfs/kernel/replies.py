"""What a handler says: bytes to answer with, an errno, nothing at all, or that it comes later."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from libfs.posix import Ino, Sink


class Durable(NamedTuple):
    """Answer when the inode (None: everything) is durable. Requests that wait for that are served
    together, by another thread, so that fsyncs of many processes cost one commit."""

    ino: Ino | None
    data_only: bool = False


class WrittenBack(NamedTuple):
    """Answer with what `work` returns, once the kernel has handed over all it has cached of a range
    (length 0: to the end). `work` is called by another thread, and the requests that bring the
    bytes are served meanwhile."""

    ino: Ino
    start: int
    length: int
    work: Callable[[], bytes]


class Later(NamedTuple):
    """Answer when somebody else says so: `start` is given what to call then, from any thread, with
    what gives the answer or raises."""

    start: Callable[[Callable[[Callable[[], bytes]], None]], None]


class Lent(NamedTuple):
    """Answer with the bytes that `lend` shows to who is given to it."""

    lend: Callable[[Sink], None]


#: An `int` is an errno, for errors so common that raising them would cost.
Reply = bytes | int | Durable | WrittenBack | Lent | Later | None
