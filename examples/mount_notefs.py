"""Mount a NoteFs: `python -m examples.mount_notefs IMAGE DIRECTORY`. Unmount it with umount.

An image that does not exist is made, 64 MiB large. Any file system that implements
`libfs.posix.interface.FileSystem` is mounted with these lines.
"""

from __future__ import annotations

import os
import sys

from examples.notefs import NoteFs
from libfs.kernel.session import Mount
from libfs.posix import Posix
from xnfs import FileDevice, FramePool, Xn, create_image, format_image


def main(image: str, directory: str) -> None:
    """Serve until it is unmounted. Raises XnError, OSError, MountFailed."""
    fresh = not os.path.exists(image)
    if fresh:
        create_image(image, 64 << 20)
    device = FileDevice(image)
    if fresh:
        format_image(device, uuid=os.urandom(16), label="notes")
    xn = Xn(device, frames=FramePool(4096))
    if fresh:
        NoteFs.mkfs(xn, xn.admin, "main")
    fs = NoteFs.mount(xn, xn.admin, "main")
    Mount(Posix(fs), os.path.realpath(directory), source=image).run()
    xn.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
