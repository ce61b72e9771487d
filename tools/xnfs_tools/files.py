"""`xnfs ls|cat|get|put`: files of an image without a mount and without root."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Final

from libfs.posix.interface import Attr, Dirent, FsError, Ino
from xnfs_tools.command import Failed
from xnfs_tools.populate import copy_in
from xnfs_tools.session import SUPERUSER, Session, open_image

_CHUNK: Final = 1 << 20


def entries(session: Session, directory: Ino) -> Iterator[Dirent]:
    """All entries of a directory, without `.` and `..`, in its own order."""
    posix = session.posix
    fh = posix.opendir(SUPERUSER, directory)
    try:
        cookie = 0
        while found := posix.readdir(fh, cookie):
            yield from (entry for entry in found if entry.name not in (b".", b".."))
            cookie = found[-1].next
    finally:
        posix.releasedir(fh)


def content(session: Session, attr: Attr, path: str) -> Iterator[bytes]:
    """The bytes of a regular file. Raises: Failed."""
    if not stat.S_ISREG(attr.mode):
        raise Failed(f"{path}: not a regular file")
    fh = session.posix.open(SUPERUSER, attr.ino, os.O_RDONLY)
    try:
        at = 0
        while data := session.posix.read(fh, at, _CHUNK):
            yield data
            at += len(data)
    finally:
        session.posix.release(fh)


def printable(name: bytes) -> str:
    """A name for a terminal: what is no text is shown as \\xNN."""
    text = name.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def moment(ns: int) -> str:
    """A time with its nanoseconds, in the local zone."""
    seconds, rest = divmod(ns, 10**9)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{rest:09d}"


def line(name: bytes, attr: Attr, target: bytes) -> str:
    """A line as of `ls -l`, with the inode number first."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(attr.mtime // 10**9))
    arrow = f" -> {printable(target)}" if target else ""
    head = f"{attr.ino:>8} {stat.filemode(attr.mode)} {attr.nlink:>3} {attr.uid:>5} {attr.gid:>5}"
    return f"{head} {attr.size:>11} {when} {printable(name)}{arrow}"


def show(session: Session, path: str, out: list[str]) -> None:
    """List a directory, or one file, as lines."""
    attr = session.resolve(path)
    found = [(os.fsencode(path), attr)]
    if stat.S_ISDIR(attr.mode):
        names = sorted(entry.name for entry in entries(session, attr.ino))
        found = [(name, session.posix.lookup(SUPERUSER, attr.ino, name)) for name in names]
    for name, each in found:
        link = stat.S_ISLNK(each.mode)
        out.append(line(name, each, session.posix.readlink(SUPERUSER, each.ino) if link else b""))


def ls(image: str, path: str) -> int:
    """`xnfs ls IMAGE [PATH]`"""
    out: list[str] = []
    with open_image(image, readonly=True) as session:
        show(session, path, out)
    print("\n".join(out)) if out else None
    return 0


def cat(image: str, path: str) -> int:
    """`xnfs cat IMAGE PATH`"""
    with open_image(image, readonly=True) as session:
        for data in content(session, session.resolve(path), path):
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def get(image: str, path: str, target: str | None) -> int:
    """`xnfs get IMAGE PATH [FILE]`: one file out of the image, with its mode and times."""
    name = target if target is not None else os.path.basename(path.rstrip("/"))
    if os.path.isdir(name):
        name = os.path.join(name, os.path.basename(path.rstrip("/")))
    with open_image(image, readonly=True) as session:
        attr = session.resolve(path)
        chunks = content(session, attr, path)
        first = next(chunks, b"")  # before the host's file is touched
        with open(name, "wb") as file:
            file.write(first)
            for data in chunks:
                file.write(data)
            os.fchmod(file.fileno(), stat.S_IMODE(attr.mode) & 0o777)
        os.utime(name, ns=(attr.atime, attr.mtime))
    return 0


def put(image: str, source: str, path: str) -> int:
    """`xnfs put IMAGE FILE PATH`: one file into the image, in place of what had the name."""
    info = os.stat(source)
    if not stat.S_ISREG(info.st_mode):
        raise Failed(f"{source}: not a regular file")
    with open_image(image, readonly=False) as session, open(source, "rb", buffering=0) as file:
        try:
            _put(session, path, source, info, file.fileno())
        except FsError as error:
            raise Failed(f"{path}: {error.strerror}") from None
    return 0


def _put(session: Session, path: str, source: str, info: os.stat_result, fd: int) -> None:
    """Under a name of its own first, so that the old file is there until the new one is whole."""
    posix = session.posix
    if path.endswith("/") or _is_directory(session, path):
        path = f"{path.rstrip('/')}/{os.path.basename(source)}"
    parent, name = session.parent(path)
    mode = stat.S_IMODE(info.st_mode)
    for number in range(1000):
        temporary = b".xnfs-put-%d" % number
        try:
            attr, fh = posix.create(SUPERUSER, parent, temporary, mode, os.O_RDWR | os.O_EXCL)
            break
        except FsError as error:
            if error.errno != errno.EEXIST:
                raise
    else:
        raise Failed(f"{path}: no free temporary name")
    try:
        copy_in(posix, attr.ino, fh, fd, info.st_size)
        posix.setattr(SUPERUSER, attr.ino, uid=info.st_uid, gid=info.st_gid)
        posix.setattr(SUPERUSER, attr.ino, atime=info.st_atime_ns, mtime=info.st_mtime_ns)
        posix.rename(SUPERUSER, parent, temporary, parent, name)
    except BaseException:
        posix.unlink(SUPERUSER, parent, temporary)
        raise
    finally:
        posix.release(fh)


def _is_directory(session: Session, path: str) -> bool:
    try:
        return stat.S_ISDIR(session.resolve(path).mode)
    except Failed:
        return False
