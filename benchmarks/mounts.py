"""Make an image, mount it, unmount it: xnfs and its peer, the same way for every benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    """Run a command; its output matters only when it fails."""
    words = [str(c) for c in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit {done.returncode}: {done.stderr.strip()[-400:]}")


class Mount:
    """One mounted image of a file system, in its own folder."""

    name = ""

    def __init__(self, folder: Path, mib: int) -> None:
        self.image = folder / f"{self.name}.img"
        self.dir = folder / self.name
        self.dir.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        self.format()
        self.mount()

    def format(self) -> None:
        """Make the file system."""
        raise NotImplementedError

    def mount(self) -> None:
        """Mount it; usable on return."""
        raise NotImplementedError

    def unmount(self) -> None:
        """Unmount it; the image is closed on return."""
        raise NotImplementedError

    def remount(self) -> None:
        """Forget everything cached, on both sides of FUSE."""
        self.unmount()
        if os.geteuid() == 0:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        self.mount()


class Xnfs(Mount):
    """This project, through its commands."""

    name = "xnfs"
    options = ""

    def format(self) -> None:
        run(BIN / "mkfs.xnfs", "-F", self.image)

    def mount(self) -> None:
        extra = ["-o", self.options] if self.options else []
        run(BIN / "mount.xnfs", self.image, self.dir, *extra)

    def unmount(self) -> None:
        run(BIN / "umount.xnfs", self.dir)


class Fuse2fs(Mount):
    """ext4 on an image, in C: the peer of the same kind."""

    name = "fuse2fs"

    def format(self) -> None:
        run("mkfs.ext4", "-q", "-F", self.image)

    def mount(self) -> None:
        options = "fakeroot,rw" if os.geteuid() else "rw"
        run("fuse2fs", self.image, self.dir, "-o", options)
        wait(lambda: os.path.ismount(self.dir))

    def unmount(self) -> None:
        run("fusermount", "-u", self.dir)
        wait(lambda: not _open(self.image))

    @staticmethod
    def available() -> bool:
        """True if the peer is installed."""
        return shutil.which("fuse2fs") is not None


def wait(ready: object, seconds: float = 120) -> None:
    """Poll until `ready()` is true."""
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        if time.monotonic() > end:
            raise SystemExit("gave up waiting for a mount")
        time.sleep(0.01)


def _open(path: Path) -> bool:
    """True if any process still has the file open."""
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.path.samefile(fd, path):
                return True
        except OSError:
            continue
    return False
