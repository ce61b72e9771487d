"""Advisory locks: byte ranges of fcntl(2) and whole files of flock(2).

Does: test, set, queue those who wish to wait, find deadlocks among them.
Does not: block. Who can't have a lock now and gave a `granted` function is queued; the function is
called when the lock is theirs. It must not call back into the layer.
Guarantees: two owners never hold conflicting locks; ranges of one owner do not overlap.

An owner of ranges is a process as the host kernel names it; an owner of flock locks is a handle.
Ranges are inclusive at both ends, as in FUSE.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from dataclasses import dataclass

from libfs.posix.handles import Fh, Handle
from libfs.posix.interface import FsError, Ino

F_RDLCK, F_WRLCK, F_UNLCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
LOCK_END = (1 << 63) - 1
_FLOCK_KINDS = {fcntl.LOCK_SH: F_RDLCK, fcntl.LOCK_EX: F_WRLCK, fcntl.LOCK_UN: F_UNLCK}

Granted = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Lock:
    """A byte-range lock, from `start` to `end` inclusive. `pid` is only ever reported."""

    owner: int
    kind: int
    start: int
    end: int
    pid: int = 0

    def conflicts(self, other: Lock) -> bool:
        """Whether both may not be held at once."""
        return (
            self.owner != other.owner
            and F_WRLCK in (self.kind, other.kind)
            and self.start <= other.end
            and other.start <= self.end
        )


@dataclass(frozen=True, slots=True)
class _Waiter:
    ino: Ino
    lock: Lock
    granted: Granted


class _Table:
    """Locks of one of the two families, which do not see each other. A whole-file lock is a range
    from 0 to LOCK_END."""

    def __init__(self) -> None:
        self._held: dict[Ino, list[Lock]] = {}
        self._waiting: list[_Waiter] = []

    def conflict(self, ino: Ino, lock: Lock) -> Lock | None:
        """The first held lock that stands in the way."""
        for held in self._held.get(ino, ()):
            if held.conflicts(lock):
                return held
        return None

    def set(self, ino: Ino, lock: Lock, granted: Granted | None) -> bool:
        """Take a lock, or queue for it (False). Raises: EAGAIN, EDEADLK."""
        if self.conflict(ino, lock) is None:
            self._replace(ino, lock)
            self._grant(ino)  # a write lock may have become a read lock
            return True
        if granted is None:
            raise FsError(errno.EAGAIN)
        if self._would_deadlock(ino, lock):
            raise FsError(errno.EDEADLK)
        self._waiting.append(_Waiter(ino, lock, granted))
        return False

    def unlock(self, ino: Ino, owner: int, start: int = 0, end: int = LOCK_END) -> None:
        """Drop what `owner` holds in the range, and let others have it."""
        if ino in self._held:
            self._replace(ino, Lock(owner, F_UNLCK, start, end))
            self._grant(ino)

    def cancel(self, granted: Granted) -> bool:
        """Stop waiting; whether `granted` did wait."""
        before = len(self._waiting)
        self._waiting = [w for w in self._waiting if w.granted is not granted]
        return len(self._waiting) < before

    def cancel_owner(self, owner: int) -> None:
        """Stop all waiting of `owner`."""
        self._waiting = [w for w in self._waiting if w.lock.owner != owner]

    def drop(self, ino: Ino) -> None:
        """No handle is left: nobody holds or awaits anything here."""
        if self._held.pop(ino, None) is not None or self._waiting:
            self._waiting = [w for w in self._waiting if w.ino != ino]

    def _replace(self, ino: Ino, lock: Lock) -> None:
        """Make `lock` what its owner holds in its range; join it with equal neighbours."""
        kept: list[Lock] = []
        start, end = lock.start, lock.end
        for held in self._held.get(ino, ()):
            if held.owner != lock.owner:
                kept.append(held)
            elif held.kind == lock.kind and held.start <= end + 1 and start <= held.end + 1:
                start, end = min(start, held.start), max(end, held.end)
            else:
                kept += _outside(held, lock.start, lock.end)
        if lock.kind != F_UNLCK:
            kept.append(Lock(lock.owner, lock.kind, start, end, lock.pid))
        if kept:
            kept.sort(key=lambda each: each.start)
            self._held[ino] = kept
        else:
            self._held.pop(ino, None)

    def _grant(self, ino: Ino) -> None:
        """Give the locks of `ino` to those in the queue who can have them now, oldest first."""
        if not self._waiting:
            return
        still: list[_Waiter] = []
        lucky: list[_Waiter] = []
        for waiter in self._waiting:
            if waiter.ino == ino and self.conflict(ino, waiter.lock) is None:
                self._replace(ino, waiter.lock)
                lucky.append(waiter)
            else:
                still.append(waiter)
        self._waiting = still
        for waiter in lucky:
            waiter.granted()

    def _would_deadlock(self, ino: Ino, lock: Lock) -> bool:
        """Whether somebody in the way of `lock` waits, over however many others, for its owner."""
        seen: set[int] = set()
        todo = self._blockers(ino, lock)
        while todo:
            owner = todo.pop()
            if owner == lock.owner:
                return True
            if owner in seen:
                continue
            seen.add(owner)
            for waiter in self._waiting:
                if waiter.lock.owner == owner:
                    todo += self._blockers(waiter.ino, waiter.lock)
        return False

    def _blockers(self, ino: Ino, lock: Lock) -> list[int]:
        return [held.owner for held in self._held.get(ino, ()) if held.conflicts(lock)]


def _outside(held: Lock, start: int, end: int) -> list[Lock]:
    """What is left of `held` without the range."""
    left = []
    if held.start < start:
        left.append(Lock(held.owner, held.kind, held.start, min(held.end, start - 1), held.pid))
    if held.end > end:
        left.append(Lock(held.owner, held.kind, max(held.start, end + 1), held.end, held.pid))
    return left


class LockTable:
    """All advisory locks of one mount. Only open files can be locked, so all is by handle."""

    def __init__(self) -> None:
        self._ranges = _Table()
        self._flocks = _Table()

    def test(self, handle: Handle, lock: Lock) -> Lock | None:
        """F_GETLK: a lock that stands in the way of `lock`. Raises: EINVAL."""
        _check_range(lock)
        return self._ranges.conflict(handle.ino, lock)

    def set(self, handle: Handle, lock: Lock, granted: Granted | None) -> bool:
        """F_SETLK, or with `granted` F_SETLKW: True if it is held on return, False if queued.

        Raises: EAGAIN (not queued), EDEADLK (waiting would be for ever), EBADF (a read lock needs
        the right to read, a write lock that to write), EINVAL.
        """
        _check_range(lock)
        if lock.kind == F_UNLCK:
            self._ranges.unlock(handle.ino, lock.owner, lock.start, lock.end)
            return True
        if not (handle.readable if lock.kind == F_RDLCK else handle.writable):
            raise FsError(errno.EBADF)
        return self._ranges.set(handle.ino, lock, granted)

    def flock(self, handle: Handle, fh: Fh, operation: int, granted: Granted | None) -> bool:
        """flock(2) with LOCK_SH, LOCK_EX or LOCK_UN; LOCK_NB or no `granted` does not queue.

        Changing the kind is not atomic: the old lock is gone if the new one can't be had. So a
        handle waits without holding anything, and there are no circles to find.
        Raises: EAGAIN, EINVAL.
        """
        kind = _FLOCK_KINDS.get(operation & ~fcntl.LOCK_NB)
        if kind is None:
            raise FsError(errno.EINVAL)
        lock = Lock(fh, kind, 0, LOCK_END)
        if kind == F_UNLCK or self._flocks.conflict(handle.ino, lock) is not None:
            self._flocks.unlock(handle.ino, fh)
        if kind == F_UNLCK:
            return True
        queue = None if operation & fcntl.LOCK_NB else granted
        return self._flocks.set(handle.ino, lock, queue)

    def cancel(self, granted: Granted) -> bool:
        """The queued request with this very function was interrupted; whether there was one."""
        return self._ranges.cancel(granted) or self._flocks.cancel(granted)

    def unlock_owner(self, handle: Handle, owner: int) -> None:
        """A process closed a descriptor: POSIX drops all its ranges of that file."""
        self._ranges.unlock(handle.ino, owner)

    def release(self, handle: Handle, fh: Fh, *, last: bool) -> None:
        """A handle is gone: so is its flock lock, and with the last one of the file, all locks."""
        self._flocks.cancel_owner(fh)
        self._flocks.unlock(handle.ino, fh)
        if last:
            self._ranges.drop(handle.ino)


def _check_range(lock: Lock) -> None:
    if lock.kind not in (F_RDLCK, F_WRLCK, F_UNLCK) or not 0 <= lock.start <= lock.end <= LOCK_END:
        raise FsError(errno.EINVAL)
