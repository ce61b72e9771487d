"""Mounting, unmounting, being killed, and what is there afterwards."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import BIN, NOBODY, Disk, as_user, command, good


def test_mount_remembers(disk: Disk) -> None:
    (disk.mnt / "a").write_text("hello")
    disk.remount()
    assert (disk.mnt / "a").read_text() == "hello"
    disk.umount()
    disk.fsck()


def test_mount_names_image_and_type(disk: Disk) -> None:
    text = Path("/proc/self/mountinfo").read_text()
    assert f"{disk.mnt} " in text
    assert f"- fuse.xnfs {disk.image} " in text


def test_mount_readonly(disk: Disk) -> None:
    (disk.mnt / "a").write_text("hello")
    disk.remount("ro")
    before = disk.image.read_bytes()
    assert (disk.mnt / "a").read_text() == "hello"
    with pytest.raises(OSError, match="Read-only"):
        (disk.mnt / "b").write_text("")
    disk.umount()
    assert disk.image.read_bytes() == before


def test_mount_twice_is_refused(disk: Disk, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    done = command("mount.xnfs", disk.image, other)
    assert done.returncode == 32
    assert done.stderr == f"mount.xnfs: {disk.image}: already mounted on {disk.mnt}\n"


def test_mount_foreground_until_sigterm(unmounted: Disk) -> None:
    server = subprocess.Popen([BIN / "mount.xnfs", "-f", unmounted.image, unmounted.mnt])
    try:
        _until(lambda: os.path.ismount(unmounted.mnt))
        (unmounted.mnt / "a").write_text("x")
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()
    assert not os.path.ismount(unmounted.mnt)
    unmounted.fsck()
    unmounted.mount()
    assert (unmounted.mnt / "a").read_text() == "x"


def test_mount_says_which_superblock_it_could_not_use(unmounted: Disk) -> None:
    with open(unmounted.image, "r+b") as image:
        image.write(b"\xff" * 512)
    server = subprocess.Popen(
        [BIN / "mount.xnfs", "-f", unmounted.image, unmounted.mnt],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until(lambda: os.path.ismount(unmounted.mnt))
        server.send_signal(signal.SIGTERM)
        _out, said = server.communicate(timeout=20)
    finally:
        server.kill()
        server.wait()
    assert "the superblock in block 0 is damaged; its other copy was used" in said
    unmounted.fsck()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_mount_signal_keeps_what_open_files_hold(disk: Disk, number: signal.Signals) -> None:
    """Not even RELEASE comes then, and dirty pages of a mapping were never written."""
    mapped = os.open(disk.mnt / "mapped", os.O_CREAT | os.O_RDWR)
    os.ftruncate(mapped, 4096)
    view = mmap.mmap(mapped, 4096)
    view[:5] = b"dirty"
    other = os.open(disk.mnt / "open", os.O_CREAT | os.O_WRONLY)
    os.write(other, b"written")
    os.kill(disk.server(), number)
    disk.wait_dead()
    view.close()
    for fd in (mapped, other):
        with pytest.raises(OSError, match=r"abort|not connected"):
            os.close(fd)
    disk.mount()
    assert (disk.mnt / "mapped").read_bytes()[:5] == b"dirty"
    assert (disk.mnt / "open").read_text() == "written"
    disk.umount()
    disk.fsck()


def test_mount_after_sigkill_at_once(disk: Disk) -> None:
    for turn in range(3):
        with open(disk.mnt / f"synced{turn}", "w") as file:
            file.write("x" * 10000)
            file.flush()
            os.fsync(file.fileno())
        (disk.mnt / f"unsynced{turn}").write_text("y")
        os.kill(disk.server(), signal.SIGKILL)
        # At once: the dead mount is still there, and the dead server may still hold the lock.
        disk.mount()
        for each in range(turn + 1):
            assert (disk.mnt / f"synced{each}").read_text() == "x" * 10000
    disk.umount()
    disk.fsck()


def test_mount_fsync_of_the_root_is_a_sync(disk: Disk) -> None:
    (disk.mnt / "d").mkdir()
    (disk.mnt / "d/f").write_text("x")
    subprocess.run(["sync", disk.mnt], check=True)
    disk.kill()
    disk.mount()
    assert (disk.mnt / "d/f").read_text() == "x"


def test_umount_waits_for_the_image(disk: Disk) -> None:
    (disk.mnt / "big").write_bytes(os.urandom(8 << 20))
    disk.umount()
    with pytest.raises(AssertionError):
        disk.server()


def test_umount_by_image(disk: Disk) -> None:
    good("umount.xnfs", disk.image)
    assert not os.path.ismount(disk.mnt)


def test_umount_busy(disk: Disk) -> None:
    with open(disk.mnt / "a", "w"):
        done = command("umount.xnfs", disk.mnt)
    assert done.returncode == 32
    assert "in use" in done.stderr


def test_umount_lazy(disk: Disk) -> None:
    with open(disk.mnt / "a", "w") as file:
        good("umount.xnfs", "-l", disk.mnt)
        file.write("late")
    disk.wait_dead()
    disk.mount()
    assert (disk.mnt / "a").read_text() == "late"


def test_remount_readonly_and_back(disk: Disk) -> None:
    (disk.mnt / "a").write_text("x")
    good("mount.xnfs", "-o", "remount,ro", disk.image, disk.mnt)
    with pytest.raises(OSError, match="Read-only"):
        (disk.mnt / "a").write_text("y")
    disk_now = disk.image.read_bytes()
    assert (disk.mnt / "a").read_text() == "x"
    time.sleep(1.5)  # time enough for the background to do something
    assert disk.image.read_bytes() == disk_now
    good("mount.xnfs", "-o", "remount,rw", disk.image, disk.mnt)
    (disk.mnt / "a").write_text("z")
    disk.remount()
    assert (disk.mnt / "a").read_text() == "z"


@pytest.fixture
def helpers() -> Iterator[None]:
    """What `make install` links: mount(8) looks nowhere else."""
    made = []
    for name in ("mount.fuse.xnfs", "umount.fuse.xnfs"):
        link = Path("/sbin") / name
        if not link.exists():
            link.symlink_to(BIN / name)
            made.append(link)
    yield
    for link in made:
        link.unlink()


@pytest.mark.usefixtures("helpers")
def test_mount_by_mount8(unmounted: Disk) -> None:
    kind = ["-t", "fuse.xnfs"]
    options = ["-o", "noatime,nofail,x-systemd.automount"]
    subprocess.run(["mount", *kind, *options, unmounted.image, unmounted.mnt], check=True)
    (unmounted.mnt / "a").write_text("x")
    subprocess.run(["mount", "-o", "remount,ro", unmounted.mnt], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (unmounted.mnt / "a").write_text("y")
    subprocess.run(["umount", unmounted.mnt], check=True)
    unmounted.fsck()


def test_mount_options_are_checked(unmounted: Disk) -> None:
    done = command("mount.xnfs", "-o", "rw,nonsense", unmounted.image, unmounted.mnt)
    assert done.returncode == 1
    assert "unknown mount option 'nonsense'" in done.stderr


def test_mount_small_cache(unmounted: Disk) -> None:
    unmounted.mount("cache=2m")
    data = os.urandom(8 << 20)
    (unmounted.mnt / "big").write_bytes(data)
    assert (unmounted.mnt / "big").read_bytes() == data
    unmounted.remount("cache=2m")
    assert (unmounted.mnt / "big").read_bytes() == data


def test_mount_as_somebody_else(unmounted: Disk) -> None:
    """Without root, through fusermount."""
    unmounted.image.unlink()
    os.chown(unmounted.image.parent, NOBODY, NOBODY)
    os.chown(unmounted.mnt, NOBODY, NOBODY)
    # The interpreter may lie where only root can read: it loads everything before it steps down.
    script = f"""if True:
        import os, sys, xnfs_tools.mkfs, xnfs_tools.mount, libfs.fuse, encodings.idna
        libfs.fuse.load()
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        os.chdir(sys.argv[1])
        xnfs_tools.mkfs.main([sys.argv[2], "64m"])
        sys.exit(xnfs_tools.mount.main(sys.argv[2:]))"""
    arguments: list[str | Path] = [unmounted.image.parent, unmounted.image.name, unmounted.mnt.name]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        # This machine keeps FUSE for root. That, too, has to be said in one line.
        assert done.returncode == 32
        assert len(done.stderr.splitlines()) == 1
        return
    assert (done.returncode, done.stderr) == (0, "")
    done = as_user("echo x > mnt/f && cat mnt/f", unmounted.mnt.parent)
    assert (done.stdout, done.stderr) == ("x\n", "")
    subprocess.run(["umount", unmounted.mnt], check=True)
    unmounted.wait_dead()
    unmounted.fsck()


def _until(true: object) -> None:
    assert callable(true)
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it does not happen")
