"""The file systems under comparison: make one on a fresh image, mount it, unmount it, all alike.

    python benchmarks/peers.py remount NAME FOLDER

That command is for a benchmark that wants a cold start in the middle: what is mounted is found in
the folder again. Does not: measure anything.

    NAME                 what it is
    xnfs                 this project, kernel transport (the default of mount.xnfs)
    xnfs-fusepy          this project, libfuse 2 transport
    fuse2fs              ext4 in C, in user space, through libfuse
    ext4                 the host kernel's own, on a loop device
    passthrough-fusepy   a directory of such an ext4, through fusepy
    passthrough-pyfuse3  the same through pyfuse3

Guarantees: `destroy` leaves no mount, loop device, server or image behind, whatever state the peer
is in.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

BIN = Path(sys.executable).parent
HERE = Path(__file__).resolve().parent
PATIENCE = 120.0


def run(*command: str | Path) -> None:
    """Run a command; its output matters only when it fails."""
    words = [str(c) for c in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit {done.returncode}: {done.stderr.strip()[-400:]}")


def wait(ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Poll until `ready()` is true."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise SystemExit("gave up waiting for a mount")
        time.sleep(0.01)


def drop_caches(what: int = 3) -> None:
    """Of the host kernel: 1 the page cache, 2 names and inodes, 3 both. Nothing if not root."""
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text(f"{what}\n")


class Peer:
    """One file system on its own image in `folder`, mounted at `dir`."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / f"{self.name}.img"
        self.dir = folder / self.name

    def create(self, mib: int) -> None:
        """A fresh image, formatted and mounted."""
        self.prepare(mib)
        self.mount()

    def prepare(self, mib: int) -> None:
        """A fresh image, formatted."""
        self.dir.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        self.format()

    def destroy(self) -> None:
        """Unmount, by force if it must be, end the server, delete the image."""
        for where in reversed(self.mounts()):
            if os.path.ismount(where) or dead(where):
                subprocess.run([*unmounter(lazy=True), where], capture_output=True, check=False)
        with contextlib.suppress(SystemExit):
            wait(lambda: not holders(self.image), 10)
        for pid in holders(self.image):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for device in loops(self.image):
            subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
        self.image.unlink(missing_ok=True)

    def mounts(self) -> list[Path]:
        """What `mount` mounts, in this order."""
        return [self.dir]

    @classmethod
    def missing(cls) -> str:
        """What must be installed or allowed for this peer; "" if nothing."""
        return ""

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
        drop_caches()
        self.mount()

    def serve(self) -> subprocess.Popen[bytes]:
        """Mount with the server as our own child, so that it can be looked at by number."""
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(self.server(), stdout=quiet, stderr=quiet, start_new_session=True)
        wait(lambda: os.path.ismount(self.dir) or server.poll() is not None)
        if server.poll() is not None:
            raise SystemExit(f"{self.name}: the server ended with {server.returncode}")
        return server

    def server(self) -> list[str | Path]:
        """The command that serves in the foreground."""
        raise NotImplementedError


class Xnfs(Peer):
    """This project, through its commands."""

    name = "xnfs"
    title = "xnfs, FFS"
    options = "transport=kernel"

    kind = "ffs"

    def format(self) -> None:
        run(BIN / "mkfs.xnfs", "-F", "-t", self.kind, self.image)

    def mount(self) -> None:
        run(BIN / "mount.xnfs", self.image, self.dir, "-o", self.options)

    def unmount(self) -> None:
        run(BIN / "umount.xnfs", self.dir)

    def server(self) -> list[str | Path]:
        return [BIN / "mount.xnfs", "-f", self.image, self.dir, "-o", self.options]


class XnfsLfs(Xnfs):
    """The log-structured file system on the same kernel."""

    name = "xnfs-lfs"
    title = "xnfs, LFS"
    kind = "lfs"


class XnfsFusepy(Xnfs):
    """The other transport."""

    name = "xnfs-fusepy"
    title = "xnfs, fusepy transport"
    options = "transport=fusepy"

    @classmethod
    def missing(cls) -> str:
        return libfuse2()


class Ext4Image(Peer):
    """What is formatted as ext4. The tables are written at once: no thread of the kernel goes on
    writing them while something is measured."""

    def format(self) -> None:
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)


class Fuse2fs(Ext4Image):
    """ext4 on an image, in C: the peer of the same kind."""

    name = "fuse2fs"
    title = "fuse2fs"

    def mount(self) -> None:
        run("fuse2fs", self.image, self.dir, "-o", self._options())
        wait(lambda: os.path.ismount(self.dir))

    def unmount(self) -> None:
        run("fusermount", "-u", self.dir)
        wait(lambda: not holders(self.image))

    def server(self) -> list[str | Path]:
        return ["fuse2fs", "-f", self.image, self.dir, "-o", self._options()]

    @staticmethod
    def _options() -> str:
        return "fakeroot,rw" if os.geteuid() else "rw"

    @classmethod
    def missing(cls) -> str:
        have = shutil.which("fuse2fs") and shutil.which("mkfs.ext4")
        return "" if have else "apt-get install fuse2fs e2fsprogs"


class Ext4(Ext4Image):
    """The host kernel's, on a loop device: what no user-space server can beat where it serves."""

    name = "ext4"
    title = "kernel ext4"

    def mount(self) -> None:
        run("mount", "-o", "loop", self.image, self.dir)

    def unmount(self) -> None:
        unmount_busy(self.dir)
        wait(lambda: not loops(self.image))

    @classmethod
    def missing(cls) -> str:
        if os.geteuid() or not os.path.exists("/dev/loop-control"):
            return "needs root and loop devices"
        return "" if shutil.which("mkfs.ext4") else "apt-get install e2fsprogs"


class Passthrough(Ext4):
    """A directory of such an ext4, through a Python server that hands every call on."""

    script: ClassVar[str]
    module: ClassVar[str]

    def mount(self) -> None:
        below = self._below()
        below.mkdir(exist_ok=True)
        run("mount", "-o", "loop", self.image, below)
        (below / "top").mkdir(exist_ok=True)
        words = [sys.executable, HERE / self.script, below / "top", self.dir]
        with open(self.image.with_suffix(".log"), "ab") as log:
            subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        wait(lambda: os.path.ismount(self.dir), 20)

    def unmount(self) -> None:
        if os.path.ismount(self.dir) or dead(self.dir):
            unmount_busy(self.dir)
        if os.path.ismount(self._below()):
            unmount_busy(self._below())  # busy until the server has ended
        wait(lambda: not loops(self.image))

    def mounts(self) -> list[Path]:
        return [self._below(), self.dir]

    def _below(self) -> Path:
        return self.image.with_suffix(".below")

    @classmethod
    def missing(cls) -> str:
        if lacks := super().missing():
            return lacks
        if not importlib.util.find_spec(cls.module):
            return f"pip install {cls.module} (pyfuse3 needs libfuse3-dev, pkg-config and gcc)"
        return ""


class PassthroughFusepy(Passthrough):
    """Paths, libfuse 2."""

    name = "passthrough-fusepy"
    title = "fusepy passthrough"
    script = "passthrough_fusepy.py"
    module = "fuse"

    @classmethod
    def missing(cls) -> str:
        return super().missing() or libfuse2()


class PassthroughPyfuse3(Passthrough):
    """Inodes, libfuse 3."""

    name = "passthrough-pyfuse3"
    title = "pyfuse3 passthrough"
    script = "passthrough_pyfuse3.py"
    module = "pyfuse3"


KINDS: list[type[Peer]] = [
    Xnfs,
    XnfsLfs,
    XnfsFusepy,
    Fuse2fs,
    Ext4,
    PassthroughFusepy,
    PassthroughPyfuse3,
]
BY_NAME: dict[str, type[Peer]] = {kind.name: kind for kind in KINDS}


def end_like_ctrl_c() -> None:
    """Let every signal that ends us run the clean-up; also where a shell had Ctrl-C ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def libfuse2() -> str:
    """What to install for the servers that go through fusepy."""
    return "" if ctypes.util.find_library("fuse") else "apt-get install libfuse2"


def unmounter(*, lazy: bool = False) -> list[str]:
    """umount for root, fusermount for everybody else."""
    if os.geteuid() == 0:
        return ["umount", "-l"] if lazy else ["umount"]
    return ["fusermount", "-uz" if lazy else "-u"]


def unmount_busy(where: Path) -> None:
    """A server that was just unmounted may still hold what lies below for a moment."""
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run([*unmounter(), where], capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        if time.monotonic() > end or "busy" not in done.stderr:
            raise SystemExit(f"umount {where}: {done.stderr.strip()}")
        time.sleep(0.02)


def dead(where: Path) -> bool:
    """A mount whose server is gone: not even `ismount` can look at it."""
    try:
        os.stat(where)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def loops(image: Path) -> list[str]:
    """Loop devices on an image."""
    if os.geteuid():
        return []
    words = ["losetup", "-n", "-O", "NAME", "-j", str(image)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def holders(image: Path) -> list[int]:
    """Processes that have the image open."""
    found = set()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.path.samefile(fd, image):
                found.add(int(fd.parts[2]))
    return sorted(found - {os.getpid()})


def main() -> None:
    """The command of the head."""
    if len(sys.argv) != 4 or sys.argv[1] != "remount" or sys.argv[2] not in BY_NAME:
        raise SystemExit((__doc__ or "").splitlines()[2].strip())
    BY_NAME[sys.argv[2]](Path(sys.argv[3])).remount()


if __name__ == "__main__":
    main()
