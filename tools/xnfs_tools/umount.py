"""umount.xnfs: unmount, and return when the image is closed. Also umount.fuse.xnfs, for umount(8).

The kernel's umount returns when it has handed everything to the server; the server may then still
be writing. Whoever copies the image next must wait for it, so this command does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from libfs.fuse import unmount
from xnfs_tools import mountinfo
from xnfs_tools.command import Codes, Failed, Parser, parser, run, split_image, words

PROG: Final = "umount.xnfs"
HELPER: Final = "umount.fuse.xnfs"
CODES: Final = Codes(failed=32, usage=1, interrupted=32)
#: Longest wait for the server. One that only reads shares its lock, so there it can't be seen.
_PATIENCE: Final = 600.0
_PATIENCE_READONLY: Final = 2.0


def arguments(helper: bool = False) -> Parser:
    """The command line."""
    made = parser(
        HELPER if helper else PROG,
        "Unmount an xnfs file system, and wait until its image is closed.",
    )
    made.add_argument("directory", metavar="DIR", help="where it is mounted, or IMAGE[:ROOT]")
    made.add_argument(
        "-l", action="store_true", help="detach now, finish when nothing is in use any more"
    )
    if helper:
        for flag in ("-f", "-n", "-r", "-v"):
            made.add_argument(flag, action="store_true", help="ignored (umount(8) passes it)")
        made.add_argument("-t", metavar="TYPE", help="ignored (type)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command, under either name."""
    helper = os.path.basename(sys.argv[0]) == HELPER and argv is None
    return run(HELPER if helper else PROG, CODES, lambda: _main(argv, helper))


def _main(argv: Sequence[str] | None, helper: bool) -> int:
    args = arguments(helper).parse_args(words(argv))
    mounted = _find(args.directory)
    failed = unmount(mounted.directory, lazy=args.l)
    if failed == errno.EBUSY:
        raise Failed(f"{mounted.directory}: in use (fuser -m {mounted.directory} says by whom)")
    if failed:
        raise Failed(f"{mounted.directory}: {os.strerror(failed)}")
    if not args.l:
        _wait(mounted)
    return 0


def _find(given: str) -> mountinfo.MountPoint:
    """The mount at a directory, or that of IMAGE or IMAGE:ROOT. Raises: Failed."""
    path = os.path.realpath(given)
    there = mountinfo.at(path)
    if there is not None:
        return there
    image, root = split_image(given)
    found = mountinfo.of(os.path.realpath(image), root)
    if not found:
        raise Failed(f"{given}: no xnfs file system is mounted there")
    if len(found) > 1:
        where = ", ".join(each.directory for each in found)
        raise Failed(f"{given}: mounted more than once; say which: {where}")
    return found[0]


def _wait(mounted: mountinfo.MountPoint) -> None:
    """Until the server has let go of the image. Raises: Failed."""
    readonly = "ro" in mounted.options.split(",")
    deadline = time.monotonic() + (_PATIENCE_READONLY if readonly else _PATIENCE)
    try:
        fd = os.open(mounted.image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # gone, or not ours to read: nothing to wait for that could be seen
    try:
        pause = 0.001
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if mountinfo.of(mounted.image):
                    return  # mounted again already, or other file systems of it still are
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
    finally:
        os.close(fd)
    if not readonly:
        raise Failed(f"{mounted.image}: unmounted, but the server still has the image open")
