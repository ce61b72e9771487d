"""What a workload begins on: a tiny image with the file system and its neighbour, made once.

Blocks are immutable bytes, so an image is a dict that is copied; settings that workloads share are
run once. Free blocks hold a canary that nobody may ever show.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from libfs.posix import FsError, Posix
from xnfs import BlockDevice, FramePool, MemoryDevice, Xn, format_image
from xnfs_trials.crash.explore import contents
from xnfs_trials.crash.model import Model
from xnfs_trials.crash.mounting import CANARY, fill_canary
from xnfs_trials.crash.neighbour import Neighbour, move_in
from xnfs_trials.crash.ops import Op
from xnfs_trials.crash.runner import Runner
from xnfs_trials.crash.subject import UUID, Subject
from xnfs_trials.crash.trees import ROOT, quiet

#: The root of the file system on trial.
NAME = "root"


def clock() -> Callable[[], int]:
    """A millisecond a call."""
    now = [1_700_000_000_000_000_000]

    def tick() -> int:
        now[0] += 1_000_000
        return now[0]

    return tick


@dataclass(frozen=True)
class Shape:
    """The size of the machine: of the image, of its log, and of the memory for blocks."""

    blocks: int = 256
    frames: int = 96
    log_blocks: int = 16


@dataclass(frozen=True)
class Base:
    """An image on which a workload can begin. `used`: blocks in use when the file system was
    new. `model`: a pickled `Model`, so that each trial has its own."""

    image: dict[int, bytes]
    model: bytes
    neighbour: Neighbour
    used: int


def used_frames(count: int) -> FramePool:
    """Memory in which others have been: every frame holds the canary."""
    pool = FramePool(count)
    pool.words().cast("B")[:] = _canaries(count)
    return pool


@lru_cache(maxsize=8)
def _canaries(count: int) -> bytes:
    return CANARY * (count * 4096 // len(CANARY))


def open_subject(
    subject: Subject, device: BlockDevice, frames: int, *, readonly: bool = False
) -> tuple[Xn, Posix]:
    """Mount. Raises XnError, FsError."""
    xn = Xn(device, frames=used_frames(frames), clock=clock(), readonly=readonly)
    return xn, quiet(subject.mount(xn, xn.admin, NAME, readonly=readonly), readonly=readonly)


@lru_cache(maxsize=16)
def new_image(subject: Subject, shape: Shape) -> tuple[dict[int, bytes], Neighbour, int]:
    """An image with an empty file system and its neighbour, closed cleanly; blocks in use."""
    disk = MemoryDevice(shape.blocks)
    format_image(disk, uuid=UUID, label="crash", log_blocks=shape.log_blocks)
    xn = Xn(disk, frames=FramePool(256), clock=clock())
    subject.mkfs(xn, xn.admin, NAME)
    neighbour = move_in(xn)
    lo, hi = xn.data_area
    used = hi - lo - xn.free_blocks()
    xn.close()
    image = contents(disk)
    return image, neighbour.seen_on(image), used


@lru_cache(maxsize=512)
def base_for(subject: Subject, setting: tuple[Op, ...], shape: Shape) -> Base:
    """The image after the setting, all of it durable, and the model of it.

    Raises FsError if the file system can't make the setting.
    """
    image, neighbour, used = new_image(subject, shape)
    disk = MemoryDevice(shape.blocks, dict(image))
    xn, posix = open_subject(subject, disk, shape.frames)
    model = Model(int(posix.root), posix.getattr(ROOT, posix.root).mode, subject.promises)
    runner = Runner(posix, model, lambda: 0)
    runner.run(setting)
    posix.close()
    xn.close()
    if runner.trouble:
        raise FsError(0, f"the setting fails: {runner.trouble[0]}")
    fill_canary(disk)
    model.settle()
    return Base(contents(disk), pickle.dumps(model), neighbour, used)
