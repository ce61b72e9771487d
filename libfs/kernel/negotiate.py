"""INIT: which version of the protocol, and which of its features, a connection uses.

Why each one is chosen is said beside it. Not chosen: AUTO_INVAL_DATA (it re-reads files whose mtime
moved, which only we move), ATOMIC_O_TRUNC (it needs OPEN), EXPORT_SUPPORT; all of splice and
FUSE over io_uring (`benchmarks/transports.py`: no gain).
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import Final

from libfs.kernel import abi
from libfs.kernel.abi import Init
from libfs.posix import FsError

log = logging.getLogger("xnfs")

_ALWAYS: Final = (
    Init.ASYNC_READ  # read-ahead need not wait for one answer after the other
    | Init.BIG_WRITES
    | Init.MAX_PAGES  # requests of up to 1 MiB
    | Init.DONT_MASK  # default access lists take the place of the umask
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.NO_OPEN_SUPPORT
    | Init.NO_OPENDIR_SUPPORT  # `files` says why
    | Init.PARALLEL_DIROPS
    | Init.CACHE_SYMLINKS
    | Init.EXPLICIT_INVAL_DATA  # nobody else changes the files
    | Init.HANDLE_KILLPRIV_V2  # the server drops set-id bits: no request to ask before a write
)
#: Without these the semantics would be other ones than those written down.
_NEEDED: Final = Init.NO_OPEN_SUPPORT | Init.NO_OPENDIR_SUPPORT | Init.DONT_MASK

_PAGE: Final = 4096
_BACKGROUND: Final = 64
#: A time is kept to the ns, so the kernel need not round those that it keeps itself.
_GRANULARITY: Final = 1


@dataclass
class Negotiation:
    """What is wanted, and after INIT what was agreed on."""

    max_io: int
    #: Off where each write must be durable when it returns (`-o sync`).
    writeback: bool = True
    #: Whether the kernel is to announce opening (`files`).
    opens: bool = False
    #: Whether the kernel is to check permissions; then it must see access lists.
    checks: bool = True
    #: Whether others change the files, too, through another mount.
    shared: bool = False
    minor: int = 0
    flags: int = 0
    #: Why nothing can be served; the mount is to be taken away again.
    failure: str = ""

    def answer(self, major: int, minor: int, ahead: int, low: int, more: memoryview) -> bytes:
        """The answer to INIT. Raises: EPROTO for a kernel that is too old."""
        if major > abi.MAJOR:
            # It will ask again, in our version.
            return abi.INIT.pack(abi.MAJOR, abi.MINOR, *[0] * 8)
        if major < abi.MAJOR or minor < abi.MINOR_MIN:
            return self._fail(f"this kernel's FUSE protocol is {major}.{minor}; 7.31 is needed")
        offered = low
        if low & Init.INIT_EXT and len(more) >= abi.IN_INIT_EXT.size:
            offered |= abi.IN_INIT_EXT.unpack_from(more)[0] << 32
        wanted = _ALWAYS | Init.INIT_EXT
        # A cache that is written back later would hide from other mounts what is in it.
        if self.writeback and not self.shared:
            wanted |= Init.WRITEBACK_CACHE
        needed = _NEEDED
        if self.checks:
            needed |= Init.POSIX_ACL
        flags = int(wanted | needed) & offered
        if needed & ~flags:
            return self._fail(f"this kernel's FUSE lacks {(needed & ~Init(flags)).name}")
        self.minor = min(minor, abi.MINOR)
        self.flags = flags
        return abi.INIT.pack(
            *(abi.MAJOR, self.minor, ahead, flags & 0xFFFFFFFF),
            *(_BACKGROUND, _BACKGROUND * 3 // 4, self.max_io, _GRANULARITY),
            *(self.max_io // _PAGE, flags >> 32),
        )

    def _fail(self, why: str) -> bytes:
        self.failure = why
        log.error("%s", why)
        raise FsError(errno.EPROTO)
