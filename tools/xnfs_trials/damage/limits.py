"""Bounds on what one image may cost: time of the processor, and address space.

Both end as exceptions in the middle of whatever runs, so that the image at fault can be named.
Only in a process's main thread.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

SECONDS: Final = 20.0
BYTES: Final = 256 << 20


class Hang(BaseException):
    """The time is up. Not an Exception: nothing on the way may take it for an error of its own."""


def _up(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


@contextlib.contextmanager
def limits(seconds: float = SECONDS, more: int = BYTES) -> Iterator[None]:
    """Let what runs inside use so many seconds and so many more bytes.

    Raises Hang, MemoryError.
    """
    old = signal.signal(signal.SIGVTALRM, _up)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = _address_space() + more
    if soft != resource.RLIM_INFINITY:
        bound = min(bound, soft)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, old)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
