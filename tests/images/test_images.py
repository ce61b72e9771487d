"""The images of `images/`: golden ones are sound, damaged ones are found, mended, and then sound.

What was fine before is there after: every path of the golden image, but for those that the damage
destroyed.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest
from xnfs_trials.crash.checker import check
from xnfs_trials.crash.rawwalk import Inode

from images.damage_lfs import DAMAGED_LFS
from images.golden import Golden, golden_ffs
from images.make import DAMAGED, GOLDEN, GOLDEN_LFS, HERE, HOPELESS, load
from libfs.ffs.check import check as check_ffs
from xnfs import FramePool, MemoryDevice, Xn, XnError
from xnfs.disk.fsck import Result, check_image
from xnfs.disk.fsck_walk import Finding

#: paths that damage destroys, by beginning; everything else must survive
LOST = {
    "f_inode_destroyed": (b"/dir/deep/deeper/bottom",),
    "f_dir_zeroed": (b"/dir/deep/deeper",),
    "f_leaf_destroyed": (b"/many/",),
    "f_leaf_misdirected": (b"/sparse",),
    "f_extent_over_inode": (b"/large",),
}


def fsck(device: MemoryDevice, *, repair: bool) -> tuple[Result, list[Finding]]:
    """Of the kernel."""
    found: list[Finding] = []
    return check_image(device, repair=repair, report=found.append), found


def ffs_findings(device: MemoryDevice, *, repair: bool) -> list[str]:
    """What the checker of FFS says of each root."""
    xn = Xn(device, frames=FramePool(600), clock=lambda: 1_760_000_000_000_000_000)
    out: list[str] = []
    for root in xn.roots():
        check_ffs(xn, xn.admin, root.name, repair=repair, report=lambda f: out.append(str(f)))
    xn.close()
    return out


def tree(device: MemoryDevice) -> dict[bytes, Inode]:
    """By the independent checker; the image must be sound."""
    report, _ = check(device._contents, device.blocks)
    assert not report.findings, report.findings
    return report.tree()


def look(inode: Inode) -> tuple[object, ...]:
    """What of an inode must survive."""
    kind = stat.S_IFMT(inode.mode)
    data = inode.content() if kind == stat.S_IFREG else inode.target
    return inode.mode, inode.uid, inode.rdev, data, tuple(sorted(inode.xattrs.items()))


@pytest.mark.parametrize("golden", GOLDEN, ids=[g.__name__ for g in GOLDEN])
def test_images_golden(golden: Callable[[], Golden]) -> None:
    device = load(golden.__name__)
    assert fsck(device, repair=False)[1] == []
    assert ffs_findings(device, repair=False) == []
    assert fsck(device, repair=True)[1] == []


def test_images_golden_tree() -> None:
    """The golden image holds what it was made of, hard links and all."""
    found, made = tree(load("golden_ffs")), golden_ffs().at
    names = {path.encode() for path in made}
    assert found.keys() == names
    assert found[b"/small"] is found[b"/dir/hardlink"] is found[b"/many/000-" + b"n" * 40]
    assert found[b"/small"].nlink == 92
    assert found[b"/symlink"].target == b"small"
    assert len(found[b"/large"].content()) == 9 * 4096 + 77
    assert found[b"/large"].xattrs[b"user.long"] == b"x" * 2000


def test_images_crashed() -> None:
    """A power cut leaves no damage: fsck replays the log and collects leaks, and finds nothing
    wrong."""
    device = load("golden_crashed")
    result, found = fsck(device, repair=False)
    assert found == []
    assert result.replayed
    assert result.leaked
    assert fsck(device, repair=True)[0].leaked == result.leaked
    again, _ = fsck(device, repair=True)
    assert not again.leaked
    found_tree = tree(device)
    assert found_tree[b"/small"].content() == b"torn" * 250
    assert b"/lost" not in found_tree


@pytest.mark.parametrize(("damage", "code"), DAMAGED, ids=[d[0].__name__ for d in DAMAGED])
def test_images_damaged(damage: Callable[[Golden], None], code: str) -> None:
    name = damage.__name__
    device = load(name)
    before = dict(device._contents)
    looked, seen = fsck(device, repair=False)
    assert device._contents == before, "fsck -n wrote"
    assert code in {f.code for f in seen}
    assert not looked.clean
    mended, _ = fsck(device, repair=True)
    assert mended.unrepaired == 0
    ffs_findings(device, repair=True)
    assert ffs_findings(device, repair=False) == []
    assert fsck(device, repair=True)[1] == []
    want, got = tree(load("golden_ffs")), tree(device)
    for path, inode in want.items():
        if not path.startswith(LOST.get(name, ())):
            assert look(got[path]) == look(inode), path


@pytest.mark.parametrize(("damage", "code"), HOPELESS, ids=[d[0].__name__ for d in HOPELESS])
def test_images_hopeless(damage: Callable[[Golden], None], code: str) -> None:
    """What can't be mended is said, and nothing is made worse."""
    device = load(damage.__name__)
    if code == "bad image":
        with pytest.raises(XnError):
            fsck(device, repair=True)
        return
    result, seen = fsck(device, repair=True)
    assert code in {f.code for f in seen}
    assert result.unrepaired
    used = load("golden_ffs")
    raw = {b: d for b, d in used._contents.items() if b >= 60}
    assert sum(device._contents.get(b) != d for b, d in raw.items()) <= 1


def test_images_listed() -> None:
    """The folder, the script and the README name the same images."""
    made = {f.__name__ for f in GOLDEN + GOLDEN_LFS}
    made |= {d.__name__ for d, _ in DAMAGED + HOPELESS}
    made |= {d.name for d in DAMAGED_LFS}
    assert {p.name.removesuffix(".img.xz") for p in HERE.glob("*.img.xz")} == made
    readme = (HERE / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in made)


def test_images_deterministic() -> None:
    assert golden_ffs().disk._contents == golden_ffs().disk._contents
