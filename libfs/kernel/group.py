"""Several mounts served by one process, each by threads of its own, until the last is unmounted.

Does: mount one after the other, so that one may lie in another, and more while any is left; one
housekeeper for all; signals unmount all, the last first. Each mount that ends closes its file
system at once.
Does not: know whether the mounts share an image, or a file system (`libfs.posix.shared`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from libfs.kernel.mounting import MountFailed
from libfs.kernel.session import Mount, settle_process
from libfs.serve import Housekeeper


class Group:
    """See the module."""

    def __init__(self, mounts: Sequence[Mount], ready: Callable[[], None]) -> None:
        """`ready` is called when all are usable."""
        self._mounts = mounts
        self._ready = ready
        self._threads: list[threading.Thread] = []
        self._live: list[Mount] = []
        self._living = threading.Lock()
        self._failed: list[Exception] = []
        self._stopping = False

    def run(self) -> None:
        """As `Mount.run`. If one can't be mounted, none is."""
        settle_process()
        keeper = Housekeeper(self._idle, self._stop)
        keeper.start()
        begun = 0
        try:
            for mount in self._mounts:
                self._start(mount)
                begun += 1
            self._ready()
        except BaseException:
            self._stop()
            raise
        finally:
            while self._threads:
                self._threads.pop().join()
            keeper.end()
            for mount in self._mounts[begun:]:
                mount.close()
        if self._failed:
            raise self._failed[0]

    def add(self, mount: Mount) -> None:
        """Mount one more; return when it is usable. Not by the thread that serves another, but
        while another is served. Raises: MountFailed; then it is closed."""
        try:
            self._start(mount)
        except BaseException:
            mount.close()
            raise

    def serves(self, mount: Mount) -> bool:
        """Whether it has begun and not ended."""
        with self._living:
            return mount in self._live

    def _start(self, mount: Mount) -> None:
        """Mount, and return when it is usable. Raises: MountFailed, naming the directory."""
        if self._stopping:
            raise MountFailed("stopped by a signal")
        usable = threading.Event()
        mount.ready = usable.set
        try:
            mount.attach()
        except MountFailed as error:
            raise MountFailed(f"{mount.directory}: {error}") from None
        failed: list[Exception] = []
        thread = threading.Thread(target=self._serve, args=(mount, usable, failed), name="mount")
        with self._living:
            self._live.append(mount)
        thread.start()
        usable.wait()
        if failed:
            thread.join()
            raise failed[0]
        self._threads.append(thread)

    def _serve(self, mount: Mount, usable: threading.Event, failed: list[Exception]) -> None:
        """A thread's work: one mount, to its end. `failed`: why it was never usable."""
        try:
            try:
                mount.serve()
            finally:
                with self._living:
                    self._live.remove(mount)
                mount.close()
            mount.check()
        except MountFailed as error:
            failed.append(MountFailed(f"{mount.directory}: {error}"))
        except Exception as error:
            (self._failed if usable.is_set() else failed).append(error)
        finally:
            usable.set()

    def _idle(self) -> None:
        with self._living:
            for mount in self._live:
                mount.idle()

    def _stop(self) -> None:
        self._stopping = True
        with self._living:
            live = self._live[::-1]
        for mount in live:
            mount.stop()
