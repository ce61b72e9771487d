"""A NoteFs mounted for real, with the lines that the example shows."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from xnfs import FileDevice
from xnfs.disk.fsck import check_image

TOP = Path(__file__).parents[2]


@pytest.mark.fuse
def test_notefs_is_mounted(tmp_path: Path) -> None:
    image, directory = tmp_path / "notes.img", tmp_path / "mnt"
    directory.mkdir()
    for turn in range(2):
        command = [sys.executable, "-m", "examples.mount_notefs", str(image), str(directory)]
        server = subprocess.Popen(command, cwd=TOP)
        try:
            while not directory.is_mount():
                assert server.poll() is None
                time.sleep(0.02)
            if not turn:
                (directory / "below").mkdir()
                (directory / "below" / "file").write_bytes(b"text" * 10_000)
                (directory / "link").hardlink_to(directory / "below" / "file")
                (directory / "below" / "file").rename(directory / "file")
            assert (directory / "file").read_bytes() == b"text" * 10_000
            assert (directory / "link").stat().st_nlink == 2
        finally:
            subprocess.run(["fusermount", "-u", str(directory)], check=True)
            assert server.wait() == 0
    device = FileDevice(str(image), readonly=True)
    assert check_image(device, repair=False, report=print).clean
    device.close()
