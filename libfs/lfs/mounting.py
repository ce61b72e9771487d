"""Making an empty LFS, and taking one up again: super block, regions, roll-forward."""

from __future__ import annotations

import stat
import uuid as uuids

from libfs.lfs import format as f
from libfs.lfs import types as t
from libfs.lfs.checkpoint import Checkpoint, Region, make_durable
from libfs.lfs.cleaner import Cleaner
from libfs.lfs.namespace import Namespace
from libfs.lfs.rollforward import roll_forward
from libfs.lfs.snapshots import Snapshots
from libfs.lfs.tree import Tree
from libfs.lfs.volume import Volume
from libfs.posix.interface import New
from xnfs import Caller, CorruptionError, NoSpace, RootInfo, Xn


def make(
    xn: Xn, cap: bytes, name: str, *, uid: int, gid: int, mode: int, uuid: bytes | None
) -> None:
    """Install the types, a root, and in it an empty directory. Durable on return.

    Raises XnError: the name is taken, no space, the capability is not for the whole disk.
    """
    who = Caller(cap)
    lo, hi = xn.data_area
    sizes = f.SEGMENT_SIZES
    size = next((s for s in sizes if (hi - lo) // s >= f.GOOD_SEGMENTS), sizes[-1])
    if (hi - lo) // size < f.MIN_SEGMENTS:
        least = size * f.MIN_SEGMENTS
        raise NoSpace(f"LFS needs an image with {least} blocks of data or more")
    tables = -(-(hi // size + 1) // f.SLOTS)
    run = min(-(-tables // f.TABLES), f.MAX_RUN)
    for spec in t.TYPES:
        xn.install_type(who, spec)
    number = xn.type_number(t.SUPER)
    assert number is not None  # just installed
    info = xn.install_root(who, name, number)
    _make_super(xn, info, size, run, uuid or uuids.uuid4().bytes)
    vol = bare_volume(xn, info, readonly=False)
    new = New(stat.S_IFDIR | mode, uid, gid)
    root = Namespace(vol).new(new, f.ROOT_INO)
    root.nlink = 2
    for _region in range(2):
        make_durable(vol, checkpoint=True)
    xn.sync(who)


def _make_super(xn: Xn, info: RootInfo, size: int, run: int, uuid: bytes) -> None:
    block, found = xn.find_free(info.block + 1, 2)
    number = xn.type_number(t.CHECKPOINT)
    if found < 2 or number is None:
        raise NoSpace("no blocks for the checkpoints")
    head = f.SUPER.pack(f.SUPER_MAGIC, f.VERSION, size, run, xn.now(), uuid)
    regions = b"".join(f.POINTER.pack(f.pointer(f.P_CHECKPOINT, block + i)) for i in range(2))
    xn.change(
        Caller(info.cap),
        [(info.block, [(f.SUPER_AT, head), (f.SUPER_REGIONS, regions)])],
        alloc=[(number, block, 2)],
    )


def bare_volume(xn: Xn, info: RootInfo, *, readonly: bool) -> Volume:
    """A volume that has not looked at its log yet. Raises CorruptionError."""
    vol = Volume(xn, info.cap, info.block, readonly=readonly)
    raw = xn.read(vol.who, vol.super, 0, f.BLOCK)
    regions = []
    for i in range(2):
        (pointer,) = f.POINTER.unpack_from(raw, f.SUPER_REGIONS + i * f.POINTER.size)
        if pointer >> f.KIND_SHIFT != f.P_CHECKPOINT:
            raise CorruptionError(vol.super, "pointer", hex(pointer), "a checkpoint region")
        regions.append(pointer & f.BLOCK_MASK)
    vol.checkpoint = Checkpoint(vol, (regions[0], regions[1]))
    vol.cleaner = Cleaner(vol)
    vol.snapshots = Snapshots(vol)
    return vol


def take_up(
    xn: Xn, cap: bytes, name: str, *, readonly: bool, snapshot: str | None = None
) -> Volume:
    """The root `name`, as it was when it was last made durable, or a snapshot of it, which can't be
    written. Raises XnError: no such root, CorruptionError; FsError: ENOENT, no such snapshot."""
    readonly = readonly or snapshot is not None
    info = xn.mount_root(Caller(cap), name)
    vol = bare_volume(xn, info, readonly=readonly or xn.readonly)
    raw = xn.read(vol.who, vol.super, 0, f.BLOCK)
    vol.segments.load_untrusted(raw[f.SUPER_TABLE :])
    regions = vol.checkpoint.load()
    take_region(vol, regions)
    vol.snapshots.load()
    vol.recovered = roll_forward(vol, regions[0])
    if snapshot is not None:
        vol.imap = vol.snapshots.tree(vol.snapshots.find(snapshot))
        vol.vnodes.clear()
    if not vol.directory(f.ROOT_INO).nlink:
        raise CorruptionError(vol.super, "root directory", "none", "one")
    return vol


def take_region(vol: Volume, regions: list[Region]) -> None:
    """Begin with the newest of these checkpoints."""
    newest = regions[0]
    vol.imap = Tree(vol, 0, newest.depth, newest.tops)
    vol.next_ino, vol.epoch = newest.next_ino, newest.epoch
    checkpoint = vol.checkpoint
    checkpoint.number, checkpoint.time = newest.number, newest.time
    checkpoint.flush, checkpoint.serial = newest.flush, newest.serial
    checkpoint.snapshots = newest.snapshots
    for region in regions:
        checkpoint.done(region)
