"""Reading an image by `owns` alone, for debugfs: no mount, no recovery, nothing written.

Relies on the kernel's own tables of types and its log reader. Trusts no byte: a block whose stamp
does not fit is shown as such and not followed, and every walk remembers where it has been.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bitarray import bitarray

from xnfs import BLOCK, FileDevice, Refused, UnknownType, XnError
from xnfs.disk.blocktype import BlockType
from xnfs.disk.entries import decode_slots_untrusted
from xnfs.disk.layout import ROOTS_TYPE, Seed, check_stamp_untrusted
from xnfs.disk.log import Log
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError
from xnfs_tools.command import about, split_image

#: Kinds that begin a file or directory of their own: `below` does not go into them.
_INODES = ("ffs.inode", "ffs.dir")


class Inspector:
    """One open image."""

    def __init__(self, device: FileDevice) -> None:
        self._device = device
        self._sb = read_superblock_untrusted(device)
        self._g = self._sb.geometry
        self._seed = Seed(self._sb.uuid)
        self._table = TypeTable(device, self._g, self._seed)
        self._types: dict[int, BlockType] = {kind.number: kind for kind in self._table}

    def types(self) -> dict[int, str]:
        """Names by number."""
        return {number: kind.spec.name for number, kind in self._types.items()}

    def name(self, number: int) -> str:
        """Of a type."""
        return self._types[number].spec.name if number in self._types else f"type {number}"

    def read(self, block: int) -> bytes:
        """A block as it is on the device."""
        raw = bytearray(BLOCK)
        self._device.read(block, [memoryview(raw)])
        return bytes(raw)

    def area(self, block: int) -> str | None:
        """The area of the kernel that a block lies in; None for data."""
        g = self._g
        if block in (0, g.data_end):
            return "superblock"
        for name, start, count in (
            ("log", g.log_start, g.log_blocks),
            ("free map", g.map_start, g.map_blocks),
            ("counts and versions", g.refs_start, g.refs_blocks),
            ("type catalogue", g.types_start, g.types_blocks),
            ("root catalogue", g.roots_start, g.roots_blocks),
        ):
            if start <= block < start + count:
                return name
        return None if g.in_data(block) else "outside the image"

    def children(self, block: int, number: int) -> list[tuple[int, int, int]]:
        """What a block owns: (type, start, count); nothing if it is not whole."""
        kind = self._types.get(number)
        if kind is None or kind.stamp is None:
            return []
        raw = self.read(block)
        try:
            check_stamp_untrusted(self._seed, block, raw, kind.stamp, number)
            found = [each for part in range(kind.nparts) for each in kind.owned(raw, part)]
        except (CorruptionError, Refused, UnknownType):
            return []
        return [each for each in found if self._g.in_data(each[1], each[2])]

    def roots(self) -> Iterator[tuple[str, int, int]]:
        """(name, type, block) of each file system."""
        for block in range(self._g.roots_start, self._g.data_start):
            for slot in decode_slots_untrusted(block, self.read(block)):
                if slot is not None:
                    yield slot.name, slot.type, slot.block

    def below(self, inode: int) -> Iterator[tuple[int, int, int, int]]:
        """The blocks of one inode: (depth, type, start, count), parents first."""
        kind = self._kind_of(inode)
        todo, seen = [(0, kind, inode, 1)], set()
        while todo:
            depth, kind, start, count = todo.pop()
            yield depth, kind, start, count
            if depth and self.name(kind) in _INODES:
                continue
            for block in range(start, start + count):
                if block not in seen:
                    seen.add(block)
                    below = [(depth + 1, *each) for each in self.children(block, kind)]
                    todo.extend(reversed(below))

    def count(self, block: int, number: int) -> int:
        """How many blocks belong to a root, given its first one. Each counts once."""
        seen = bitarray(self._g.blocks)
        seen[block] = 1
        todo = [(block, number)]
        while todo:
            for kind, start, n in self.children(*todo.pop()):
                known = self._types.get(kind)
                if known is not None and known.stamp is not None:
                    todo += [(b, kind) for b in range(start, start + n) if not seen[b]]
                seen[start : start + n] = 1
        return seen.count()

    def _kind_of(self, block: int) -> int:
        """The type in a block's stamp; 0 if it has none that fits."""
        raw = self.read(block)
        for number, kind in self._types.items():
            if kind.stamp is not None:
                with contextlib.suppress(CorruptionError):
                    check_stamp_untrusted(self._seed, block, raw, kind.stamp, number)
                    return number
        return 0

    def owners(self, block: int) -> list[tuple[int, int]]:
        """The chain from a root down to the block, as (block, type); empty if nothing names it."""
        parents: dict[int, tuple[int, int]] = {}
        todo = [(b, ROOTS_TYPE) for b in range(self._g.roots_start, self._g.data_start)]
        kinds = dict(todo)
        while todo:
            parent, kind = todo.pop()
            for number, start, count in self.children(parent, kind):
                if start <= block < start + count:
                    chain = [(block, number), (parent, kind)]
                    while parent in parents:
                        chain.append(parents[parent])
                        parent = parents[parent][0]
                    return chain[::-1]
                if number in self._types and self._types[number].stamp is not None:
                    for child in range(start, start + count):
                        if child not in kinds:
                            kinds[child] = number
                            parents[child] = (parent, kind)
                            todo.append((child, number))
        return []

    def logdump(self) -> None:
        """Print both halves of the log."""
        log = Log(self._device, self._seed, self._g)
        for half in (0, 1):
            found = log.read_untrusted(half)
            if found is None:
                print(f"half {half}: no complete transaction")
                continue
            print(f"half {half}: transaction {found.seq}, {len(found.images)} blocks")
            for image in found.images:
                print(f"  {image.block}  {self.name(image.type) if image.type else 'no stamp'}")
            if found.listed:
                print(f"  relies on {', '.join(str(block) for block, _digest in found.listed)}")


@contextlib.contextmanager
def open_inspector(text: str) -> Iterator[Inspector]:
    """IMAGE, or IMAGE:ROOT, of which the root does not matter here. Raises: Failed."""
    path, _root = split_image(text)
    try:
        device = FileDevice(path, readonly=True)
        try:
            yield Inspector(device)
        finally:
            device.close()
    except XnError as error:
        raise about(path, error) from None
