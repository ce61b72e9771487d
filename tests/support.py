"""Images that are mounted for real, by the installed commands, and always unmounted again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
NOBODY: Final = 65534

Done = subprocess.CompletedProcess[str]


def command(name: str, *arguments: str | Path, stdin: str | None = None) -> Done:
    """Run one of our commands, without a terminal, and return what it said."""
    return subprocess.run(
        [BIN / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=120,
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
    )


def good(name: str, *arguments: str | Path) -> str:
    """Run one of our commands, which must succeed quietly; its output."""
    done = command(name, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), (name, done)
    return done.stdout


def shell(script: str, cwd: Path | None = None) -> str:
    """Run a shell script, which must succeed; its output."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done
    return done.stdout


def as_user(script: str, cwd: Path, uid: int = NOBODY, groups: Sequence[int] = (NOBODY,)) -> Done:
    """Run a shell script as another user."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        user=uid,
        group=groups[0],
        extra_groups=groups,
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Disk:
    """An image and the directory that it is mounted on."""

    def __init__(self, work: Path, transport: str = "auto", kind: str = "ffs") -> None:
        # The server's clients may be other users; pytest's directories are closed to them.
        for directory in (work, *work.parents):
            if "pytest" in str(directory) and directory.owner() == work.owner():
                directory.chmod(0o755)
        self.transport, self.kind = transport, kind
        self.image = work / "disk.xnfs"
        self.mnt = work / "mnt"
        self.mnt.mkdir()
        self._servers: set[int] = set()

    def mkfs(self, *options: str | Path, size: str = "64m") -> None:
        """A new image."""
        good("mkfs.xnfs", "-t", self.kind, *options, self.image, size)

    def mount(self, *options: str) -> None:
        """Mount, with options as after -o."""
        words = ",".join((*options, f"transport={self.transport}"))
        good("mount.xnfs", self.image, self.mnt, "-o", words)
        self._servers.add(self.server())

    def umount(self) -> None:
        """Unmount, and wait until the image is closed."""
        good("umount.xnfs", self.mnt)

    def remount(self, *options: str) -> None:
        """Through the disk and back."""
        self.umount()
        self.mount(*options)

    def server(self) -> int:
        """The process that has the image open."""
        for fds in Path("/proc").glob("[0-9]*/fd"):
            with contextlib.suppress(OSError):
                if any(os.readlink(fd) == str(self.image) for fd in fds.iterdir()):
                    return int(fds.parent.name)
        raise AssertionError("no process has the image open")

    def kill(self) -> None:
        """Pull the plug."""
        os.kill(self.server(), signal.SIGKILL)
        self.wait_dead()

    def wait_dead(self) -> None:
        """Until no process has the image open."""
        for _ in range(500):
            try:
                self.server()
            except AssertionError:
                return
            time.sleep(0.01)
        raise AssertionError("the server does not end")

    def fsck(self) -> None:
        """Nothing is wrong with the image."""
        done = command("fsck.xnfs", "-f", "-n", self.image)
        assert done.returncode == 0, done

    def clean_up(self) -> None:
        """Leave no mount and no server, whatever happened. Processes are ended by their number."""
        for _ in range(4):
            if not _is_mounted(self.mnt):
                break
            subprocess.run(["umount", "-l", self.mnt], capture_output=True, check=False)
        for _ in range(200):
            if not any(self._serves(pid) for pid in self._servers):
                return
            time.sleep(0.01)
        for pid in self._servers:
            if self._serves(pid):
                os.kill(pid, signal.SIGKILL)

    def _serves(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return any(
                os.readlink(fd) == str(self.image) for fd in Path(f"/proc/{pid}/fd").iterdir()
            )
        return False


def _is_mounted(directory: Path) -> bool:
    text = Path("/proc/self/mountinfo").read_text()
    return any(line.split(" ")[4] == str(directory) for line in text.splitlines())
