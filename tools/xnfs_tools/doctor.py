"""`xnfs doctor`: can this machine mount, and if not, what is missing, each in a sentence."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from typing import Final

from libfs.fuse import FuseMissing, load

_HELPERS: Final = ("mount.fuse.xnfs", "umount.fuse.xnfs")


def _checks() -> Iterator[tuple[bool, str, str]]:
    """(fine, what, advice); advice without `fine` being False is a remark."""
    ok = sys.version_info >= (3, 11)
    yield ok, f"Python {platform.python_version()}", "3.11 or later is needed"
    for package in ("bitarray", "construct"):
        yield _imports(package), f"package {package}", f"pip install {package}"
    try:
        load()
        yield True, "fusepy and libfuse 2", ""
    except FuseMissing as error:
        yield False, "fusepy and libfuse 2", str(error)
    device = "/dev/fuse"
    if not os.path.exists(device):
        yield False, device, "no such device: modprobe fuse (container: --device /dev/fuse)"
    else:
        usable = os.access(device, os.R_OK | os.W_OK)
        yield usable, device, "you may not open it: run as root, or have it made accessible"
    found = shutil.which("fusermount", path=os.environ.get("PATH", "") + ":/bin:/usr/bin")
    yield found is not None, "fusermount", "apt-get install fuse (needed to mount without root)"


def _imports(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def doctor() -> int:
    """Print the findings; 1 if something that mounting needs is missing."""
    bad = 0
    for fine, what, advice in _checks():
        print(f"{'ok     ' if fine else 'MISSING'}  {what}{'' if fine else ': ' + advice}")
        bad += not fine
    absent = [name for name in _HELPERS if not os.path.exists(f"/sbin/{name}")]
    if absent:
        print(f"note     not in /sbin: {', '.join(absent)}")
        print("         (for 'mount -t fuse.xnfs' and fstab lines; 'make install' puts them there)")
    print("This machine can mount." if not bad else "This machine can't mount yet.")
    return 1 if bad else 0
