"""A mounted file system for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Disk

_USABLE = (
    os.path.exists("/dev/fuse") and shutil.which("fusermount") is not None and os.getuid() == 0
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder mounts."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.fuse)
            if not _USABLE:
                item.add_marker(pytest.mark.skip(reason="needs root, /dev/fuse and fusermount"))


@pytest.fixture(
    params=["kernel-ffs", "fusepy-ffs", pytest.param("kernel-lfs", marks=pytest.mark.slow)]
)
def unmounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A formatted image, not mounted; every test is run over both transports, and over
    both file systems."""
    disk = Disk(tmp_path, *request.param.split("-"))
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
