"""What is mounted here, according to the host kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xnfs_tools.command import split_image

TYPE: Final = "fuse.xnfs"


@dataclass(frozen=True)
class MountPoint:
    """One xnfs mount: the image, perhaps with the name of a root in it, and the directory."""

    source: str
    directory: str
    options: str

    @property
    def image(self) -> str:
        """The image alone."""
        return split_image(self.source)[0]


def _plain(text: str) -> str:
    """The kernel writes blanks and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounts() -> list[MountPoint]:
    """All xnfs mounts, the newest last."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            # ID parent device root DIRECTORY OPTIONS [fields ...] - TYPE SOURCE super-options
            before, _, after = line.partition(" - ")
            fields, kind = before.split(" "), after.split(" ")
            if kind[0] == TYPE:
                found.append(MountPoint(_plain(kind[1]), _plain(fields[4]), fields[5]))
    return found


def at(directory: str) -> MountPoint | None:
    """The mount that is visible at a directory (an absolute path without links)."""
    here = [mount for mount in mounts() if mount.directory == directory]
    return here[-1] if here else None


def of(image: str, root: str | None = None) -> list[MountPoint]:
    """Where an image (an absolute path without links), or one root of it, is mounted."""
    source = image if root is None else f"{image}:{root}"
    return [mount for mount in mounts() if source in (mount.source, mount.image)]
