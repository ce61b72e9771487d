"""READDIRPLUS of directories whose inodes are not in memory: when they are read for it."""

from __future__ import annotations

from libfs.kernel import abi
from libfs.kernel.abi import Op
from libfs.kernel.nodes import _CREDIT
from tests.ffs.support import DIR, FILE, ROOT, Disk
from tests.kernel.wire import Wire

FILES = 50
SIZE = 1 << 16


def _tree(directories: int) -> Disk:
    """An image with directories of files, nothing in memory."""
    disk = Disk()
    for i in range(directories):
        d = disk.fs.create(ROOT, disk.fs.root, b"d%d" % i, DIR)
        for j in range(FILES):
            disk.fs.create(ROOT, d, b"f%d" % j, FILE)
    disk.remount()
    return disk


def _lookup(wire: Wire, name: bytes, parent: int = 1) -> int:
    node: int = abi.ENTRY.unpack(wire.good(Op.LOOKUP, node=parent, tail=name + b"\0"))[0]
    return node


def _list(wire: Wire, node: int, cookie: int = 0, size: int = SIZE) -> dict[bytes, tuple[int, int]]:
    """name -> (node, cookie), in order, without the dots."""
    payload = wire.good(Op.READDIRPLUS, 0, cookie, size, node=node)
    found, at = {}, 0
    while at < len(payload):
        child = abi.ENTRY.unpack_from(payload, at)[0]
        at += abi.ENTRY.size
        _ino, after, length, _kind = abi.DIRENT.unpack_from(payload, at)
        at += abi.DIRENT.size
        found[payload[at : at + length]] = (child, after)
        at += (length + 7) & ~7
    return {name: value for name, value in found.items() if name not in (b".", b"..")}


def _known(listed: dict[bytes, tuple[int, int]]) -> int:
    """How many entries have attributes."""
    return sum(child != 0 for child, _after in listed.values())


def test_listing_begins_with_names() -> None:
    disk = _tree(1)
    wire = Wire(disk.fs)
    listed = _list(wire, _lookup(wire, b"d0"))
    assert len(listed) == FILES
    assert _known(listed) == 0
    disk.close()


def test_listing_goes_on_with_attributes() -> None:
    disk = _tree(1)
    wire = Wire(disk.fs)
    node = _lookup(wire, b"d0")
    some = _list(wire, node, 0, 1000)
    assert 0 < len(some) < FILES
    rest = _list(wire, node, list(some.values())[-1][1])
    assert len(some) + len(rest) == FILES
    assert _known(some) == 0
    assert _known(rest) == len(rest)
    disk.close()


def test_listing_gives_what_is_in_memory() -> None:
    disk = _tree(1)
    wire = Wire(disk.fs)
    node = _lookup(wire, b"d0")
    child = _lookup(wire, b"f3", node)
    listed = _list(wire, node)
    assert _known(listed) == 1
    assert listed[b"f3"][0] == child
    disk.close()


def test_listing_in_full_after_lookups() -> None:
    count = _CREDIT + 2
    disk = _tree(count)
    wire = Wire(disk.fs)
    nodes = [_lookup(wire, b"d%d" % i) for i in range(count)]
    assert _known(_list(wire, nodes[0])) == 0
    _lookup(wire, b"f1", nodes[0])
    for node in nodes[1:-1]:
        assert _known(_list(wire, node)) == FILES
    assert _known(_list(wire, nodes[-1])) == 0  # it asks again now and then
    disk.close()


def test_walking_directories_is_no_reason_to_read_inodes() -> None:
    disk = _tree(8)
    wire = Wire(disk.fs)
    tops = _list(wire, 1)
    assert len(tops) == 8
    for name in tops:
        assert _known(_list(wire, _lookup(wire, name))) == 0
    disk.close()


def test_damaged_inode_is_listed_without_attributes() -> None:
    disk = _tree(1)
    d = disk.fs.lookup(disk.fs.root, b"d0")
    assert d is not None
    bad = disk.fs.lookup(d, b"f7")
    assert bad is not None
    disk.close()
    disk.device.write(bad, [bytes(4096)])
    wire = Wire(disk.mount())
    node = _lookup(wire, b"d0")
    _list(wire, node)
    _lookup(wire, b"f1", node)
    listed = _list(wire, node)
    assert len(listed) == FILES
    # Damage that was seen makes the file system refuse changes, not reading.
    assert [name for name, (child, _after) in listed.items() if not child] == [b"f7"]
    disk.close()
