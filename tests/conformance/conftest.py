"""The file systems that the conformance suite runs on. Each gets every test.

A factory gives a new, empty, writable file system whose root belongs to uid 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from libfs.ffs import Ffs
from libfs.lfs import Lfs
from libfs.posix import FileSystem, Posix
from libfs.posix.memory import MemoryFs
from tests.conformance.support import ROOT
from xnfs import FramePool, MemoryDevice, Xn, format_image

Factory = Callable[[], FileSystem]


def _memory() -> FileSystem:
    return MemoryFs()


def _ffs() -> FileSystem:
    device = MemoryDevice(16384)
    format_image(device, uuid=bytes(15) + b"\x01", label="t", now=0)
    xn = Xn(device, frames=FramePool(8192))
    Ffs.mkfs(xn, xn.admin, "main")
    return Ffs.mount(xn, xn.admin, "main")


def _lfs() -> FileSystem:
    device = MemoryDevice(16384)
    format_image(device, uuid=bytes(15) + b"\x01", label="t", now=0)
    xn = Xn(device, frames=FramePool(8192))
    Lfs.mkfs(xn, xn.admin, "main")
    return Lfs.mount(xn, xn.admin, "main")


FACTORIES: dict[str, Factory] = {"memory": _memory, "ffs": _ffs, "lfs": _lfs}


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
