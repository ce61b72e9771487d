"""What every transport of requests needs, whichever protocol it speaks: who is asking, which errno
an error becomes, and the thread that looks after a mounted file system between requests.

Does not: speak FUSE (`libfs/fuse.py`) or know paths (`libfs/paths.py`); it is what an inode-based
transport would share with the path-based one.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from libfs.posix.interface import FsError, User
from xnfs import (
    AclRefused,
    CapabilityError,
    CorruptionError,
    DeviceError,
    NoFrames,
    NoSpace,
    ReadOnly,
    XnError,
)

log = logging.getLogger("xnfs")

#: Signals that end a mount cleanly.
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_FIXED: Final[tuple[tuple[type[XnError], int], ...]] = (
    (CorruptionError, errno.EUCLEAN),
    (NoSpace, errno.ENOSPC),
    (NoFrames, errno.ENOMEM),
    (ReadOnly, errno.EROFS),
    (CapabilityError, errno.EPERM),
)


def errno_of(error: BaseException) -> int:
    """The errno that a request is answered with. The one place where this is decided.

    An error that nobody foresaw is EIO, never "invalid argument": the caller did nothing wrong.
    Its traceback goes to the log.
    """
    if isinstance(error, FsError):
        return error.errno or errno.EIO
    if isinstance(error, AclRefused):
        return error.errno
    if isinstance(error, DeviceError):
        log.error("the device failed: %s", error)
        return error.errno or errno.EIO
    for kind, number in _FIXED:
        if isinstance(error, kind):
            if kind is CorruptionError:
                log.error("the image is damaged: %s", error)
            return number
    log.error("a request failed unexpectedly", exc_info=error)
    return errno.EIO


class Users:
    """The identity behind a request: what the protocol says, and the groups, which it does not say.

    Supplementary groups are read from /proc, only for users to whom they matter (uid 0 may do
    everything anyway), and kept for a second: a process that changes its groups is believed then.
    """

    LIFETIME: Final = 1.0
    LIMIT: Final = 1024

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[float, User]] = {}

    def get(self, uid: int, gid: int, pid: int) -> User:
        """The user; `pid` is a thread's id, 0 if the process is in another namespace."""
        key = (uid, gid, pid if uid else 0)
        entry = self._known.get(key)
        if entry is not None and (not uid or entry[0] > time.monotonic()):
            return entry[1]
        user = User(uid, gid, groups_of(pid) if uid and pid else ())
        if len(self._known) >= self.LIMIT:
            self._known.clear()
        self._known[key] = (time.monotonic() + self.LIFETIME, user)
        return user


def groups_of(pid: int) -> tuple[int, ...]:
    """Supplementary groups of a thread; none if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Groups:"):
                    return tuple(map(int, line.split()[1:]))
    except (OSError, ValueError):
        pass
    return ()


class Housekeeper(threading.Thread):
    """Calls `idle` about once a second, and `stop` when a signal asks for the end.

    The main thread sits in the transport's loop, in C, where Python would never get to run a
    signal handler. So the signals are blocked everywhere and this thread waits for them.
    """

    PERIOD: Final = 1.0

    def __init__(self, idle: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(name="housekeeper", daemon=True)
        # Not `_stop`: Thread has one.
        self._on_idle = idle
        self._on_signal = stop
        self._ended = threading.Event()

    @staticmethod
    def block_signals() -> None:
        """To be called by the main thread before it starts any other."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def run(self) -> None:
        """Until `end`."""
        while True:
            got = signal.sigtimedwait(STOPPING, self.PERIOD)
            if self._ended.is_set():
                return
            self._guard(self._on_idle if got is None else self._on_signal)

    def _guard(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:
            errno_of(error)  # for its log

    def end(self) -> None:
        """No call of `idle` starts after this; one that runs is waited for."""
        self._ended.set()
        if self.ident is not None and self.is_alive():
            signal.pthread_kill(self.ident, signal.SIGHUP)  # wake it
            self.join(timeout=60)
