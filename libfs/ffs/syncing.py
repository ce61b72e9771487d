"""A sync in three steps, so that requests are served while the device works.

`begin` (locked) brings headers into their blocks and says which blocks must become durable; `wait`
(not locked) is XN's sync of them; `done` (locked) forgets what is now known to be durable.

What is not durable yet carries the number of the sync that was the next to begin when it changed
(`Volume.epoch`). A sync takes all that has its own number or a lower one, also what an earlier sync
has begun with and may still wait for; and only that is forgotten when it is done. So syncs may
overlap, in any order, with each other and with changes of the same inodes. One that fails forgets
nothing.

Relies on: every call of XN that FFS makes leaves a state that may become durable, because a commit
may come between any two of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from libfs.ffs.inode import Vnode

if TYPE_CHECKING:
    from libfs.ffs.volume import Volume


class Sync:
    """One sync under way."""

    def __init__(self, vol: Volume, vnodes: Iterable[Vnode] | None, *, data_only: bool) -> None:
        """Begin. `vnodes`: None is everything. Raises XnError, FsError."""
        self._vol = vol
        self._vnodes = None if vnodes is None else list(vnodes)
        self._blocks: list[int] | None = None  # everything
        if self._vnodes is not None:
            self._blocks = self._begin(self._vnodes, data_only)
        else:
            vol.flush_all()
            vol.cache.written()
        self._epoch = vol.epoch
        vol.epoch += 1

    def _begin(self, vnodes: Iterable[Vnode], data_only: bool) -> list[int]:
        """An earlier change of a name anywhere goes with it: programs sync a file and trust that
        what they renamed before is there too, as on ext4."""
        vol = self._vol
        blocks = list(vol.renamed)
        for v in vnodes:
            if not (data_only and vol.only_times(v)):
                vol.flush(v)
                blocks.append(v.ino)
            if v.tail:
                vol.order_tail(v)  # from now on the order is XN's to keep
            for lo, hi, _epoch in v.written:
                blocks.extend(range(lo, hi))
        return blocks

    def wait(self) -> None:
        """Until it is durable. Raises XnError."""
        self._vol.xn.sync(self._vol.who, self._blocks)

    def done(self) -> None:
        """Forget what was made durable."""
        vol, epoch = self._vol, self._epoch
        vol.renamed = {ino: last for ino, last in vol.renamed.items() if last > epoch}
        for v in vol.vnodes.values() if self._vnodes is None else self._vnodes:
            if v.written:
                v.written = [run for run in v.written if run[2] > epoch]
