"""The file systems that the conformance suite runs on. Each gets every test.

A factory gives a new, empty, writable file system whose root belongs to uid 0.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from libfs.posix import FileSystem, Posix
from libfs.posix.memory import MemoryFs
from tests.conformance.support import ROOT

Factory = Callable[[], FileSystem]


def _memory() -> FileSystem:
    return MemoryFs()


def _ffs() -> FileSystem:
    xnfs = importlib.import_module("xnfs")
    ffs = importlib.import_module("libfs.ffs")
    device = xnfs.MemoryDevice(16384)
    xnfs.format_image(device, uuid=uuid.UUID(int=1).bytes, label="t", now=0)
    xn = xnfs.Xn(device, frames=xnfs.FramePool(8192))
    ffs.Ffs.mkfs(xn, xn.admin, "main")
    return cast(FileSystem, ffs.Ffs.mount(xn, xn.admin, "main", readonly=False))


FACTORIES: dict[str, Factory] = {"memory": _memory}
# Here until FFS is in the tree; then it is registered like the other one.
if hasattr(importlib.import_module("libfs.ffs"), "Ffs"):
    FACTORIES["ffs"] = _ffs


@pytest.fixture(params=sorted(FACTORIES))
def factory(request: pytest.FixtureRequest) -> Factory:
    """Makes file systems of one kind."""
    return FACTORIES[request.param]


@pytest.fixture
def fs(factory: Factory) -> FileSystem:
    """A new file system, in whose root everybody may write."""
    return factory()


@pytest.fixture
def posix(fs: FileSystem) -> Iterator[Posix]:
    """The POSIX layer over `fs`, with default options."""
    layer = Posix(fs)
    layer.setattr(ROOT, layer.root, mode=0o777)
    yield layer
    layer.close()
