"""`xnfs mv IMAGE:ROOT/PATH IMAGE:ROOT2/PATH`: between the file systems of one image.

Like mv(1): into a directory if the target is one; a file in the way is replaced, in one step.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Final

from libfs.posix import FsError, Posix
from libfs.posix.interface import Ino
from xnfs import Caller
from xnfs_tools.command import Failed, split_place
from xnfs_tools.formats import format_of
from xnfs_tools.session import SUPERUSER, Session, choose_root, mount_root, open_kernel
from xnfs_tools.transfer import Side, Transfer

_TEMPORARY: Final = b".xnfs-mv-%d"


def move(source: str, target: str) -> int:
    """The command."""
    image, root, path = split_place(source)
    other, to_root, to_path = split_place(target)
    if os.path.realpath(image) != os.path.realpath(other):
        raise Failed(f"{image} and {other} are two images; mount both, and use mv")
    with open_kernel(image, readonly=False) as xn, contextlib.ExitStack() as closing:
        sides = []
        for each in dict.fromkeys((root, to_root)):
            entry = choose_root(xn, image, each)
            fs = mount_root(xn, image, entry, readonly=False)
            posix = Posix(fs)
            closing.callback(posix.close)
            sides.append(Side(each, fs, posix, format_of(xn, entry)))
        src, dst = sides[0], sides[-1]
        parent, name = Session(image, xn, src.posix).parent(path)
        sink, new_name = _target(Session(image, xn, dst.posix), to_path, name)
        try:
            if src is dst:
                src.posix.rename(SUPERUSER, parent, name, sink, new_name)
            else:
                transfer = Transfer(Caller(xn.admin), src, dst, _told)
                _move(transfer, dst.posix, parent, name, sink, new_name)
        except FsError as error:
            raise Failed(f"{source} to {target}: {error.strerror}") from None
    return 0


def _told(name: bytes, reason: str) -> None:
    text = os.fsdecode(name)
    print(f"xnfs: {text!r} is copied, not moved: {reason}", file=sys.stderr)


def _target(session: Session, path: str, name: bytes) -> tuple[Ino, bytes]:
    """The directory that it goes to, and its name there."""
    try:
        attr = session.resolve(path)
    except Failed:
        return session.parent(path)
    if stat.S_ISDIR(attr.mode):
        return attr.ino, name
    return session.parent(path)


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
