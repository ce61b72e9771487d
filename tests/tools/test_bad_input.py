"""What no image is, or no good one: one clear line, the right exit status, and nothing changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Done, command

#: Each command that opens an image, with the status that its family has for "it can't be done".
COMMANDS: dict[str, tuple[list[str], int]] = {
    "mount.xnfs": (["-f", "IMAGE", "DIR"], 32),
    "fsck.xnfs": (["-n", "IMAGE"], 8),
    "dumpfs.xnfs": (["IMAGE"], 1),
    "debugfs.xnfs": (["-R", "ls", "IMAGE"], 1),
    "xnfs": (["ls", "IMAGE"], 1),
}


def _newer(raw: bytearray) -> None:
    """A superblock of format version 99, whole in itself."""
    for at in (0, len(raw) - 4096):
        raw[at + 8] = 99
        body = bytes(raw[at + 16 : at + 32]) + bytes(8) + bytes(raw[at : at + 508])
        raw[at + 508 : at + 512] = zlib.crc32(body).to_bytes(4, "little")


def _feature(raw: bytearray) -> None:
    for at in (0, len(raw) - 4096):
        raw[at + 112 + 3] = 0x40
        body = bytes(raw[at + 16 : at + 32]) + bytes(8) + bytes(raw[at : at + 508])
        raw[at + 508 : at + 512] = zlib.crc32(body).to_bytes(4, "little")


def _zero(raw: bytearray) -> None:
    raw[:] = bytes(len(raw))


def _truncate(raw: bytearray) -> None:
    del raw[len(raw) // 2 :]


def _tiny(raw: bytearray) -> None:
    del raw[100:]


def _empty(raw: bytearray) -> None:
    del raw[:]


def _foreign(raw: bytearray) -> None:
    raw[:] = bytes(1080) + b"\x53\xef" + bytes(len(raw) - 1082)


def _superblocks(raw: bytearray) -> None:
    raw[40] ^= 1
    raw[len(raw) - 4096 + 40] ^= 1


DAMAGES: list[tuple[Callable[[bytearray], None], str]] = [
    (_newer, "newer"),
    (_feature, "features"),
    (_zero, "all zeros"),
    (_truncate, "truncated"),
    (_tiny, "smaller than one block"),
    (_empty, "smaller than one block"),
    (_foreign, "ext2, ext3 or ext4"),
    (_superblocks, "checksum is wrong"),
]


def _run(name: str, image: Path, work: Path) -> tuple[Done, int]:
    arguments, status = COMMANDS[name]
    (work / "mnt").mkdir(exist_ok=True)
    places = {"IMAGE": str(image), "DIR": str(work / "mnt")}
    return command(name, *(places.get(word, word) for word in arguments)), status


def _check(name: str, image: Path, work: Path, words: str) -> None:
    done, status = _run(name, image, work)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith(f"{name}: ")
    assert words in lines[0]
    assert done.stdout == ""
    assert done.returncode == status


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d[0].__name__.strip("_"))
def test_bad_image(
    name: str, damage: tuple[Callable[[bytearray], None], str], image: Path, tmp_path: Path
) -> None:
    spoil, words = damage
    raw = bytearray(image.read_bytes())
    spoil(raw)
    image.write_bytes(raw)
    _check(name, image, tmp_path, words)
    assert image.read_bytes() == raw


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_path(name: str, image: Path, tmp_path: Path) -> None:
    _check(name, tmp_path / "missing", tmp_path, "No such file or directory")
    _check(name, tmp_path, tmp_path, "neither a regular file nor a block device")
    os.mkfifo(tmp_path / "fifo")
    _check(name, tmp_path / "fifo", tmp_path, "neither a regular file nor a block device")
    _check(name, image / "below", tmp_path, "Not a directory")


@pytest.mark.parametrize("name", COMMANDS)
def test_image_in_use(name: str, image: Path, tmp_path: Path) -> None:
    with open(image, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _check(name, image, tmp_path, "in use")


def test_image_readonly_for_us(image: Path, tmp_path: Path) -> None:
    """Root may write whatever the mode says, so the host's file system is read-only here."""
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", there], check=True)
    try:
        shutil.copyfile(image, there / "disk.xnfs")
        subprocess.run(["mount", "-o", "remount,ro", there], check=True)
        _check("mount.xnfs", there / "disk.xnfs", tmp_path, "Read-only file system")
        done = command("fsck.xnfs", "-f", "-y", there / "disk.xnfs")
        assert (done.returncode, done.stdout) == (8, "")
        assert "Read-only file system" in done.stderr
        done = command("xnfs", "put", there / "disk.xnfs", image, "/x")
        assert done.returncode == 1
        assert command("fsck.xnfs", "-n", there / "disk.xnfs").returncode == 0
        assert command("xnfs", "cat", there / "disk.xnfs", "hello").stdout == "hello\n"
    finally:
        subprocess.run(["umount", there], check=True)


def test_first_superblock_lost_is_no_loss(image: Path) -> None:
    raw = bytearray(image.read_bytes())
    raw[:4096] = bytes(4096)
    image.write_bytes(raw)
    assert command("xnfs", "cat", image, "hello").stdout == "hello\n"
    done = command("fsck.xnfs", "-f", "-y", image)
    assert done.returncode == 1, done
    assert image.read_bytes()[:8] == b"\x89XNFS\r\n\x1a"
    assert command("fsck.xnfs", "-f", "-n", image).returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["mkfs.xnfs"],
        ["mkfs.xnfs", "--nonsense", "x"],
        ["mount.xnfs", "x"],
        ["mount.xnfs", "-z", "x", "y"],
        ["umount.xnfs"],
        ["fsck.xnfs"],
        ["fsck.xnfs", "-n", "-y", "x"],
        ["dumpfs.xnfs"],
        ["debugfs.xnfs", "-R"],
        ["debugfs.xnfs", "-R", "nonsense", "x"],
        ["xnfs"],
        ["xnfs", "nonsense"],
        ["xnfs", "cat"],
    ],
    ids=" ".join,
)
def test_usage(words: list[str]) -> None:
    status = {"mkfs.xnfs": 1, "mount.xnfs": 1, "umount.xnfs": 1, "fsck.xnfs": 16}.get(words[0], 2)
    done = command(*words)
    assert done.returncode == status
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [*COMMANDS, "mkfs.xnfs", "umount.xnfs"])
def test_help_and_version(name: str) -> None:
    assert command(name, "--help").returncode == 0
    assert command(name, "--version").stdout.startswith(f"{name} 0.")


def test_mount_on_what_is_no_directory(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, words in (("file", "not a directory"), ("missing", "No such file")):
        done = command("mount.xnfs", image, tmp_path / place)
        assert done.returncode == 32
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_mount_names_fsck_for_a_damaged_image(image: Path, tmp_path: Path) -> None:
    raw = bytearray(image.read_bytes())
    _superblocks(raw)
    image.write_bytes(raw)
    (tmp_path / "mnt").mkdir()
    for options in ([], ["-f"]):
        done = command("mount.xnfs", *options, image, tmp_path / "mnt")
        assert done.returncode == 32
        assert f"fsck.xnfs {image}" in done.stderr


def test_umount_of_what_is_not_mounted(tmp_path: Path) -> None:
    done = command("umount.xnfs", tmp_path)
    assert done.returncode == 32
    assert "no xnfs file system is mounted there" in done.stderr


def test_mount_unknown_root(image: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = command("mount.xnfs", "-o", "root=other", image, tmp_path / "mnt")
    assert done.returncode == 32
    assert "no file system named 'other'" in done.stderr
    assert "main" in done.stderr
