"""The file system as the host kernel sees it, through FUSE. The one file that imports fusepy.

Does: load libfuse 2, mount, run its loop, end it.
Does not: answer requests (`fuse_calls.py` for C, `requests.py` for paths), or know identities,
errors and housekeeping (`serve.py`).
Relies on: fusepy 3.0.1 for finding the library and for the C declarations of this machine. Its
dispatcher is not used: it turns an unforeseen exception into EINVAL, hides umask and utimensat's
special values, has no fallocate, and decodes names.

libfuse's loop runs in one thread: with more, each call waits for the interpreter's lock anyway.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

from libfs import fuse_abi as abi
from libfs.fuse_calls import Calls
from libfs.posix import Posix
from libfs.requests import Requests
from libfs.serve import Housekeeper

MAX_IO: Final = 131072
#: Names change only through the kernel that caches them, so they never go stale.
NAME_SECONDS: Final = 86400


class FuseMissing(Exception):
    """libfuse 2 or fusepy can't be loaded; the text says what to install."""


class MountFailed(Exception):
    """libfuse could not mount; it has written the reason to standard error."""


def load() -> ModuleType:
    """fusepy. Raises: FuseMissing, with a sentence for the user."""
    try:
        import fuse
    except ImportError:
        raise FuseMissing("the Python package fusepy is missing (pip install fusepy)") from None
    except OSError:
        # fusepy looks for the library when it is imported.
        raise FuseMissing("libfuse 2 is missing (apt-get install libfuse2 fuse)") from None
    module: ModuleType = fuse
    return module


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
        """`directory`: absolute. `options`: libfuse's own, as after -o. `ready` is called when the
        mount is usable.

        Raises: FuseMissing.
        """
        fuse = load()
        try:
            abi.stat_packer()
        except LookupError:
            raise FuseMissing("this machine's struct stat is not known") from None
        self._library: Any = ctypes.CDLL(fuse._libfuse_path)
        self._library.fuse_get_context.restype = ctypes.c_void_p
        self._library.fuse_exit.argtypes = [ctypes.c_void_p]
        self._directory = directory
        self._requests = Requests(posix)
        self._calls = Calls(self._library, self._requests, ready)
        self._callbacks = self._calls.callbacks()
        self._operations = abi.operations(fuse.fuse_operations._fields_, self._callbacks)
        self._keeper = Housekeeper(self._requests.idle, self._stop)
        self._ended = threading.Event()
        self._options = [
            *options,
            "fsname=" + source.replace("\\", "\\\\").replace(",", "\\,"),
            "subtype=xnfs",
            "use_ino",
            # Two names of one inode have each their own attributes in the kernel (`requests.py`).
            "attr_timeout=0",
            f"entry_timeout={NAME_SECONDS}",
            f"negative_timeout={NAME_SECONDS}",
            "big_writes",
            f"max_read={MAX_IO}",
            f"max_write={MAX_IO}",
        ]

    def run(self) -> None:
        """Mount, serve, and on return have everything durable and closed.

        To be called from the main thread, once. SIGTERM, SIGINT and SIGHUP unmount. Raises:
        MountFailed, and what closing raises.
        """
        os.umask(0)  # or the server's own would leak into modes
        Housekeeper.block_signals()
        signal.signal(signal.SIGUSR1, lambda *_: None)  # it only has to interrupt a read
        # The housekeeper needs the interpreter every second; callbacks should not wait long for it.
        sys.setswitchinterval(0.0005)
        self._keeper.start()
        arguments = ["xnfs", "-f", "-s", "-o", ",".join(self._options), self._directory]
        argv = (ctypes.c_char_p * len(arguments))(*map(os.fsencode, arguments))
        failed = self._library.fuse_main_real(
            len(arguments),
            argv,
            ctypes.byref(self._operations),
            ctypes.sizeof(self._operations),
            None,
        )
        self._ended.set()
        self._keeper.end()
        # RELEASE may never have come, and `destroy` has no way to say that a flush failed.
        self._requests.close()
        if failed:
            raise MountFailed

    def _stop(self) -> None:
        """Unmount, from the housekeeper's thread. Files still open lose their file system.

        Not libfuse's own handler: it would drop what programs have written by mmap and not yet
        synced.
        """
        if not unmount(self._directory):
            return
        self._write_back()
        if self._calls.handle is not None:
            self._library.fuse_exit(self._calls.handle)  # libfuse unmounts, lazily, on its way out
        main = threading.main_thread().ident
        # The signal may come just before the loop's read begins, so one may not be enough.
        while main is not None and not self._ended.wait(0.05):
            signal.pthread_kill(main, signal.SIGUSR1)

    def _write_back(self) -> None:
        """Have the kernel hand over its dirty pages of this file system, and take them.

        For FUSE, syncfs(2) starts that and does not wait, so we wait until no more come.
        """
        try:
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            ctypes.CDLL(None).syncfs(fd)
        finally:
            os.close(fd)
        for _ in range(50):  # others may write on and on
            before = self._calls.writes
            if self._ended.wait(0.2) or self._calls.writes == before:
                return


_MNT_DETACH: Final = 2


def unmount(directory: str, *, lazy: bool = False) -> int:
    """Unmount; 0 or the errno. Through fusermount where the caller is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), _MNT_DETACH if lazy else 0) == 0:
        return 0
    failed = ctypes.get_errno()
    if failed != errno.EPERM:
        return failed
    command = ["fusermount", "-u", *(["-z"] if lazy else []), "--", directory]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return failed
    return errno.EBUSY if done.returncode else 0
