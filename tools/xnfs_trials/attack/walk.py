"""What lies below the roots of a session's image, from its bytes alone.

Sees the disk as `crash.rawdisk` does, which knows nothing but SPEC.md, and follows the pointers of
the session's nodes. Whatever a hostile caller did, on the disk every pointer names a block of the
data area that is in use and counted as often as it is named, stamped as what it is named as,
reached under one type and from one root, and never one that still holds what was there before.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping

from xnfs_trials.crash.rawdisk import BLOCK, RawDisk

#: block -> its bytes
Tree = dict[int, bytes]
_ROOT = struct.Struct("<64sQIIQ")
_SLOT = struct.Struct("<IIQ")
_SLOTS_AT, _SLOTS = 64, 32
_DATA, _NODE, _HIDDEN = 1, 2, 3
NAMES = {_DATA: b"s.data", _NODE: b"s.node", _HIDDEN: b"s.hidden"}


def walk(
    image: Mapping[int, bytes], blocks: int, secret: bytes
) -> tuple[dict[str, Tree], list[str]]:
    """(the blocks of each root by its name, what is wrong). `secret`: what nobody may see."""
    disk = RawDisk(image, blocks)
    seen = _Walk(disk, secret)
    trees = {}
    for name, block, kind in _roots(disk):
        seen.owners[block] += 1
        trees[name] = seen.tree(name, block, kind)
    for block, count in seen.owners.items():
        total = max(disk.refs(block), 1) if disk.in_use(block) else 0
        if total < count:
            seen.findings.append(f"block {block} has {count} pointers, the tables say {total}")
    findings = [f"{f.rule} block {f.block}: {f.text}" for f in disk.findings]
    return trees, findings + seen.findings


def _roots(disk: RawDisk) -> list[tuple[str, int, int]]:
    found = []
    start, count = disk.super.roots
    for bno in range(start, start + count):
        for at in range(128, BLOCK, 128):
            name, block, kind, _flags, _created = _ROOT.unpack_from(disk.block(bno), at)
            if block:
                found.append((name.rstrip(b"\0").decode(), block, kind))
    return found


class _Walk:
    """Pointers seen so far."""

    def __init__(self, disk: RawDisk, secret: bytes) -> None:
        self._disk = disk
        self._secret = secret
        self._numbers = {name: number for number, name in disk.type_names().items()}
        self.owners: Counter[int] = Counter()
        self._home: dict[int, tuple[str, int]] = {}
        self.findings: list[str] = []

    def tree(self, root: str, block: int, type_number: int) -> Tree:
        """The blocks below a root. No recursion: what leads in circles is legal."""
        out: Tree = {}
        if type_number != self._numbers.get(b"s.node"):
            return {block: self._disk.block(block)}  # a file system of another kind
        todo = [(block, _NODE)]
        while todo:
            block, kind = todo.pop()
            if self._home.setdefault(block, (root, kind)) != (root, kind):
                self._bad(block, f"belongs to {self._home[block]} and to {(root, kind)}")
                continue
            if block in out:
                continue
            out[block] = raw = b"" if kind == _HIDDEN else self._disk.block(block)
            if raw == self._secret:
                self._bad(block, "shows what was there before")
            if kind == _NODE:
                todo += self._children(block, raw)
        return out

    def _children(self, block: int, raw: bytes) -> list[tuple[int, int]]:
        crc_ok = self._disk.stamp_ok(block, raw)
        if not crc_ok or self._disk.stamp(raw)[1] != self._numbers[b"s.node"]:
            self._bad(block, "its stamp is not a node's")
            return []
        out = []
        for index in range(_SLOTS):
            kind, count, start = _SLOT.unpack_from(raw, _SLOTS_AT + 16 * index)
            for child in range(start, start + count) if kind in NAMES and count < 4096 else ():
                self.owners[child] += 1
                if not self._disk.in_data(child):
                    self._bad(block, f"names block {child}, which is no data block")
                elif not self._disk.in_use(child):
                    self._bad(child, f"is free and named by {block}")
                else:
                    out.append((child, kind))
        return out

    def _bad(self, block: int, text: str) -> None:
        self.findings.append(f"block {block} {text}")
