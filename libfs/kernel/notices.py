"""What is said to the host kernel unasked: that something it has cached is no longer true.

A thread of its own says it. The kernel may first have to write its cache back, or wait for an inode
that it is about to drop, or for a directory in which it is looking; all need answers from the
thread that serves requests.

So what is changed through one mount of a file system, another one hears of *after* the answer, as a
rule within a millisecond. It can't be before: a request that changes a directory holds that
directory in its kernel until it is answered, a notice about a name waits for that of the other
kernel, and two such requests would wait for each other.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from libfs.kernel import abi
from libfs.kernel.nodes import Nodes
from libfs.posix import Ino
from libfs.serve import errno_of

#: The kernel does not have it cached, or is gone: nothing to invalidate.
_NOTHING_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EBADF)
_ATTRIBUTES_ONLY: Final = -1
_HEADER_SIZE: Final = abi.OUT_HEADER.size
#: The kernel may be about to read an answer that makes an inode known: how often to say it again.
_AGAIN: Final = 10


class Notices:
    """A queue of notices; `run` sends them. Methods may be called by any thread. A `Watcher` of
    what comes through other mounts.

    An answer that was made before a change may be on its way when the notice of that change is
    sent. Names and inodes that the kernel knows are safe: it serializes the former, and versions
    the latter. An inode that it is just being told of is not, so the request that does so has its
    `turn` first, and where the kernel says that it does not know an inode that it was told of, it
    is asked again a little later.
    """

    def __init__(self, send: Callable[[list[bytes]], object], nodes: Nodes) -> None:
        self._send = send
        self._nodes = nodes
        self.turn = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def attributes_changed(self, ino: Ino) -> None:
        """The kernel should ask for the attributes of an inode again, and whoever keeps them."""
        self._nodes.uncapable.discard(ino)
        self._queue.put(lambda: self._inode(ino, _ATTRIBUTES_ONLY))

    def data_changed(self, ino: Ino) -> None:
        """The kernel should ask for the attributes and all bytes of an inode again."""
        self._nodes.uncapable.discard(ino)
        self._queue.put(lambda: self._inode(ino, 0))

    def name_changed(self, parent: Ino, name: bytes) -> None:
        """The kernel should look a name up again."""
        record = abi.NOTIFY_ENTRY.pack(self._nodes.node(parent), len(name)) + name + b"\0"
        self._queue.put(lambda: self._entry(record))

    def when_written_back(
        self, ino: Ino, start: int, length: int, then: Callable[[], None]
    ) -> None:
        """Call `then`, in the thread that sends, when the kernel has no bytes of a range (length
        0: to the end) that we don't have. There is no request for that, but it writes back what it
        is told to drop."""

        def both() -> None:
            self._inode(ino, start, length)
            then()

        self._queue.put(both)

    def then(self, job: Callable[[], None]) -> None:
        """Call `job`, in the thread that sends, when all notices before it are sent."""
        self._queue.put(job)

    def end(self) -> None:
        """`run` returns after what is queued."""
        self._queue.put(None)

    def run(self) -> None:
        """Send notices until `end`."""
        while (job := self._queue.get()) is not None:
            try:
                job()
            except Exception as error:
                errno_of(error)  # for its log

    def _entry(self, record: bytes) -> None:
        self._say(abi.Notify.INVAL_ENTRY, record)

    def _inode(self, ino: Ino, start: int, length: int = 0) -> None:
        record = abi.NOTIFY_INODE.pack(self._nodes.node(ino), start, length)
        with self.turn:
            pass
        for _turn in range(_AGAIN):
            if self._say(abi.Notify.INVAL_INODE, record) or not self._nodes.known(ino):
                break
            time.sleep(0.001)

    def _say(self, code: abi.Notify, record: bytes) -> bool:
        """Whether there was something to invalidate."""
        try:
            self._send([abi.OUT_HEADER.pack(_HEADER_SIZE + len(record), code, 0), record])
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise
            return False
        return True
