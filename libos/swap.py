"""A swap file on a real file system: pages go to the Fast File System, through XN.

The file system is library code of the application's, as in ExOS: its calls are ordinary calls, and
its system calls are XN's. Pages lie at their slot times 4096; the registry's cache is as large as
the frames that it may use.
"""

from __future__ import annotations

import os

from libfs.posix import Ino, Posix, User
from libos.disk import TimedDevice
from xnfs import FRAME, Program


class Swap:
    """Pages in a file."""

    def __init__(
        self, posix: Posix, user: User, directory: int, name: bytes, disk: TimedDevice | None = None
    ) -> None:
        """Make or empty the file. `disk`: wait for it after each page."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        _, self._file = posix.create(user, Ino(directory), name, 0o600, flags)
        self._posix = posix
        self._disk = disk
        self._slots: dict[int, int] = {}  # page -> slot
        self._free: list[int] = []
        self.written = 0
        self.read = 0

    def has(self, page: int) -> bool:
        """True if the file has a copy of the page."""
        return page in self._slots

    def out(self, page: int, data: bytes) -> Program:
        """Write a page."""
        slot = self._slots.get(page)
        if slot is None:
            slot = self._free.pop() if self._free else len(self._slots)
            self._slots[page] = slot
        self._posix.write(self._file, slot * FRAME, data)
        self.written += 1
        yield from self._wait()

    def into(self, page: int) -> Program:
        """Read a page. Returns its bytes."""
        data = self._posix.read(self._file, self._slots[page] * FRAME, FRAME)
        self.read += 1
        yield from self._wait()
        return data.ljust(FRAME, b"\0")

    def forget(self, page: int) -> None:
        """The copy is worth nothing any more."""
        slot = self._slots.pop(page, None)
        if slot is not None:
            self._free.append(slot)

    def close(self) -> None:
        """Close the file."""
        self._posix.release(self._file)

    def _wait(self) -> Program:
        if self._disk is not None:
            yield from self._disk.wait()
