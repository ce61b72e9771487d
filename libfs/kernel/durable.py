"""Requests that wait for durability: fsync, fdatasync, fsyncdir, sync.

A thread of its own waits for the device, so that other requests are served meanwhile. While one
commit is under way whatever else comes gathers, and shares the next one: many fsyncs, few flushes.

Guarantees: each request gets one answer, after a commit that began when the request was there; what
is wrong with one inode is no answer for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from libfs.kernel.replies import Durable
from libfs.posix import Posix
from libfs.serve import errno_of

Waiting = tuple[int, Durable]


class Syncer:
    """A queue of requests; `run` answers them. `put` may be called by any thread."""

    def __init__(self, posix: Posix, answer: Callable[[int, int], None]) -> None:
        """`answer` is given the number of a request and an errno."""
        self._posix = posix
        self._answer = answer
        self._queue: SimpleQueue[Sequence[Waiting] | None] = SimpleQueue()

    def put(self, waiting: Sequence[Waiting]) -> None:
        """These wait from now on."""
        self._queue.put(waiting)

    def end(self) -> None:
        """`run` returns after what is queued."""
        self._queue.put(None)

    def run(self) -> None:
        """Answer until `end`."""
        waiting: list[Waiting] = []
        ended = False
        while waiting or not ended:
            if not waiting:
                ended = self._take(waiting)
            ended = self._take_all(waiting) or ended
            if not waiting:
                continue
            begun = time.monotonic()
            self._settle(waiting)
            answered, now = len(waiting), time.monotonic()
            waiting = []
            ended = self._take_all(waiting) or ended
            if waiting and not ended:
                # Several take turns. Those just answered come again soon; without waiting for them
                # they would be one half of all, ever after, and each commit serve one half.
                ended = self._gather(waiting, answered + len(waiting), now + (now - begun) / 2)

    def _gather(self, waiting: list[Waiting], count: int, until: float) -> bool:
        while len(waiting) < count and (left := until - time.monotonic()) > 0:
            try:
                if self._take(waiting, left):
                    return True
            except Empty:
                break
        return False

    def _take_all(self, waiting: list[Waiting]) -> bool:
        """Take what is there; whether the end has come."""
        try:
            while not self._take(waiting, 0):
                pass
        except Empty:
            return False
        return True

    def _take(self, waiting: list[Waiting], timeout: float | None = None) -> bool:
        """Take what comes next; whether the end has come. Raises: Empty."""
        more = self._queue.get(timeout=timeout)
        waiting += more or ()
        return more is None

    def _settle(self, waiting: Sequence[Waiting]) -> None:
        """Answer all of these, with one commit for all."""
        number = self._sync([durable for _, durable in waiting])
        for unique, durable in waiting:
            if number and len(waiting) > 1:
                self._answer(unique, self._sync([durable]))
            else:
                self._answer(unique, number)

    def _sync(self, wanted: Sequence[Durable]) -> int:
        """Make these durable: 0 or an errno."""
        inos = {durable.ino: None for durable in wanted}
        try:
            if None in inos:
                self._posix.sync()
            else:
                data_only = all(durable.data_only for durable in wanted)
                self._posix.fsync_inodes([i for i in inos if i is not None], datasync=data_only)
        except Exception as error:
            return errno_of(error)
        return 0
