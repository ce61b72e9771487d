"""The images with an LFS: what fsck and a mount say of each, and what must still be there.

Whatever was synced is in them, but for what the damage itself destroyed.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import pytest

from images.damage_lfs import DAMAGED_LFS, Damage
from images.golden import ROOT, Golden
from images.golden_lfs import golden_both, golden_lfs, golden_lfs_crashed, golden_lfs_snapshot
from images.make import GOLDEN_LFS, load
from libfs.formats import of_type, rebuild
from libfs.lfs import Lfs
from libfs.posix.interface import FileSystem, Ino
from tests.conformance.support import refuses
from tests.lfs.support import FILE
from xnfs import CorruptionError, FramePool, MemoryDevice, Xn
from xnfs.disk.fsck import check_image

Tree = dict[str, tuple[object, ...]]


def open_image(device: MemoryDevice, *, readonly: bool = False) -> Xn:
    """The kernel; the clock stands."""
    now = 1_760_000_000_000_000_000
    return Xn(device, frames=FramePool(600), clock=lambda: now, readonly=readonly)


def fsck(device: MemoryDevice, *, repair: bool) -> list[str]:
    """The codes that the kernel's checker and then those of the roots report."""
    out: list[str] = []
    said = out.append
    check_image(device, repair=repair, report=lambda it: said(it.code), rebuild=rebuild)
    xn = open_image(device, readonly=not repair)
    for root in xn.roots():
        known = of_type(xn, root.type)
        assert known is not None
        assert known.check is not None
        known.check(
            xn,
            xn.admin,
            root.name,
            repair=repair,
            report=lambda finding: out.append(finding.code),
        )
    xn.close()
    return out


def mount(device: MemoryDevice, name: str = "root", snapshot: str | None = None) -> Lfs:
    """The LFS of a root."""
    xn = open_image(device)
    return Lfs.mount(xn, xn.admin, name, snapshot=snapshot)


def tree(fs: FileSystem) -> Tree:
    """All that is in a file system, by path. Raises FsError: part of it can't be read."""
    found: Tree = {}
    todo = [("/", Ino(fs.root))]
    while todo:
        path, ino = todo.pop()
        attr = fs.getattr(ino)
        kind, data = stat.S_IFMT(attr.mode), b""
        if kind == stat.S_IFREG:
            data = fs.read(ino, 0, attr.size)
        elif kind == stat.S_IFLNK:
            data = fs.readlink(ino)
        elif kind == stat.S_IFDIR:
            below = path.rstrip("/")
            todo += [(f"{below}/{e.name.decode()}", Ino(e.ino)) for e in fs.readdir(ino, 0)]
        names = sorted(fs.listxattr(ino))
        found[path] = attr.mode, attr.uid, data, [(n, fs.getxattr(ino, n)) for n in names]
    return found


def without(found: Tree, lost: tuple[str, ...]) -> Tree:
    """What does not begin so."""
    return {path: what for path, what in found.items() if not path.startswith(lost)}


@pytest.fixture(scope="module")
def sound() -> dict[Callable[[], Golden], Tree]:
    """What is in each golden image with one root."""
    goldens = golden_lfs, golden_lfs_crashed, golden_lfs_snapshot
    return {golden: tree(mount(load(golden.__name__))) for golden in goldens}


def clean(fs: Lfs) -> None:
    """All segments that can be: the log goes on in another one than before."""
    fs.sync(None)
    fs.volume.cleaner.clean_some(10_000)
    fs.volume.cleaner.settle()


# -- golden


@pytest.mark.parametrize("golden", GOLDEN_LFS, ids=[g.__name__ for g in GOLDEN_LFS])
def test_images_lfs_golden(golden: Callable[[], Golden]) -> None:
    """Sound, and what its script makes."""
    device = load(golden.__name__)
    made = golden().disk._contents
    assert {block: raw for block, raw in made.items() if any(raw)} == device._contents
    assert fsck(device, repair=False) == []
    assert fsck(device, repair=True) == []


def test_images_lfs_golden_tree(sound: dict[Callable[[], Golden], Tree]) -> None:
    found = sound[golden_lfs]
    assert found.keys() == golden_lfs().at.keys()
    assert len(found["/large"][2]) == 9 * 4096 + 77  # type: ignore[arg-type]
    assert found["/symlink"][2] == b"small"
    assert (b"user.long", b"x" * 2000) in found["/large"][3]  # type: ignore[operator]


def test_images_lfs_crashed(sound: dict[Callable[[], Golden], Tree]) -> None:
    """Both syncs after the checkpoint are rolled forward, and nothing else."""
    fs = mount(load("golden_lfs_crashed"))
    assert fs.volume.recovered
    found = sound[golden_lfs_crashed]
    assert found.keys() == golden_lfs_crashed().at.keys()
    assert found["/synced"][2:] == (b"synced" * 3000, [(b"user.late", b"v" * 1500)])
    assert found["/large"][2][4096 : 4096 + 5500] == b"overwritten" * 500  # type: ignore[index]
    assert found["/renamed"][2] == b"small"


def test_images_lfs_snapshot(sound: dict[Callable[[], Golden], Tree]) -> None:
    """The snapshot has what the live file system had."""
    before = tree(mount(load("golden_lfs_snapshot"), snapshot="before"))
    want = dict(sound[golden_lfs])
    mode, _uid, *rest = want["/sparse"]
    want["/sparse"] = mode, 7, *rest
    assert before == want
    live = sound[golden_lfs_snapshot]
    assert live.keys() == want.keys() - {"/sparse"}
    assert live["/large"][2][:10_000] == b"after" * 2000  # type: ignore[index]


def test_images_lfs_both_roots_by_one_process() -> None:
    xn = open_image(load(golden_both.__name__))
    found = {}
    for root in xn.roots():
        known = of_type(xn, root.type)
        assert known is not None
        found[root.name] = tree(known.mount(xn, xn.admin, root.name))["/mine"][2]
    assert found == {"ffs": b"first" * 1000, "lfs": b"second" * 1000}


# -- damaged


@pytest.mark.parametrize("damage", DAMAGED_LFS, ids=[d.name for d in DAMAGED_LFS])
def test_images_lfs_damaged_is_named_and_not_believed(
    damage: Damage, sound: dict[Callable[[], Golden], Tree]
) -> None:
    """fsck -n names it and writes nothing. A mount fails with clear words, or has everything up to
    where the damage is; there it says so and stops writing."""
    device = load(damage.name)
    before = dict(device._contents)
    assert damage.finding in fsck(device, repair=False)
    assert device._contents == before, "fsck -n wrote"
    if damage.mount is not None:
        with pytest.raises(CorruptionError, match=damage.mount):
            mount(device)
        return
    fs = mount(device)
    if damage.touch is None:
        assert tree(fs) == sound[damage.golden]
        return
    was = fs.readonly
    ino = damage.golden().at[damage.touch]
    with refuses(errno.EUCLEAN):
        attr = fs.getattr(Ino(ino))
        if stat.S_ISDIR(attr.mode):
            list(fs.readdir(Ino(ino), 0))
        fs.read(Ino(ino), 0, attr.size)
    assert (was, fs.readonly) == (False, True)
    with refuses(errno.EROFS):
        fs.unlink(ROOT, fs.root, b"empty", keep=False)


@pytest.mark.parametrize("damage", DAMAGED_LFS, ids=[d.name for d in DAMAGED_LFS])
def test_images_lfs_damaged_is_mended(
    damage: Damage, sound: dict[Callable[[], Golden], Tree]
) -> None:
    """After fsck -y nothing is found, whatever was sound is there, and it can be written."""
    device = load(damage.name)
    fsck(device, repair=True)
    left = {"snapshot-damaged"} & {damage.finding}  # it stays until somebody deletes it
    assert set(fsck(device, repair=True)) == left
    fs = mount(device)
    for name, _time in fs.snapshots():
        fs.delete_snapshot(name)
    got, want = tree(fs), sound[damage.golden]
    assert without(got, damage.lost) == without(want, damage.lost)
    fs.write(ROOT, fs.create(ROOT, fs.root, b"new", FILE), 0, bytes(99 * 4096), kill_suid=False)
    clean(fs)
    fs.close()
    fs.volume.xn.close()
    assert fsck(device, repair=False) == []
    after = tree(mount(device))
    del after["/new"]
    assert {**after, "/": got["/"]} == got


@pytest.mark.parametrize("name", ["l_summary_place", "l_summary_inode"])
def test_images_lfs_the_cleaner_does_not_believe_a_summary(
    name: str, sound: dict[Callable[[], Golden], Tree]
) -> None:
    """It takes a live block for a dead one; but as somebody has it, its segment is not freed."""
    device = load(name)
    fs = mount(device)
    fs.write(ROOT, fs.create(ROOT, fs.root, b"big", FILE), 0, bytes(99 * 4096), kill_suid=False)
    with pytest.raises(CorruptionError, match="live"):
        clean(fs)
    got = tree(mount(device.fork()))
    del got["/big"]
    assert got == sound[golden_lfs_crashed]
    fsck(device, repair=True)
    fs = mount(device)
    clean(fs)
    got = tree(fs)
    del got["/big"]
    assert got == sound[golden_lfs_crashed]
