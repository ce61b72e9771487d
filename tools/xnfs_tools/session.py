"""An image opened by a command: device, kernel, file systems, POSIX layer, closed in order.

A command that works in a file system takes IMAGE:ROOT where an image may have several.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from libfs.formats import Format, of_type
from libfs.posix import Options, Posix
from libfs.posix.interface import Attr, FileSystem, FsError, Ino, User
from xnfs import (
    ALLOC,
    BLOCK,
    READ,
    WRITE,
    Caller,
    FileDevice,
    FramePool,
    RootEntry,
    Xn,
    XnError,
)
from xnfs_tools.command import Failed, about, split_image

CACHE: Final = 64 << 20
ROOT: Final = "main"
#: Frames for each of several roots: four of the largest requests.
_LEAST: Final = 1024
SUPERUSER: Final = User(0, 0)


@dataclass
class Session:
    """What is open."""

    path: str
    xn: Xn
    posix: Posix

    def resolve(self, path: str) -> Attr:
        """The inode at a path inside the image, as the superuser; symbolic links are not followed.

        Raises: Failed.
        """
        attr = self.posix.getattr(SUPERUSER, self.posix.root)
        for name in os.fsencode(path).split(b"/"):
            if name:
                try:
                    attr = self.posix.lookup(SUPERUSER, attr.ino, name)
                except FsError as error:
                    raise Failed(f"{path}: {error.strerror}") from None
        return attr

    def parent(self, path: str) -> tuple[Ino, bytes]:
        """The directory of a path inside the image, and the last name."""
        head, _, name = path.rstrip("/").rpartition("/")
        if not name:
            raise Failed(f"{path}: not a name")
        return self.resolve(head).ino, os.fsencode(name)

    def target(self, path: str, name: bytes) -> tuple[Ino, bytes]:
        """Where mv(1) would put something called `name`: into the directory `path`, or as `path`.

        Raises: Failed.
        """
        try:
            attr = self.resolve(path)
        except Failed:
            return self.parent(path)
        return (attr.ino, name) if stat.S_ISDIR(attr.mode) else self.parent(path)


@contextlib.contextmanager
def open_kernel(
    path: str, *, readonly: bool, cache: int = CACHE, roots: Sequence[str] = ()
) -> Iterator[Xn]:
    """An image without its file systems. Several `roots` get an equal part of the cache each, and
    enough to work with, so that none can take all the frames. Raises: Failed."""
    try:
        device = FileDevice(path, readonly=readonly)
    except XnError as error:
        raise about(path, error) from None
    try:
        several = len(roots) > 1
        frames = FramePool(max(_LEAST * len(roots) if several else 256, cache // BLOCK))
        if several:
            for name in roots:
                frames.set_quota(name, frames.count // len(roots))
        try:
            xn = Xn(device, frames=frames, readonly=readonly)
        except XnError as error:
            raise about(path, error) from None
        try:
            yield xn
        finally:
            xn.close()
    finally:
        device.close()


@contextlib.contextmanager
def open_image(
    text: str, *, readonly: bool, words: Mapping[str, object] | None = None
) -> Iterator[Session]:
    """IMAGE or IMAGE:ROOT with its file system; everything is durable when the block ends. `words`:
    options of the file system's own. Raises: Failed.
    """
    path, root = split_image(text)
    with open_kernel(path, readonly=readonly) as xn:
        entry = choose_root(xn, path, root)
        fs = mount_root(xn, path, entry, readonly=readonly, words=words)
        posix = Posix(fs, options=Options(readonly=readonly))
        try:
            yield Session(path, xn, posix)
        finally:
            posix.close()


def check_words(kind: Format, words: Mapping[str, object]) -> None:
    """Whether a file system has these options. Raises: Failed."""
    for name, value in words.items():
        known = kind.options.get(name, ())
        if known is not None and value not in known:
            there = f" ({', '.join(map(str, known))})" if known else ""
            raise Failed(f"{kind.name} has no mount option '{name}={value}'{there}")


def mount_root(
    xn: Xn,
    path: str,
    root: RootEntry,
    *,
    readonly: bool,
    kind: Format | None = None,
    words: Mapping[str, object] | None = None,
) -> FileSystem:
    """The file system of a root, of the format that it looks like or of another, with options of
    its own. It is given a capability for that root alone. Raises: Failed."""
    known = kind or of_type(xn, root.type)
    if known is None:
        names = {number: spec.name for number, spec in xn.types()}
        there = names.get(root.type, str(root.type))
        raise Failed(f"{path}: root '{root.name}' is of type {there}, which is not known here")
    check_words(known, words or {})
    try:
        cap = xn.narrow(Caller(xn.admin), root.name, READ | WRITE | ALLOC)
        return known.mount(xn, cap, root.name, readonly=readonly, **(words or {}))
    except (XnError, FsError) as error:
        raise about(path, error) from None


def split_snapshot(xn: Xn, name: str | None) -> tuple[str | None, str | None]:
    """ROOT or ROOT@SNAPSHOT. A root that has the whole text as its name is meant before another."""
    if name is None or "@" not in name or any(entry.name == name for entry in xn.roots()):
        return name, None
    root, _, snapshot = name.partition("@")
    return root, snapshot


def choose_root(xn: Xn, path: str, name: str | None) -> RootEntry:
    """The root to mount: the one named, else "main", else the only one. Raises: Failed."""
    roots = {entry.name: entry for entry in xn.roots() if not entry.temporary}
    if name is None:
        name = ROOT if ROOT in roots or len(roots) != 1 else next(iter(roots))
    if name not in roots:
        known = ", ".join(sorted(roots)) or "none"
        raise Failed(f"{path}: no file system named '{name}' in this image (there: {known})")
    return roots[name]
