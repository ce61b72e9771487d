"""Block devices: the seam between the kernel and whatever holds the bytes.

A device reads and writes whole blocks of 4096 bytes and can flush its cache. That is all: no
caching, no ordering, no retries of failed I/O and no knowledge of what the blocks mean. Devices
that count, fail or record stack on top (`stacked.py`).

Relies on: the host keeping two openers apart (flock, O_EXCL). Guarantees: a call that returns has
moved every byte; every failure is a DeviceError (InUse if the image is open elsewhere). Bytes are
*durable* only after a `flush` that was called after the write returned. A failed flush says nothing
about what reached the disk, so the caller must stop writing: Linux may drop the dirty pages.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from xnfs.disk.records import BLOCK
from xnfs.errors import DeviceError, InUse

IOV_MAX: Final = min(os.sysconf("SC_IOV_MAX"), 1024)
_BLKGETSIZE64: Final = 0x80081272

Views = Sequence[memoryview]
Buffers = Sequence[memoryview | bytes]


class BlockDevice(Protocol):
    """What the kernel needs of a disk."""

    @property
    def blocks(self) -> int:
        """Size in blocks."""

    @property
    def readonly(self) -> bool:
        """True if `write` always fails."""

    def read(self, start: int, views: Views) -> None:
        """Fill the views with consecutive blocks from `start`. Each is a multiple of 4096 bytes."""

    def write(self, start: int, views: Buffers) -> None:
        """Write the views to consecutive blocks from `start`. Not durable before `flush`."""

    def flush(self) -> None:
        """Make every write that has returned durable."""

    def is_zero(self, start: int, count: int) -> bool:
        """True if the device knows, without reading, that these blocks are zero."""

    def close(self) -> None:
        """Release the device. Flushes nothing."""


@runtime_checkable
class Foresight(Protocol):
    """A device that can be told what will be read, and may fetch many such pieces at a time."""

    def will_need(self, start: int, count: int) -> None:
        """These blocks will be read soon. Returns at once, and promises nothing."""


def span(device: BlockDevice, start: int, views: Iterable[memoryview | bytes]) -> int:
    """Blocks covered by the views. Raises DeviceError if they are no blocks of this device."""
    size = 0
    for view in views:
        size += view.nbytes if isinstance(view, memoryview) else len(view)
        if size % BLOCK:
            raise DeviceError(errno.EINVAL, f"I/O at block {start}: not a whole block")
    count = size // BLOCK
    # Never past the end: a write there would silently grow an image file.
    if start < 0 or start + count > device.blocks:
        raise DeviceError(errno.EINVAL, f"I/O of {count} blocks at {start} leaves the device")
    return count


class FileDevice:
    """A regular image file or a host block device, locked against other openers."""

    def __init__(self, path: str, readonly: bool = False) -> None:
        """Open and lock. Raises InUse, DeviceError."""
        self.path = path
        self.readonly = readonly
        self._fd = _open(path, readonly)
        try:
            _lock(self._fd, path, readonly)
            self.blocks = _size(self._fd, path) // BLOCK
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        count = span(self, start, views)
        self._move(os.preadv, "read", start, count, list(views))

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        if self.readonly:
            raise DeviceError(errno.EROFS, f"{self.path}: opened read-only")
        count = span(self, start, views)
        self._move(os.pwritev, "write", start, count, [memoryview(view) for view in views])

    def _move(
        self,
        call: Callable[[int, list[memoryview], int], int],
        what: str,
        start: int,
        count: int,
        todo: list[memoryview],
    ) -> None:
        """Repeat the vectored call until nothing is left: the host may do less than asked."""
        at, end = start * BLOCK, (start + count) * BLOCK
        while at < end:
            try:
                done = call(self._fd, todo[:IOV_MAX], at)
            except OSError as e:
                raise _failure(e, f"{self.path}: {what} at block {at // BLOCK}") from None
            if not done:
                raise DeviceError(
                    errno.EIO, f"{self.path}: {what} at block {at // BLOCK}: unexpected end"
                )
            at += done
            if at < end:
                todo = _rest(todo, done)

    def will_need(self, start: int, count: int) -> None:
        """See Foresight."""
        with suppress(OSError):  # a host that takes no advice
            os.posix_fadvise(self._fd, start * BLOCK, count * BLOCK, os.POSIX_FADV_WILLNEED)

    def flush(self) -> None:
        """See BlockDevice."""
        if self.readonly:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as e:
            raise _failure(e, f"{self.path}: flush") from None

    def is_zero(self, start: int, count: int) -> bool:
        """True for a hole of a sparse file."""
        try:
            return os.lseek(self._fd, start * BLOCK, os.SEEK_DATA) >= (start + count) * BLOCK
        except OSError as e:
            # ENXIO: a hole up to the end of the file. Anything else: the host can't tell.
            return e.errno == errno.ENXIO and start + count <= self.blocks and self._is_file()

    def _is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    def close(self) -> None:
        """See BlockDevice. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _rest(todo: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the views after `done` bytes."""
    for index, view in enumerate(todo):
        if done < view.nbytes:
            return [view.cast("B")[done:], *todo[index + 1 :]]
        done -= view.nbytes
    return []


def _failure(e: OSError, what: str) -> DeviceError:
    return DeviceError(e.errno or errno.EIO, f"{what}: {e.strerror or e}")


def _open(path: str, readonly: bool) -> int:
    """Open a regular file or a block device, and nothing else."""
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DeviceError(
                errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTBLK,
                f"{path}: neither a regular file nor a block device",
            )
        flags = os.O_RDONLY if readonly else os.O_RDWR
        if stat.S_ISBLK(mode) and not readonly:
            # Without O_CREAT: fails with EBUSY while the host has the device mounted.
            flags |= os.O_EXCL
        # O_NONBLOCK: if the path became a FIFO since the stat, don't hang on it.
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        if e.errno == errno.EBUSY:
            raise InUse(f"{path}: in use by another program") from None
        raise _failure(e, path) from None


def _lock(fd: int, path: str, readonly: bool) -> None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if readonly else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{path}: in use by another program") from None
    except OSError as e:
        raise _failure(e, f"{path}: lock") from None


def _size(fd: int, path: str) -> int:
    """Bytes of an open image."""
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        return info.st_size
    try:
        raw = fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8))
    except OSError as e:
        raise _failure(e, f"{path}: size") from None
    return int(struct.unpack("=Q", raw)[0])


def create_image(path: str, size_bytes: int) -> None:
    """Make a new sparse file, readable by its owner only. Raises DeviceError, also if it exists."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size_bytes)
        finally:
            os.close(fd)
    except OSError as e:
        raise _failure(e, path) from None


class MemoryDevice:
    """A disk in memory that costs only what was written: for tests and experiments."""

    def __init__(self, blocks: int, contents: dict[int, bytes] | None = None) -> None:
        self.blocks = blocks
        self.readonly = False
        self._contents: dict[int, bytes] = {} if contents is None else contents

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        span(self, start, views)
        at, contents = start, self._contents
        for view in views:
            flat = view.cast("B")
            for offset in range(0, flat.nbytes, BLOCK):
                flat[offset : offset + BLOCK] = contents.get(at, _ZERO)
                at += 1

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        if self.readonly:
            raise DeviceError(errno.EROFS, "memory device: read-only")
        span(self, start, views)
        at, contents = start, self._contents
        for view in views:
            flat = memoryview(view).cast("B")
            for offset in range(0, flat.nbytes, BLOCK):
                contents[at] = bytes(flat[offset : offset + BLOCK])
                at += 1

    def flush(self) -> None:
        """Nothing to do: memory has no cache."""

    def is_zero(self, start: int, count: int) -> bool:
        """True if none of these blocks was ever written."""
        if count > len(self._contents):
            return not any(start <= block < start + count for block in self._contents)
        return not any(block in self._contents for block in range(start, start + count))

    def fork(self) -> MemoryDevice:
        """A copy that shares the blocks until they are written: they are immutable."""
        return MemoryDevice(self.blocks, dict(self._contents))

    def close(self) -> None:
        """Nothing to release; the contents stay, so that a test can open it again."""


_ZERO: Final = bytes(BLOCK)
