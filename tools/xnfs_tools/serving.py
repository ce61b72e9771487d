"""The server behind mount.xnfs: file systems of one image, each at its place, until unmounted.

One process has the image open, and with it one XN: one free map, one registry, one lock. Each place
has threads of its own (`libfs.kernel.group`). A root with several places has one POSIX layer with a
front for each, so that what is changed through one is seen through the other.
"""

from __future__ import annotations

import contextlib
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
from libfs.posix import Posix, Shared
from xnfs import BadImage, CorruptionError, InUse, Xn
from xnfs_tools import mountinfo
from xnfs_tools.command import Failed
from xnfs_tools.controls import Controls
from xnfs_tools.mountopts import MountOptions
from xnfs_tools.session import ROOT, choose_root, mount_root, open_kernel, split_snapshot
from xnfs_tools.transfer import Side


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
            raise Failed(str(error)) from None
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
        group = Group(mounts, ready)
        controls = Controls(xn, image, options, group)
        for side, mount in zip(sides, mounts, strict=True):
            controls.serve(side, mount)
        group.run()


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
