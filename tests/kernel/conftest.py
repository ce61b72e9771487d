"""Mounts over the kernel transport, for what only it can do. The suite that runs over both
transports is in `tests/fuse`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Disk

_USABLE = os.path.exists("/dev/fuse") and os.getuid() == 0


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[Disk]:
    """A formatted image, not mounted."""
    if not _USABLE:
        pytest.skip("needs root and /dev/fuse")
    disk = Disk(tmp_path, "kernel")
    try:
        disk.mkfs()
        yield disk
    finally:
        disk.clean_up()


@pytest.fixture
def disk(unmounted: Disk) -> Disk:
    """A mounted image that all users may use."""
    unmounted.mount("allow_other")
    return unmounted


@pytest.fixture
def mnt(disk: Disk) -> Path:
    """The directory of `disk`."""
    return disk.mnt
