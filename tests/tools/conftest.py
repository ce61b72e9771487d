"""Images for the tests of the commands: made once, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import good


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a few files in it. Not to be changed."""
    work = tmp_path_factory.mktemp("pristine")
    tree = work / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "hello").write_text("hello\n")
    (tree / "d/big").write_bytes(bytes(range(256)) * 4096)
    (tree / "link").symlink_to("hello")
    (tree / "hard").hardlink_to(tree / "hello")
    good("mkfs.xnfs", "-L", "pristine", "-d", tree, work / "disk.xnfs", "16m")
    return work / "disk.xnfs"


@pytest.fixture
def image(pristine: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    copy = tmp_path / "disk.xnfs"
    shutil.copyfile(pristine, copy)
    return copy
