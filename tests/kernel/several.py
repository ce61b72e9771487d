"""One image with the roots `main` and `home`, mounted at several places by one command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import Disk, good


class Several(Disk):
    """`places`: directory by name. Names that begin alike are mounts of one root."""

    def __init__(self, work: Path, *roots: str, options: str = "allow_other") -> None:
        super().__init__(work, "kernel")
        self.roots = roots
        self.options = options
        self.places: list[Path] = []
        for number, root in enumerate(roots):
            place = work / f"{root}{number}"
            place.mkdir()
            self.places.append(place)

    def mkfs(self, *options: str | Path, size: str = "64m", kind: str = "ffs") -> None:
        """With each root; all but `main` are of this kind."""
        super().mkfs(*options, size=size)
        for root in dict.fromkeys(self.roots):
            if root != "main":
                good("mkfs.xnfs", "-t", kind, "--add", root, self.image)

    def mount(self, *options: str) -> None:
        """All of them."""
        words: list[str | Path] = []
        for root, place in zip(self.roots, self.places, strict=True):
            words += [f"{self.image}:{root}", place]
        good("mount.xnfs", *words, "-o", ",".join((self.options, *options)))
        self._servers.add(self.server())

    def umount(self) -> None:
        """All of them, and wait until the image is closed."""
        for place in self.places:
            good("umount.xnfs", place)
        self.wait_dead()

    def terminate(self) -> None:
        """Ask the server to end."""
        os.kill(self.server(), signal.SIGTERM)
        self.wait_dead()

    def clean_up(self) -> None:
        """See Disk."""
        for place in self.places:
            with contextlib.suppress(OSError):
                if os.path.ismount(place):
                    subprocess.run(["umount", "-l", place], capture_output=True, check=False)
        for place in self.places:
            subprocess.run(["umount", "-l", place], capture_output=True, check=False)
        super().clean_up()


def soon(what: Callable[[], object], seconds: float = 20.0) -> None:
    """It becomes true. A mount hears of what another one changed a moment later, not before."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.001)
