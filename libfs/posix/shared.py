"""One file system mounted several times by one process: every mount has a front of its own.

The fronts share everything (open files, locks, permissions, the one lock), so they are as coherent
as one. What is not shared is what each front's client keeps: a host kernel remembers names,
attributes and bytes. So each front has a watcher, which is told what came to be different through
the others.

Guarantees: a watcher is told of each change before any later call of any front begins; also of one
that failed half-way, and now and then of one that did not happen. It is called with the lock held,
so it must wait for nothing (a queue is meant).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from threading import Lock as Mutex
from typing import Protocol

from libfs.posix import passing
from libfs.posix.core import Changes, Core
from libfs.posix.interface import FileSystem, Ino
from libfs.posix.options import Options
from libfs.posix.posix import Posix


class Watcher(Protocol):
    """Who keeps copies of names, attributes or bytes."""

    def name_changed(self, parent: Ino, name: bytes) -> None:
        """A name came, went, or names something else."""

    def attributes_changed(self, ino: Ino) -> None:
        """Attributes, extended ones included, are different."""

    def data_changed(self, ino: Ino) -> None:
        """Attributes and bytes, or the entries of a directory, are different."""


class Shared:
    """A file system with several fronts."""

    def __init__(self, fs: FileSystem, options: Options) -> None:
        self.core = Core(fs, options)
        passing.find_left(self.core)
        self.core.changes = Changes()
        self.mutex = Mutex()
        self.fronts: list[Front] = []

    def front(self) -> Front:
        """One more. The file system is closed with the last."""
        made = Front(self)
        self.fronts.append(made)
        return made

    def tell(self, by: Front) -> None:
        """Tell the watchers of all fronts but this one of what has changed since the last time."""
        changes = self.core.changes
        if changes is None or not (changes.names or changes.inodes):
            return
        names, inodes = changes.take()
        for front in self.fronts:
            if front is not by and front.watcher is not None:
                for parent, name in names:
                    front.watcher.name_changed(parent, name)
                for ino, data in inodes.items():
                    told = front.watcher.data_changed if data else front.watcher.attributes_changed
                    told(ino)


class Front(Posix):
    """See the module."""

    def __init__(self, shared: Shared) -> None:
        # Not as Posix begins: all but the count of syncs is there already.
        self._core = shared.core
        self._lock = _Turn(shared.mutex, lambda: shared.tell(self))
        self._syncs = 0
        self._no_syncs = Condition(shared.mutex)
        self._shared = shared
        self.root = shared.core.fs.root
        self.watcher: Watcher | None = None

    def _end(self) -> None:
        fronts = self._shared.fronts
        if self in fronts:
            fronts.remove(self)
            if not fronts:
                super()._end()


class _Turn:
    """The lock; whoever gives it back first says what changed."""

    def __init__(self, mutex: Mutex, tell: Callable[[], None]) -> None:
        self._mutex = mutex
        self._tell = tell

    def __enter__(self) -> None:
        self._mutex.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            self._tell()
        finally:
            self._mutex.release()
