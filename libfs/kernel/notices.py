"""What is said to the host kernel unasked: that something it has cached is no longer true.

A thread of its own says it. The kernel may first have to write its cache back, or wait for an inode
that it is about to drop; both need answers from the thread that serves requests.
"""

from __future__ import annotations

import errno
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


class Notices:
    """A queue of notices; `run` sends them. Methods may be called by any thread."""

    def __init__(self, send: Callable[[list[bytes]], object], nodes: Nodes) -> None:
        self._send = send
        self._nodes = nodes
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def attributes_changed(self, ino: Ino) -> None:
        """The kernel should ask for the attributes of an inode again."""
        self._queue.put(lambda: self._inode(ino, _ATTRIBUTES_ONLY))

    def data_changed(self, ino: Ino) -> None:
        """The kernel should ask for the attributes and all bytes of an inode again."""
        self._queue.put(lambda: self._inode(ino, 0))

    def name_changed(self, parent: Ino, name: bytes) -> None:
        """The kernel should look a name up again."""
        record = abi.NOTIFY_ENTRY.pack(self._nodes.node(parent), len(name)) + name + b"\0"
        self._queue.put(lambda: self._say(abi.Notify.INVAL_ENTRY, record))

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

    def _inode(self, ino: Ino, start: int, length: int = 0) -> None:
        record = abi.NOTIFY_INODE.pack(self._nodes.node(ino), start, length)
        self._say(abi.Notify.INVAL_INODE, record)

    def _say(self, code: abi.Notify, record: bytes) -> None:
        try:
            self._send([abi.OUT_HEADER.pack(_HEADER_SIZE + len(record), code, 0), record])
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise
