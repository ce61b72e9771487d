"""The server behind mount.xnfs: file systems of one image, each at its place, until unmounted.

One process has the image open, and with it one XN: one free map, one registry, one lock. Each place
has threads of its own (`libfs.kernel.group`). A root with several places has one POSIX layer with a
front for each, so that what is changed through one is seen through the other.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from libfs.formats import Format, of_type
from libfs.fuse import Mount, MountFailed
from libfs.kernel.group import Group
from libfs.kernel.mounting import MountFailed as KernelRefused
from libfs.kernel.session import Mount as DirectMount
from libfs.posix import FsError, Posix, Shared
from xnfs import BadImage, Caller, CorruptionError, InUse, Xn
from xnfs_tools import mountinfo
from xnfs_tools.command import Failed
from xnfs_tools.mountopts import MountOptions
from xnfs_tools.session import ROOT, Session, choose_root, mount_root, open_kernel, split_snapshot
from xnfs_tools.transfer import Side, Transfer


class Place(NamedTuple):
    """One mount to be made. `root` None: the one that is meant when none is named."""

    root: str | None
    directory: str
    source: str  # what the kernel's table is to say


def serve_places(
    image: str,
    places: Sequence[Place],
    options: MountOptions,
    kind: Format | None,
    ready: Callable[[], None],
    patience: float,
) -> None:
    """Mount and serve until unmounted.

    Raises: Failed, with the advice to run fsck where it helps.
    """
    deadline = time.monotonic() + patience
    names = list(dict.fromkeys((place.root or ROOT).partition("@")[0] for place in places))
    while True:
        try:
            with open_kernel(
                image, readonly=options.readonly, cache=options.cache, roots=names
            ) as xn:
                started = partial(_started, xn, image, ready)
                _run(xn, image, places, options, kind, started)
            return
        except Failed as error:
            cause = error.__context__
            if isinstance(cause, InUse):
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                there = " and ".join(each.directory for each in mountinfo.of(image))
                if there:
                    raise Failed(f"{image}: already mounted on {there}") from None
            if isinstance(cause, BadImage | CorruptionError):
                raise Failed(f"{error}; to check it: fsck.xnfs {image}") from None
            raise
        except CorruptionError as error:
            raise Failed(f"{image}: {error}; to check it: fsck.xnfs {image}") from None
        except KernelRefused as error:
            where = "" if len(places) > 1 else f"{places[0].directory}: "
            raise Failed(f"{where}{error}") from None
        except MountFailed:
            raise Failed(f"{places[0].directory}: could not mount") from None


def _started(xn: Xn, image: str, ready: Callable[[], None]) -> None:
    """It is usable; say what else is to be said."""
    ready()
    for block in xn.bad_superblocks:
        text = "%s: the superblock in block %d is damaged; its other copy was used"
        logging.getLogger("xnfs").warning(text, image, block)


def _run(
    xn: Xn,
    image: str,
    places: Sequence[Place],
    options: MountOptions,
    kind: Format | None,
    ready: Callable[[], None],
) -> None:
    """Serve all places."""
    with contextlib.ExitStack() as closing:
        sides = _sides(xn, image, places, options, kind, closing)
        if not options.direct():
            (place,), (side,) = places, sides
            words = options.libfuse()
            Mount(
                side.posix, place.directory, source=place.source, options=words, ready=ready
            ).run()
            return
        mounts = [
            DirectMount(side.posix, place.directory, source=place.source, options=options.words())
            for side, place in zip(sides, places, strict=True)
        ]
        controls = Controls(xn, image, sides, mounts)
        for side, mount in zip(sides, mounts, strict=True):
            mount.controlled_by(partial(controls.do, side))
        if len(mounts) > 1:
            Group(mounts, ready).run()
        else:
            mounts[0].ready = ready
            mounts[0].run()


def _sides(
    xn: Xn,
    image: str,
    places: Sequence[Place],
    options: MountOptions,
    kind: Format | None,
    closing: contextlib.ExitStack,
) -> list[Side]:
    """The file system of each place. Raises: Failed."""
    meant = [split_snapshot(xn, place.root) for place in places]
    roots = [choose_root(xn, image, name) for name, snapshot in meant if snapshot is None]
    shared: dict[str, Shared] = {}
    sides = []
    for name, snapshot in meant:
        root = choose_root(xn, image, name)
        known = kind or of_type(xn, root.type)
        if snapshot is not None:
            words = {**options.format, "snapshot": snapshot}
            fs = mount_root(xn, image, root, readonly=True, kind=kind, words=words)
            posix = Posix(fs, options=options.posix())
            closing.callback(posix.close)
            sides.append(Side(f"{root.name}@{snapshot}", fs, posix, known))
            continue
        if root.name not in shared:
            fs = mount_root(
                xn,
                image,
                root,
                readonly=options.readonly,
                kind=kind,
                words=options.format,
            )
            if roots.count(root) > 1:
                shared[root.name] = Shared(fs, options.posix())
        if root.name in shared:
            posix = shared[root.name].front()
            fs = shared[root.name].core.fs
        else:
            posix = Posix(fs, options=options.posix())
        closing.callback(posix.close)
        sides.append(Side(root.name, fs, posix, known))
    return sides


class Controls:
    """What root, or who mounted, may ask of a server: `mv`, from one of its file systems to
    another. Called by the thread that serves the source."""

    def __init__(
        self, xn: Xn, image: str, sides: Sequence[Side], mounts: Sequence[DirectMount]
    ) -> None:
        self._xn = xn
        self._image = image
        self._sides = sides
        self._mounts = mounts

    def do(self, src: Side, request: bytes) -> None:
        """`mv`, a path, a root and a path there, with NULs between.

        Raises: FsError: EINVAL (no such request), ENXIO (no such root here), EBUSY (it is in use;
        what the host kernel only remembers, it is asked to forget, so asking again may help),
        EXDEV, EISDIR, EMLINK, …
        """
        words = request.split(b"\0")
        if len(words) != 4 or words[0] != b"mv":
            raise FsError(errno.EINVAL)
        path, root, to_path = (word.decode(errors="surrogateescape") for word in words[1:])
        dst = next((side for side in self._sides if side.root == root), None)
        if dst is None or dst.root == src.root:
            raise FsError(errno.ENXIO)
        try:
            parent, name = Session(self._image, self._xn, src.posix).parent(path)
            sink, new_name = Session(self._image, self._xn, dst.posix).target(to_path, name)
        except Failed:
            raise FsError(errno.ENOENT) from None
        moved = False
        try:
            Transfer(Caller(self._xn.admin), src, dst).quick(parent, name, sink, new_name)
            moved = True
        finally:
            for side, mount in zip(self._sides, self._mounts, strict=True):
                if side.root == src.root:
                    mount.notices.name_changed(parent, name)
                    mount.notices.data_changed(parent)
                elif side.root == dst.root and moved:
                    mount.notices.name_changed(sink, new_name)
                    mount.notices.data_changed(sink)
