"""`xnfs mv IMAGE:ROOT/PATH IMAGE:ROOT2/PATH`: between the file systems of one image.

Like mv(1): into a directory if the target is one; a file in the way is replaced, in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from typing import Final

from libfs.formats import of_type
from libfs.kernel import controls
from libfs.posix import FsError, Posix
from libfs.posix.interface import Ino
from xnfs import Caller, InUse, Xn
from xnfs_tools import mountinfo
from xnfs_tools.command import Failed, split_place
from xnfs_tools.session import ROOT, SUPERUSER, Session, choose_root, mount_root, open_kernel
from xnfs_tools.transfer import REASONS, Side, Transfer

#: A host kernel forgets at its leisure; what is still open after this is in use.
_PATIENCE: Final = 2.0
_TEMPORARY: Final = b".xnfs-mv-%d"


def move(source: str, target: str) -> int:
    """The command."""
    image, root, path = split_place(source)
    other, to_root, to_path = split_place(target)
    if os.path.realpath(image) != os.path.realpath(other):
        raise Failed(f"{image} and {other} are two images; mount both, and use mv")
    try:
        with open_kernel(image, readonly=False) as xn:
            _move_closed(xn, image, (root, path), (to_root, to_path))
    except FsError as error:
        raise Failed(f"{source} to {target}: {error.strerror}") from None
    except Failed as error:
        if not isinstance(error.__context__, InUse) or not mountinfo.of(os.path.realpath(image)):
            raise
        _move_mounted(os.path.realpath(image), (root, path), (to_root, to_path))
    return 0


def _move_closed(xn: Xn, image: str, source: tuple[str, str], target: tuple[str, str]) -> None:
    """In an image that nobody has mounted. Raises: Failed, FsError."""
    (root, path), (to_root, to_path) = source, target
    with contextlib.ExitStack() as closing:
        sides = []
        for each in dict.fromkeys((root, to_root)):
            entry = choose_root(xn, image, each)
            fs = mount_root(xn, image, entry, readonly=False)
            posix = Posix(fs)
            closing.callback(posix.close)
            sides.append(Side(each, fs, posix, of_type(xn, entry.type)))
        src, dst = sides[0], sides[-1]
        parent, name = Session(image, xn, src.posix).parent(path)
        sink, new_name = Session(image, xn, dst.posix).target(to_path, name)
        if src is dst:
            src.posix.rename(SUPERUSER, parent, name, sink, new_name)
        else:
            transfer = Transfer(Caller(xn.admin), src, dst, _told)
            _move(transfer, dst.posix, parent, name, sink, new_name)


def _move_mounted(image: str, source: tuple[str, str], target: tuple[str, str]) -> None:
    """By the process that serves both file systems. Raises: Failed.

    What can't be moved without copying is better copied through the mounts, by who may do that.
    """
    (root, path), (to_root, to_path) = source, target
    here, there = _mounted(image, root), _mounted(image, to_root)
    copying = f"mv {here}{path} {there}{to_path}"
    if root == to_root:
        raise Failed(f"both are in the same file system, which is mounted: {copying}")
    request = b"mv", *map(os.fsencode, (path, to_root, to_path))
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            controls.ask_server(here, *request)
            return
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            reason = REASONS.get(error.errno or 0)
            if reason is not None:
                raise Failed(f"{path} is not moved: {reason}; to copy it: {copying}") from None
            raise Failed(f"{here}{path} to {there}{to_path}: {error.strerror}") from None


def _mounted(image: str, root: str) -> str:
    """The directory where a root is mounted. Raises: Failed."""
    for mount in mountinfo.of(image):
        if mount.source == f"{image}:{root}" or (mount.source == image and root == ROOT):
            return mount.directory
    raise Failed(f"{image} is mounted, but not its file system '{root}': mount both, or none")


def _told(name: bytes, reason: str) -> None:
    text = os.fsdecode(name)
    print(f"xnfs: {text!r} is copied, not moved: {reason}", file=sys.stderr)


def _move(
    transfer: Transfer, dst: Posix, parent: Ino, name: bytes, sink: Ino, new_name: bytes
) -> None:
    """What is in the way stays until the new one is there, whole. Raises: FsError, Failed."""
    if not _there(dst, sink, new_name):
        transfer.move(parent, name, sink, new_name)
        return
    for number in range(1000):
        temporary = _TEMPORARY % number
        if not _there(dst, sink, temporary):
            break
    else:
        raise Failed("no free temporary name")
    transfer.move(parent, name, sink, temporary)
    dst.rename(SUPERUSER, sink, temporary, sink, new_name)


def _there(posix: Posix, directory: Ino, name: bytes) -> bool:
    try:
        posix.lookup(SUPERUSER, directory, name)
    except FsError:
        return False
    return True
