"""NoteFs behaves as POSIX says: the conformance suite, but for what it says that it has not."""

from __future__ import annotations

import errno
import os
from struct import pack
from types import ModuleType

import pytest

from examples.notefs import NoteFs
from examples.notefs.format import DATA, NAMES_AT, SLOTS, SLOTS_AT
from libfs.posix import FileSystem, Posix
from tests.conformance import (
    test_data,
    test_directories,
    test_names,
    test_open,
    test_permissions,
    test_rename,
    test_times,
)
from tests.conformance.conftest import Factory, fs, posix
from tests.conformance.support import ROOT, content, make_file, names_in, refuses
from xnfs import AclRefused, Caller, FramePool, MemoryDevice, Refused, Xn, format_image
from xnfs.disk.fsck import check_image

__all__ = ["fs", "posix"]

#: What is asked of NoteFs, but for what it has not.
CLAIMED: dict[ModuleType, tuple[str, ...]] = {
    test_names: (),
    test_rename: ("exchange",),
    test_directories: ("5000_entries", "255_odd_bytes", "removed_while_reading"),  # 128 names
    test_data: (
        *("property", "fallocate", "punch", "seek", "setid_goes", "write_moves_times"),
        "lent_is_what",  # of large files with holes
    ),
    test_open: ("tmpfile",),
    test_permissions: ("group_of_new_inode",),
    test_times: (),
}


def _make() -> FileSystem:
    device = MemoryDevice(4096)
    format_image(device, uuid=bytes(16), label="notes", now=0)
    xn = Xn(device, frames=FramePool(1024))
    NoteFs.mkfs(xn, xn.admin, "main")
    return NoteFs.mount(xn, xn.admin, "main")


@pytest.fixture
def factory() -> Factory:
    """NoteFs in the place of the suite's own file systems."""
    return _make


for module, without in CLAIMED.items():
    for name in dir(module):
        if name.startswith("test_") and not any(word in name for word in without):
            globals()[name] = getattr(module, name)


# -- what only NoteFs has to show

WHOLE = bytes(range(256)) * 16 * SLOTS  # a file as large as can be


def _image(frames: int = 256) -> tuple[MemoryDevice, Xn]:
    device = MemoryDevice(1024)
    format_image(device, uuid=bytes(16), label="notes", now=0)
    xn = Xn(device, frames=FramePool(frames))
    NoteFs.mkfs(xn, xn.admin, "main")
    return device, xn


def test_notefs_is_there_after_a_remount() -> None:
    device, xn = _image()
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    below = layer.mkdir(ROOT, layer.root, b"below", 0o755).ino
    file = make_file(layer, below, b"file", b"text" * 5000)
    layer.link(ROOT, file, layer.root, b"also")
    layer.symlink(ROOT, layer.root, b"link", b"below/file")
    layer.close()
    xn.close()

    assert check_image(device, repair=False, report=print).clean
    xn = Xn(device, frames=FramePool(128))
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    below = layer.lookup(ROOT, layer.root, b"below").ino
    found = layer.lookup(ROOT, below, b"file")
    assert found.nlink == 2
    assert content(layer, found.ino) == b"text" * 5000
    link = layer.lookup(ROOT, layer.root, b"link").ino
    assert layer.readlink(ROOT, link) == b"below/file"
    layer.close()


def test_notefs_files_larger_than_the_cache() -> None:
    _device, xn = _image(frames=64)
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    files = [make_file(layer, layer.root, b"%d" % i) for i in range(3)]
    for file in files:
        fh = layer.open(ROOT, file, os.O_WRONLY)
        for at in range(0, len(WHOLE), 1 << 16):
            layer.write(fh, at, WHOLE[at : at + (1 << 16)])
        layer.release(fh)
    assert all(content(layer, file) == WHOLE for file in files)
    layer.close()


def test_notefs_a_full_disk_gives_space_back() -> None:
    _device, xn = _image()
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    before = xn.free_blocks()
    with refuses(errno.ENOSPC):
        for i in range(12):
            make_file(layer, layer.root, b"%d" % i, WHOLE)
    for name in names_in(layer, layer.root):
        layer.unlink(ROOT, layer.root, name)
    layer.close()  # one file is still open
    assert xn.free_blocks() == before


def test_notefs_a_full_directory_says_so() -> None:
    _device, xn = _image()
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    with refuses(errno.ENOSPC):
        for i in range(200):
            make_file(layer, layer.root, b"%d" % i)
    assert len(names_in(layer, layer.root)) == SLOTS
    layer.close()


def test_notefs_acl_binds_whoever_makes_the_call() -> None:
    """Not the POSIX layer's courtesy: the kernel's."""
    _device, xn = _image()
    layer = Posix(NoteFs.mount(xn, xn.admin, "main"))
    file = make_file(layer, layer.root, b"mine", b"x", mode=0o644)
    info = xn.mount_root(Caller(xn.admin), "main")
    stranger = Caller(info.cap, 1000, 1000)
    for block, at, raw in [
        (file, 24, (1000).to_bytes(4, "little")),  # an owner
        (file, 16, (0o100666).to_bytes(4, "little")),  # a mode
        (int(layer.root), NAMES_AT, b"\0\4that"),  # a name in a directory
    ]:
        with pytest.raises(AclRefused):
            xn.update(stranger, block, [(at, raw)])
    with pytest.raises(Refused):  # a pointer to a block that was not claimed
        xn.update(Caller(info.cap), file, [(SLOTS_AT + 8, pack("<Q", DATA << 56 | 500))])
