"""Times that calls set without being asked to. Those that a change of data or names sets are the
file system's (it must set them in the same atomic step); here is the access time of a read."""

from __future__ import annotations

from libfs.posix.interface import Attr
from libfs.posix.options import Atime

# "The current time", as a time for `setattr`: no 64-bit time has this value.
NOW = 1 << 64

RELATIME_NS = 24 * 3600 * 1_000_000_000


def atime_due(policy: Atime, attr: Attr, now: int) -> bool:
    """Whether a read at `now` moves the access time.

    relatime: only if it is not younger than the last change, or a day old. That is enough for a
    mail reader ("read since it was written?") and spares a write for most reads.
    """
    if policy is Atime.NOATIME:
        return False
    if policy is Atime.STRICTATIME:
        return attr.atime != now
    atime = attr.atime
    return atime <= attr.mtime or atime <= attr.ctime or now - atime >= RELATIME_NS
