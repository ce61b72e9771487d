"""A mount from beginning to end: make it, serve it until it is unmounted, close the file system.

Does: the loop that reads requests, when to sleep and when to keep looking, signals.
Does not: understand requests (`dispatch`), or say anything unasked (`notices`).

One thread serves. The interpreter runs one at a time anyway, and the POSIX layer has one lock. What
waits for a device's flush or for the host kernel does so in threads of its own (`durable`,
`notices`).

Sleeping. Waking a sleeping server costs the caller several times what most answers do, if the two
run on different cores. So after an answer the loop looks for the next request a little longer
(`SPIN`) before it sleeps, but only while requests come close behind one another: a request that
comes alone finds no loop turning.

fsync. Requests that wait for durability are put off until no other request is at hand, at most so
many (`_GATHER`) later. Whatever came meanwhile is in the same commit.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from libfs.kernel import mounting
from libfs.kernel.dispatch import MAX_IO, Dispatcher, Parts
from libfs.kernel.mounting import MountFailed, Wanted
from libfs.kernel.negotiate import Negotiation
from libfs.posix import Front, Posix
from libfs.serve import Housekeeper, errno_of

#: How long to look for the next request before sleeping, ns.
SPIN: Final = 50_000
#: Requests served before those that wait for durability get their commit.
_GATHER: Final = 32
#: A request that comes later than this after the last answer is not close behind it, ns.
_CLOSE: Final = 4 * SPIN


def settle_process() -> None:
    """Make the process a server: to be called by the main thread before it starts any other."""
    Housekeeper.block_signals()
    # The housekeeper needs the interpreter every second; requests should not wait long for it.
    sys.setswitchinterval(0.0005)
    # Cached pages and inodes are hundreds of thousands of objects without cycles: looking for
    # those at every 700 new ones costs a tenth of what a request takes.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class Mount:
    """One mounted file system: `run` serves it until it is unmounted."""

    def __init__(
        self,
        posix: Posix,
        directory: str,
        *,
        source: str,
        options: Sequence[str] = (),
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`directory`: absolute, without links. `options`: as after -o. `ready` is called when the
        mount is usable.

        Raises: MountFailed for an option that is not known.
        """
        self._posix = posix
        #: one of several mounts of a file system: the host kernel's caches differ
        self._front = posix if isinstance(posix, Front) else None
        self.directory = directory
        self._source = source
        self._wanted = Wanted.parse(options)
        self.ready = ready
        self._spin = SPIN if self._wanted.spin else 0
        self._fd = -1
        self._stopping = False
        self._negotiation = Negotiation(
            MAX_IO,
            writeback="sync" not in self._wanted.flags,
            opens=self._wanted.strictatime,
            checks=self._wanted.default_permissions,
            shared=self._front is not None,
        )
        self._dispatcher = Dispatcher(posix, self._send, self._negotiation)
        #: For changes that do not come through this mount, made in the same process.
        self.notices = self._dispatcher.notices
        if self._front is not None:
            self._front.watcher = self.notices
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> None:
        """Mount, serve, and on return have everything durable and closed.

        To be called from the main thread, once. SIGTERM, SIGINT and SIGHUP unmount. Raises:
        MountFailed, and what closing raises.
        """
        self.attach()
        settle_process()
        keeper = Housekeeper(self.idle, self.stop)
        keeper.start()
        try:
            self.serve()
        finally:
            keeper.end()
            self.close()
        self.check()

    # -- the steps of it, for who runs several mounts (`group`)

    def attach(self) -> None:
        """Mount. Whoever looks at the directory waits until `serve`. Raises: MountFailed."""
        self._fd = mounting.mount(self.directory, self._source, self._wanted)

    def serve(self) -> None:
        """Answer requests until it is unmounted."""
        syncer, controls = self._dispatcher.syncer, self._dispatcher.controls
        notifier = threading.Thread(target=self.notices.run, name="notices", daemon=True)
        waiter = threading.Thread(target=syncer.run, name="syncer", daemon=True)
        copier = threading.Thread(target=controls.run, name="controls", daemon=True)
        for thread in (notifier, waiter, copier):
            thread.start()
        try:
            self._serve()
        finally:
            controls.end()
            self.notices.end()
            syncer.end()
            waiter.join()  # it still has answers to give
            fd, self._fd = self._fd, -1
            os.close(fd)  # whoever still waits for an answer gets an error now
            copier.join()  # it takes away what it has not finished
            notifier.join(timeout=5)  # it may wait for an answer that will not come

    def controlled_by(self, do: Callable[[list[bytes]], bytes]) -> None:
        """`do` answers what whoever runs the server asks of it (`controls.ask_server`).

        It is called by a thread of this mount, and may raise FsError.
        """
        self._dispatcher.controls.admin = do

    def idle(self) -> None:
        """See `Posix.idle`."""
        self._posix.idle()

    def close(self) -> None:
        """Everything is durable, and this mount's share of the file system given back."""
        if self._front is not None:
            self._front.watcher = None
            self._dispatcher.nodes.clear()
        self._posix.close()

    def check(self) -> None:
        """Raises: MountFailed if the host kernel and we did not agree."""
        if self._negotiation.failure:
            mounting.unmount(self.directory, lazy=True)
            raise MountFailed(self._negotiation.failure)

    def _send(self, parts: Parts) -> None:
        os.writev(self._fd, parts)

    # -- the loop

    def _serve(self) -> None:
        """Until the connection ends, or a signal has ended it."""
        if not self._introduce():
            return
        fd, dispatcher = self._fd, self._dispatcher
        handle, read, clock = dispatcher.handle, os.readv, time.monotonic_ns
        if self._front is not None:
            handle = dispatcher.handle_in_turn
        buffers = [dispatcher.buffer]
        asleep = select.poll()
        asleep.register(fd, select.POLLIN)
        asleep.register(self._wake_reader, select.POLLIN)
        answered, until, gathered = 0, 0, 0
        while not self._stopping:
            try:
                length = read(fd, buffers)
            except BlockingIOError:
                if dispatcher.undurable:
                    gathered = until = 0  # an answer takes longer than looking for it is worth
                    dispatcher.settle()
                elif clock() > until:
                    asleep.poll()
                    until = clock()
                continue
            except OSError as error:
                if self._goes_on(error):
                    continue
                return
            close = clock() - answered < _CLOSE
            handle(length)
            if dispatcher.undurable:
                gathered += 1
                if gathered >= _GATHER:
                    gathered = 0
                    dispatcher.settle()
            answered = clock()
            until = answered + self._spin if close else 0

    def _introduce(self) -> bool:
        """Answer INIT, which comes before everything else; whether there is a connection."""
        asleep = select.poll()
        asleep.register(self._fd, select.POLLIN)
        while not self._negotiation.minor:
            asleep.poll()
            try:
                self._dispatcher.handle(os.readv(self._fd, [self._dispatcher.buffer]))
            except BlockingIOError:
                continue
            except OSError as error:
                if not self._goes_on(error):
                    return False
            if self._negotiation.failure:
                return False
        mounting.raise_read_ahead(self.directory)
        self.ready()
        return True

    @staticmethod
    def _goes_on(error: OSError) -> bool:
        """Whether a failed read was about one request, not about the whole connection."""
        if error.errno in (errno.ENOENT, errno.EINTR):
            return True  # taken back while it was being read
        if error.errno not in (errno.ENODEV, errno.ECONNABORTED):
            errno_of(error)  # for its log
        return False

    def stop(self) -> None:
        """Unmount, from another thread. Files still open lose their file system."""
        if mounting.unmount(self.directory):
            with suppress(OSError):  # nothing more can be done about it
                mounting.write_back(self.directory)
            mounting.unmount(self.directory, lazy=True)
            self._stopping = True
            os.write(self._wake_writer, b"\0")
