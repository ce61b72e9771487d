"""A mount over memory whose flushes take their time.

`python -m tests.kernel.slow_mount DIRECTORY SECONDS` says "mounted", then answers each line of its
input with the number of flushes so far.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid

from libfs.ffs import Ffs
from libfs.kernel.session import Mount
from libfs.posix import Posix
from xnfs import FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.stacked import StackedDevice


class Slow(StackedDevice):
    """Each flush takes `seconds`."""

    seconds = 0.0
    flushes = 0

    def flush(self) -> None:
        """See BlockDevice."""
        self.flushes += 1
        time.sleep(self.seconds)


def main() -> None:
    """See the module."""
    disk = MemoryDevice(8192)
    format_image(disk, uuid=uuid.UUID(int=7).bytes, label="slow")
    device = Slow(disk)
    xn = Xn(device, frames=FramePool(4096))
    Ffs.mkfs(xn, xn.admin, "home")
    fs = Ffs.mount(xn, xn.admin, "home")

    def listen() -> None:
        for _line in sys.stdin:
            print(device.flushes, flush=True)

    def ready() -> None:
        device.seconds = float(sys.argv[2])
        threading.Thread(target=listen, daemon=True).start()
        print("mounted", flush=True)

    Mount(Posix(fs), sys.argv[1], source="slow", ready=ready).run()
    device.seconds = 0
    xn.close()


if __name__ == "__main__":
    main()
