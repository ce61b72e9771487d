"""Blocks for one change that takes many: looked for once, dealt out in the order of the disk."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from libfs.posix.interface import FsError

if TYPE_CHECKING:
    from libfs.ffs.volume import Volume

#: start, count
Run = tuple[int, int]


class Blocks:
    """Free blocks, found but not taken: nobody else may look for any until they are."""

    def __init__(self, vol: Volume, hint: int, count: int) -> None:
        """`count` blocks from `hint` on, in as few runs as there are. Raises: ENOSPC."""
        self._runs = _find(vol, hint, count)[::-1]
        self.count = count

    def take(self, count: int) -> list[Run]:
        """The next `count` blocks."""
        out: list[Run] = []
        runs = self._runs
        while count:
            start, n = runs.pop()
            if n > count:
                runs.append((start + count, n - count))
                n = count
            if out and sum(out[-1]) == start:
                out[-1] = out[-1][0], out[-1][1] + n
            else:
                out.append((start, n))
            count -= n
        return out

    def one(self) -> int:
        """The next block."""
        return self.take(1)[0][0]


def _find(vol: Volume, hint: int, count: int) -> list[Run]:
    """Runs that do not overlap. Where none is long enough the search gives the longest, again and
    again, so it is asked for shorter ones; where it gives what was found before, it goes on behind.
    """
    if vol.xn.free_blocks() < count:
        vol.sync_all()  # what waits for a commit becomes free
    runs: list[Run] = []
    wanted, skipped = count, 0
    while count:
        start, n = vol.find_free(hint, min(wanted, count))
        again = next((s + m for s, m in runs if start < s + m and s < start + n), None)
        if again is None:
            runs.append((start, n))
            hint, count, skipped = start + n, count - n, 0
        elif n > 1:
            wanted = n // 2
        elif skipped > len(runs):
            raise FsError(errno.ENOSPC)
        else:
            hint, skipped = again, skipped + 1
    return runs
