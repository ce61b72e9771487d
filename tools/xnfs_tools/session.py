"""An image opened by a command: device, kernel, file system, POSIX layer, closed in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from libfs.formats import of_type
from libfs.posix import Options, Posix
from libfs.posix.interface import Attr, FsError, Ino, User
from xnfs import BLOCK, FileDevice, FramePool, RootEntry, Xn, XnError
from xnfs_tools.command import Failed, about

CACHE: Final = 64 << 20
ROOT: Final = "main"
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


@contextlib.contextmanager
def open_kernel(path: str, *, readonly: bool, cache: int = CACHE) -> Iterator[Xn]:
    """An image without its file systems. Raises: Failed."""
    try:
        device = FileDevice(path, readonly=readonly)
    except XnError as error:
        raise about(path, error) from None
    try:
        frames = FramePool(max(256, cache // BLOCK))
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
    path: str,
    *,
    readonly: bool,
    root: str | None = None,
    cache: int = CACHE,
    options: Options | None = None,
    grouping: bool | None = None,
) -> Iterator[Session]:
    """An image with its file system; everything is durable when the block ends. Raises: Failed."""
    with open_kernel(path, readonly=readonly, cache=cache) as xn:
        entry = choose_root(xn, path, root)
        kind = of_type(xn, entry.type)
        assert kind is not None  # choose_root asked the same
        try:
            features = {} if grouping is None else {"grouping": grouping}
            fs = kind.mount(xn, xn.admin, entry.name, readonly=readonly, **features)
        except (XnError, FsError) as error:
            raise about(path, error) from None
        posix = Posix(fs, options=options or Options(readonly=readonly))
        try:
            yield Session(path, xn, posix)
        finally:
            posix.close()


def choose_root(xn: Xn, path: str, name: str | None) -> RootEntry:
    """The root to mount: the one named, else "main", else the only one. Raises: Failed."""
    roots = {entry.name: entry for entry in xn.roots() if not entry.temporary}
    if name is None:
        name = ROOT if ROOT in roots or len(roots) != 1 else next(iter(roots))
    if name not in roots:
        known = ", ".join(sorted(roots)) or "none"
        raise Failed(f"{path}: no file system named '{name}' in this image (there: {known})")
    entry = roots[name]
    if of_type(xn, entry.type) is None:
        kinds = {number: spec.name for number, spec in xn.types()}
        kind = kinds.get(entry.type, str(entry.type))
        raise Failed(f"{path}: root '{name}' is of type {kind}, which is not known here")
    return entry
