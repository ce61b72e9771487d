"""XCP: copies within FFS, against what `cp` would make."""

from __future__ import annotations

import errno
import itertools
import random
import stat
from collections.abc import Callable
from typing import Any

import pytest

from libfs.ffs import bulk, fill
from libfs.ffs import format as f
from libfs.ffs.bulk import plan
from libfs.ffs.inode import Vnode
from libfs.posix import Ino, Posix, User
from libfs.posix.copying import How
from libfs.posix.memory import MemoryFs
from tests.conformance.support import content, errno_of, names_in, refuses
from tests.ffs.copying_kit import A, Lab, R, fill_with_everything
from tests.ffs.support import ALICE, BOB, ROOT
from xnfs import MemoryDevice
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice

Patch = pytest.MonkeyPatch


# --- the copy is the same


@pytest.mark.parametrize(
    ("how", "frames", "flags", "log_blocks", "data"),
    [
        (R, 4096, 0, None, 1024),
        (A, 4096, f.F_GROUPING, None, 16),
        (A, 300, 0, 16, 1024),
    ],
    ids=["plain", "grouped-small-changes", "few-frames"],
)
def test_copy_of_everything(
    how: How, frames: int, flags: int, log_blocks: int | None, data: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(fill, "DATA", data)
    lab = Lab(frames=frames, flags=flags, log_blocks=log_blocks)
    fill_with_everything(lab, "from", many=130)
    want = lab.show("from", archive=how.archive)
    for _turn in ("cached", "cold"):
        lab.copy("from", f"to-{_turn}", how)
        assert lab.show(f"to-{_turn}", archive=how.archive) == want
        lab.remount()
        assert lab.show(f"to-{_turn}", archive=how.archive) == want
    assert sorted(names_in(lab.posix, lab.root)) == [b"from", b"to-cached", b"to-cold"]
    # A copy is a directory as any other: it can be added to, and emptied.
    for number in range(200):
        lab.file(f"to-cold/many/more-{number}")
    assert len(names_in(lab.posix, lab.at("to-cold/many"))) == 330
    assert lab.findings() == []


def test_copy_of_a_directory_with_indexes(monkeypatch: Patch) -> None:
    """With leaves that are hardly filled there are indexes below a table soon."""
    monkeypatch.setattr(bulk, "_FULL", 0.04)
    lab = Lab()
    lab.directory("from")
    names = [b"%x" % (number * 7919) for number in range(600)]
    for name in names:
        lab.posix.mknod(ROOT, lab.at("from"), name, stat.S_IFREG | 0o600)
    lab.copy("from", "to")
    assert sorted(names_in(lab.posix, lab.at("to"))) == sorted(names)
    table = lab.fs._dirs.table(lab.fs.volume.directory(lab.at("to")))
    assert {table.kind(slot) for slot in table.used()} == {f.P_LEAF, f.P_INDEX}
    assert lab.findings() == []
    for name in names[::4]:
        lab.posix.unlink(ROOT, lab.at("to"), name)
    for name in names[::4]:
        lab.posix.mknod(ROOT, lab.at("to"), name + b"'", stat.S_IFREG | 0o600)
    assert lab.findings() == []


def test_copy_plans_cover_every_hash_once() -> None:
    for count in (1, 64, 65, 113, 5000, 30_000):
        v = Vnode(7, [0] * 20)
        parts = plan(v, (b"%d" % number for number in range(count)))
        assert sum(len(part.items) for part in parts) == count
        for before, after in itertools.pairwise(parts):
            assert before.hi < after.lo
        for part in parts:
            assert part.items == sorted(part.items)
            assert part.lo <= part.items[0][0] <= part.items[-1][0] <= part.hi
            assert len(part.items) <= (96 if part.levels >= 0 else 64)


def test_copy_and_source_part_when_written() -> None:
    lab = Lab()
    lab.file("a", b"a" * 100_000)
    lab.copy("a", "b")
    for path, at, text in (("a", 5000, b"source"), ("b", 90_000, b"target"), ("b", 99_998, b"end")):
        fh = lab.posix.open(ROOT, lab.at(path), 2)
        lab.posix.write(fh, at, text)
        lab.posix.release(fh)
    want = bytearray(b"a" * 100_000), bytearray(b"a" * 100_000)
    want[0][5000:5006] = b"source"
    want[1][90_000:90_006], want[1][99_998:] = b"target", b"end"
    for _turn in range(2):
        assert content(lab.posix, lab.at("a")) == bytes(want[0])
        assert content(lab.posix, lab.at("b")) == bytes(want[1])
        lab.remount()


def test_copy_written_when_no_frame_is_left() -> None:
    """A block that shares its frame needs one of its own: an old page has to go for it."""
    lab = Lab(frames=256)
    lab.file("a", b"a" * 200_000)
    lab.copy("a", "b")
    taken = lab.xn._registry._frames
    hog = taken.alloc("test", taken.free_frames)
    fh = lab.posix.open(ROOT, lab.at("b"), 2)
    lab.posix.write(fh, 10, b"target")
    lab.posix.release(fh)
    taken.free(hog)
    assert content(lab.posix, lab.at("b")) == b"a" * 10 + b"target" + b"a" * (200_000 - 16)
    assert content(lab.posix, lab.at("a")) == b"a" * 200_000


# --- who may, and what it becomes


def test_copy_belongs_to_who_makes_it() -> None:
    lab = Lab()
    lab.directory("src", mode=0o755)
    lab.directory("src/d1", mode=0o750)
    lab.directory("src/d2")
    script = lab.file("src/f", b"text", mode=0o755)
    lab.posix.setattr(ROOT, script, mode=0o6775)
    lab.posix.setxattr(ROOT, script, b"user.x", b"1")
    lab.posix.setxattr(ROOT, script, b"trusted.x", b"1")
    lab.posix.setattr(ROOT, lab.at("src/d1"), mode=0o555)
    alices = lab.directory("alices")
    lab.posix.setattr(ROOT, alices, uid=ALICE.uid, gid=44, mode=0o2755)
    lab.copy("src", "alices/r", How(recursive=True, umask=0o027), ALICE)
    lab.copy("src", "alices/a", A, ALICE)

    def seen(path: str) -> tuple[int, int, int]:
        attr = lab.posix.getattr(ROOT, lab.at(path))
        return attr.uid, attr.gid, attr.mode & 0o7777

    assert seen("alices/r") == (1000, 44, 0o2750)
    assert seen("alices/r/d1") == (1000, 44, 0o2550)
    assert seen("alices/r/f") == (1000, 44, 0o750)
    assert seen("alices/a") == (1000, 1000, 0o755)
    assert seen("alices/a/d1") == (1000, 1000, 0o555)
    assert seen("alices/a/f") == (1000, 1000, 0o775)
    assert lab.posix.listxattr(ROOT, lab.at("alices/r/f")) == []
    assert lab.posix.listxattr(ROOT, lab.at("alices/a/f")) == [b"user.x"]
    assert lab.findings() == []


def test_copy_inherits_the_default_list() -> None:
    lab = Lab()
    fill_with_everything(lab, "src", many=3)
    home = lab.directory("home")
    entries = [
        (1, 7, 2**32 - 1),
        (2, 5, 77),
        (4, 5, 2**32 - 1),
        (16, 7, 2**32 - 1),
        (32, 0, 2**32 - 1),
    ]
    value = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, perm, who in entries
    )
    lab.posix.setxattr(ROOT, home, b"system.posix_acl_default", value)
    lab.copy("src", "home/copy")
    for path, perm in (("home/copy/size-1", 0o640), ("home/copy/sub", 0o750)):
        by_hand = lab.posix.getattr(ROOT, lab.at(path))
        assert by_hand.mode & 0o777 == perm
        assert b"system.posix_acl_access" in lab.posix.listxattr(ROOT, by_hand.ino)
    assert lab.posix.getxattr(ROOT, lab.at("home/copy/sub"), b"system.posix_acl_default") == value


@pytest.mark.parametrize(("path", "mode"), [("src/f", 0o600), ("src/d", 0o711), ("src/d", 0o744)])
def test_copy_needs_the_right_to_read(path: str, mode: int) -> None:
    lab = Lab()
    lab.directory("src")
    lab.directory("src/d")
    lab.file("src/d/g", b"secret")
    lab.file("src/f", b"secret")
    lab.posix.setattr(ROOT, lab.at(path), mode=mode)
    lab.posix.setattr(ROOT, lab.root, mode=0o777)
    free = lab.posix.statfs().bfree
    with refuses(errno.EACCES):
        lab.copy("src", "to", R, BOB)
    assert names_in(lab.posix, lab.root) == [b"src"]
    lab.posix.sync()
    assert lab.posix.statfs().bfree == free
    lab.copy("src", "to", R, ROOT)


def test_copy_needs_the_right_to_make() -> None:
    lab = Lab()
    lab.file("f", b"1")
    lab.directory("d")
    with refuses(errno.EACCES):
        lab.copy("f", "d/f", R, BOB)
    lab.posix.setattr(ROOT, lab.at("d"), mode=0o1777)
    lab.file("d/mine", b"root's")
    with refuses(errno.EPERM):  # sticky
        lab.copy("f", "d/mine", R, BOB)
    lab.copy("f", "d/f", R, BOB)
    lab.posix.mknod(ROOT, lab.root, b"device", stat.S_IFBLK | 0o666, 0x700)
    with refuses(errno.EPERM):
        lab.copy("device", "d/device", R, BOB)
    assert sorted(names_in(lab.posix, lab.at("d"))) == [b"f", b"mine"]


def test_copy_what_makes_no_sense() -> None:
    lab = Lab()
    lab.directory("d")
    lab.directory("d/e")
    lab.file("f", b"f")
    lab.file("g", b"g")
    plain = How()
    cases: list[tuple[str, str, How, int]] = [
        ("d", "new", plain, errno.EISDIR),
        ("d", "d/e/new", R, errno.EINVAL),
        ("d", "d/new", R, errno.EINVAL),
        ("d", "f", R, errno.EEXIST),
        ("d/e", "d", R, errno.EEXIST),
        ("f", "d", R, errno.EISDIR),
        ("f", "f", R, errno.EEXIST),
        ("f", "x" * 256, R, errno.ENAMETOOLONG),
        ("f", "..", R, errno.EEXIST),
    ]
    for source, target, how, number in cases:
        assert errno_of(lambda: lab.copy(source, target, how)) == number, (source, target)  # noqa: B023
    assert sorted(names_in(lab.posix, lab.root)) == [b"d", b"f", b"g"]
    lab.copy("f", "g", plain)
    assert content(lab.posix, lab.at("g")) == b"f"
    lab.posix.remount(readonly=True)
    with refuses(errno.EROFS):
        lab.copy("f", "h")
    memory = Posix(MemoryFs())
    with refuses(errno.EOPNOTSUPP):
        memory.copy_tree(ROOT, memory.root, memory.root, b"x", R)


# --- when it goes wrong


def test_copy_that_does_not_fit_leaves_nothing() -> None:
    lab = Lab(blocks=1600)
    lab.directory("src")
    for number in range(30):
        lab.file(f"src/{number}", bytes([number + 1]) * 120_000)
    lab.posix.sync()
    free = lab.posix.statfs().bfree
    with refuses(errno.ENOSPC):
        lab.copy("src", "to")
    assert names_in(lab.posix, lab.root) == [b"src"]
    lab.posix.sync()
    assert lab.posix.statfs().bfree == free
    assert lab.findings() == []


def test_copy_into_scattered_free_blocks() -> None:
    """No run of free blocks is longer than one."""
    lab = Lab(blocks=1024)
    lab.directory("src")
    for number in range(12):
        lab.file(f"src/{number}", bytes([number + 1]) * 30_000)
    lab.directory("wall")
    made = 0
    while errno_of(lambda: lab.file(f"wall/{made}", b"w")) == 0:  # noqa: B023
        made += 1
    for number in range(0, made, 2):
        lab.posix.unlink(ROOT, lab.at("wall"), b"%d" % number)
    lab.posix.sync()
    want = lab.show("src")
    lab.copy("src", "to")
    assert lab.show("to") == want
    assert lab.findings() == []


def test_copy_given_up_leaves_nothing() -> None:
    lab = Lab()
    fill_with_everything(lab, "src", many=120)

    class Stopped(Exception):
        pass

    steps = itertools.count()

    def count() -> None:
        next(steps)

    lab.copy("src", "all", R, ROOT, count)
    many = next(steps)
    assert many > 10
    lab = Lab()
    fill_with_everything(lab, "src", many=120)
    free = lab.posix.statfs().bfree
    for most in range(0, many, 3):
        steps = itertools.count()

        def pause(steps: Any = steps, most: int = most) -> None:
            if next(steps) == most:
                raise Stopped

        with pytest.raises(Stopped):
            lab.copy("src", "to", R, ROOT, pause)
        assert names_in(lab.posix, lab.root) == [b"src"]
    lab.posix.sync()
    assert lab.posix.statfs().bfree == free


def test_copy_disturbed() -> None:
    """What somebody else does in the unfinished copy is an error, not a mixture."""
    lab = Lab()
    lab.directory("src")
    lab.directory("src/d")
    for number in range(300):
        lab.file(f"src/d/{number}", b"text")

    def add() -> None:
        there = errno_of(lambda: lab.at(".xnfs-cp-0/to/d")) == 0
        if there and errno_of(lambda: lab.at(".xnfs-cp-0/to/d/foreign")):
            lab.file(".xnfs-cp-0/to/d/foreign", b"")

    def remove() -> None:
        if errno_of(lambda: lab.at(".xnfs-cp-0/to/d")) == 0:
            lab.posix.rmdir(ROOT, lab.at(".xnfs-cp-0/to"), b"d")

    for disturb in (add, remove):
        with pytest.raises(OSError) as caught:
            lab.copy("src", "to", R, ROOT, disturb)
        assert caught.value.errno in (errno.EBUSY, errno.ESTALE)
        assert names_in(lab.posix, lab.root) == [b"src"]
    assert lab.findings() == []


def test_copy_sources_may_change_meanwhile() -> None:
    lab = Lab()
    lab.directory("src")
    for number in range(5):
        lab.directory(f"src/{number}")
        lab.file(f"src/{number}/f", b"%d" % number * 100_000)
    rng = random.Random(3)
    counter = itertools.count()

    def change() -> None:
        number = next(counter)
        victim = lab.at(f"src/{rng.randrange(5)}")
        for name in names_in(lab.posix, victim)[:1]:
            lab.posix.unlink(ROOT, victim, name)
        lab.posix.mknod(ROOT, victim, b"new-%d" % number, stat.S_IFREG | 0o600)

    assert errno_of(lambda: lab.copy("src", "to", R, ROOT, change)) in (
        *(0, errno.ENOENT, errno.ESTALE),
    )
    assert lab.findings() == []


def test_copy_when_the_disk_fails() -> None:
    """An error is told; nothing has the name but a whole copy."""
    base = Lab(blocks=1024)
    fill_with_everything(base, "src", many=10)
    want = base.show("src")
    base.close()
    assert isinstance(base.device, MemoryDevice)
    failed = 0
    for number in range(0, 60, 3):
        device = FaultingDevice(base.device.fork())
        lab = Lab(device, frames=400)
        device.plant(Fault("read" if number % 2 else "write", "eio", after=number))
        code = errno_of(lambda: lab.copy("src", "to"))  # noqa: B023
        failed += code == errno.EIO
        lab = Lab(device.below)
        if errno_of(lambda: lab.at("to")) == 0:  # noqa: B023
            assert lab.show("to") == want
    assert failed > 3


# --- power cuts


def left_by_a_cut(lab: Lab) -> Lab:
    """A copy into a directory was under way, and what it had made was durable."""
    steps, images = itertools.count(), []

    def pause() -> None:
        if next(steps) == 5:
            lab.posix.sync()
            assert isinstance(lab.device, MemoryDevice)
            images.append(lab.device.fork())

    lab.copy("src", "into/copy", R, ROOT, pause)
    after = Lab(images[0])
    assert b".xnfs-cp-0" in names_in(after.posix, after.root)
    return after


def test_copy_that_a_cut_has_ended_is_removed_by_the_next_mount() -> None:
    lab = Lab()
    fill_with_everything(lab, "src", many=100)
    lab.directory("into")
    lab.posix.sync()
    free = lab.posix.statfs().bfree
    lab = left_by_a_cut(lab)
    for _ in range(30):
        lab.posix.idle()
    assert sorted(names_in(lab.posix, lab.root)) == [b"into", b"src"]
    lab.posix.sync()
    assert lab.posix.statfs().bfree == free
    assert lab.findings() == []


def test_copy_goes_on_while_what_was_left_is_removed() -> None:
    lab = Lab()
    fill_with_everything(lab, "src", many=100)
    lab.directory("into")
    lab = left_by_a_cut(lab)
    lab.copy("src", "copy", R, ROOT, lab.posix.idle)
    assert sorted(names_in(lab.posix, lab.root)) == [b"copy", b"into", b"src"]


def test_directory_of_such_a_name_that_is_no_copy_stays() -> None:
    lab = Lab()
    lab.directory(".xnfs-cp-0")
    lab.file(".xnfs-cp-0/mine", b"mine")
    lab.remount()
    for _ in range(10):
        lab.posix.idle()
    lab.file("f", b"text")
    lab.copy("f", "g")
    assert sorted(names_in(lab.posix, lab.root)) == [b".xnfs-cp-0", b"f", b"g"]
    assert names_in(lab.posix, lab.at(".xnfs-cp-0")) == [b"mine"]


def cuts(sync: Callable[[Lab], None], many: int) -> tuple[int, int]:
    """Cut the power at every write of a copy: (disks without it, disks with all of it)."""
    base = Lab(blocks=1024, log_blocks=32)
    fill_with_everything(base, "src", many=many)
    want = base.show("src", archive=True)
    base.close()
    assert isinstance(base.device, MemoryDevice)
    recording = RecordingDevice(base.device.fork())
    lab = Lab(recording, frames=300)
    start = len(recording.events)
    lab.copy("src", "to", A)
    sync(lab)
    rng = random.Random(1)
    seen = [0, 0]
    last = len(recording.events)
    for cut in (*range(start, last, 9), *range(last - 3, last + 1)):
        pending = [event.id for event in recording.pending(cut)]
        for share in (0, 0.3, 0.9, 1):
            keep = {event for event in pending if rng.random() < share}
            after = Lab(recording.image_at(cut, keep))
            there = errno_of(lambda: after.at("to")) == 0  # noqa: B023
            seen[there] += 1
            if there:
                assert after.show("to", archive=True) == want
            assert after.show("src", archive=True) == want
            if share == 0.3:
                assert [x for x in after.findings() if not x.code.endswith("leak")] == []
            after.close()
    return seen[0], seen[1]


def test_copy_cut_at_every_write_is_whole_or_not_there() -> None:
    without, with_all = cuts(lambda lab: lab.posix.sync(), many=20)
    assert without > 20
    assert with_all >= 4


# --- how it is done


@pytest.mark.parametrize("user", [ROOT, ALICE])
def test_copy_asks_the_kernel_once_for_a_directory(monkeypatch: Patch, user: User) -> None:
    lab = Lab()
    lab.directory("src", mode=0o755)
    lab.posix.setattr(ROOT, lab.root, mode=0o777)
    for number in range(57):
        lab.file(f"src/{number}", b"x" * (100 * number), mode=0o644)
    for number in range(3):
        lab.directory(f"src/d{number}", mode=0o755)
    changes = 0
    change = lab.xn.change

    def counted(*arguments: Any, **more: Any) -> None:
        nonlocal changes
        changes += 1
        change(*arguments, **more)

    monkeypatch.setattr(lab.xn, "change", counted)
    lab.copy("src", "to", R, user)
    # Passing directory, the copy's own, its 60 inodes, the name, the end of the passing directory.
    assert changes == 5


def test_copy_reads_each_block_once_and_in_the_order_of_the_disk() -> None:
    base = Lab()
    base.directory("src")
    names = [f"src/{number}" for number in range(60)]
    random.Random(5).shuffle(names)
    for name in names:  # written by turns, so that no file's blocks lie in the order of names
        base.file(name, b"x" * 9000)
    base.close()
    device = CountingDevice(base.device)
    lab = Lab(device)
    lab.show("src")
    lab.copy("src", "warm")
    before = device.counts.blocks_read
    lab.copy("src", "to")
    assert device.counts.blocks_read == before
    lab.remount()
    reads: list[int] = []
    read = device.read

    def noted(start: int, views: Any) -> None:
        reads.append(start)
        read(start, views)

    device.read = noted  # type: ignore[method-assign]
    blocks = {b for name in names for b in _data_of(lab, lab.at(name))}
    reads.clear()
    lab.copy("src", "to-2")
    of_files = [start for start in reads if start in blocks]
    assert of_files == sorted(of_files)
    assert len(of_files) == len(set(of_files))


def _data_of(lab: Lab, ino: Ino) -> list[int]:
    """The first blocks of the extents of a file."""
    v = lab.fs.volume.vnode(ino)
    return [entry[3] for entry in lab.fs._map.root(v).entries]
