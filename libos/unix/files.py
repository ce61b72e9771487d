"""Open file descriptions: what descriptors name, and what fork shares (POSIX 2017, 3.258)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from libfs.posix import Fh, FsError, Ino
from libos.pipe import BrokenPipe, Pipe
from xnfs import Program

if TYPE_CHECKING:
    from libos.unix.process import Process


class Description:
    """Something open. `users` counts the descriptors that name it, in all processes."""

    def __init__(self) -> None:
        self.users = 0

    def read(self, process: Process, count: int) -> Program:
        """Up to so many bytes; b"" at the end. Raises FsError."""
        yield 1
        raise FsError(errno.EBADF)

    def write(self, process: Process, data: bytes) -> Program:
        """All of the bytes. Raises FsError."""
        yield 1
        raise FsError(errno.EBADF)

    def opened(self, process: Process) -> Program:
        """One more descriptor of a process names it."""
        self.users += 1
        yield 1

    def closed(self, process: Process) -> Program:
        """One less."""
        self.users -= 1
        yield 1


class File(Description):
    """An open file: an offset that all who share the description move."""

    def __init__(self, handle: Fh, ino: Ino, append: bool) -> None:
        super().__init__()
        self.handle = handle
        self.ino = ino
        self.append = append
        self.offset = 0

    def read(self, process: Process, count: int) -> Program:
        """From the offset on."""
        world = process.world
        data = world.posix.read(self.handle, self.offset, count)
        self.offset += len(data)
        yield from process.waited(len(data))
        return data

    def write(self, process: Process, data: bytes) -> Program:
        """At the offset, or at the end."""
        world = process.world
        if self.append:
            self.offset = world.posix.getattr(process.user, self.ino).size
        self.offset += world.posix.write(self.handle, self.offset, data)
        yield from process.waited(len(data))
        return len(data)

    def closed(self, process: Process) -> Program:
        """The last one closes the file."""
        self.users -= 1
        if not self.users:
            process.world.posix.release(self.handle)
        yield from process.waited(0)


class Console(Description):
    """Where output goes that nobody has sent elsewhere. Reading gives the end."""

    def read(self, process: Process, count: int) -> Program:
        """Nothing."""
        yield 1
        return b""

    def write(self, process: Process, data: bytes) -> Program:
        """Remember it, with who wrote it last."""
        yield len(data) // 8 + 1
        process.world.console.append(data)
        return len(data)


class Channel:
    """The frame of one pipe, until both ends are closed everywhere."""

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.users = 0


class PipeEnd(Description):
    """One end of a pipe. Each process that has it binds the frame itself."""

    def __init__(self, channel: Channel, writes: bool) -> None:
        super().__init__()
        self.channel = channel
        self.writes = writes

    def opened(self, process: Process) -> Program:
        """The pipe counts its readers and writers."""
        yield from self._count(process, 1)

    def closed(self, process: Process) -> Program:
        """The other end finds out by its predicate. The last one of all frees the frame."""
        yield from self._count(process, -1)
        if not self.channel.users:
            yield from process.forget(self.channel)

    def _count(self, process: Process, change: int) -> Program:
        self.users += change
        self.channel.users += change
        pipe: Pipe = yield from process.pipe(self.channel)
        yield from pipe.count(0 if self.writes else change, change if self.writes else 0)

    def read(self, process: Process, count: int) -> Program:
        """Waits for bytes, or for the last writer to close."""
        if self.writes:
            raise FsError(errno.EBADF)
        pipe = yield from process.pipe(self.channel)
        return (yield from pipe.read(count))

    def write(self, process: Process, data: bytes) -> Program:
        """Waits for room. EPIPE where nobody reads."""
        if not self.writes:
            raise FsError(errno.EBADF)
        pipe = yield from process.pipe(self.channel)
        try:
            yield from pipe.write(data)
        except BrokenPipe:
            raise FsError(errno.EPIPE) from None
        return len(data)
