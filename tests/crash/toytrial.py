"""The kernel under a toy file system: what a power cut may leave after random system calls.

The checks are the same as for FFS: the raw bytes keep R1 to R5, what was synced is there, and
recovery ends, twice the same.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.mounting import CANARY, mount_checks
from xnfs_trials.crash.rawdisk import RawDisk

from tests.crash.toyops import SLOTS, ToyActor, identity
from tests.disk.toyfs import DATA, HIDDEN, LEAF, NODE


@dataclass
class Shown:
    """What an image contains: identity -> pointers to it."""

    objects: Counter[int]
    leaks: int


class ToyTrial(ToyActor):
    """A random sequence of system calls on one root, and what its disks must show."""

    # -- what an image shows

    def describe(self) -> list[str]:
        return self.log

    def inspect(self, disk: RawDisk) -> tuple[list[str], object]:
        names = {name: number for number, name in disk.type_names().items()}
        kinds = {NODE: names[b"t.node"], LEAF: names[b"t.leaf"]}
        owners: Counter[int] = Counter()
        objects: Counter[int] = Counter()
        kind_of: dict[int, int] = {}
        start = disk.super.roots[0]
        if not disk.stamp_ok(start, disk.block(start)):
            disk.find("R2", start, "root catalogue is torn")
        root = struct.unpack_from("<Q", disk.block(start), 128 + 64)[0]
        todo = [(NODE, root, 1)]
        while todo:
            kind, first, count = todo.pop()
            data = 0
            for block in range(first, first + count):
                if not disk.in_data(block):
                    disk.find("pointer", block, "outside")
                    continue
                owners[block] += 1
                if kind_of.setdefault(block, kind) != kind:
                    disk.find("R1", block, "two types")
                    continue
                if kind == HIDDEN:
                    continue
                raw = disk.block(block)
                ident = identity(kind, raw)
                objects[ident] += 1
                if CANARY in raw:
                    disk.find("R2", block, "never initialised")
                if kind == DATA and block == first:
                    data = ident
                if kind == DATA and set(struct.unpack("<512Q", raw)) - {0, data}:
                    disk.find("R2", block, f"data of {data} show bytes of others")
                if owners[block] > 1 or kind == DATA:
                    continue
                if not disk.stamp_ok(block, raw) or disk.stamp(raw)[1] != kinds[kind]:
                    disk.find("R2", block, f"stamp of a node or leaf ({kind}) is wrong")
                    continue
                disk.check_age(block, raw)
                if kind == NODE:
                    for at in range(64, 64 + 16 * SLOTS, 16):
                        k, n, b = struct.unpack_from("<IIQ", raw, at)
                        if k:
                            todo.append((k, b, n))
        disk.check_tables()
        for block, seen in owners.items():
            if not disk.in_use(block):
                disk.find("R4", block, "named, and free in the map")
            elif seen > max(1, disk.refs(block)):
                disk.find("R5", block, f"{seen} pointers, counted {disk.refs(block)}")
        area = range(disk.super.data_start, self.blocks - 1)
        leaks = sum(1 for b in area if disk.in_use(b) and b not in owners)
        wrong = [f"{f.rule} block {f.block}: {f.text}" for f in disk.findings]
        return wrong, Shown(objects, leaks)

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """What was synced before the cut and not freed since is there."""
        assert isinstance(shown, Shown)
        must = {
            ident
            for at, idents in self.ask_at.items()
            for ident in idents
            if at <= cut.event
            and not any(at <= e < cut.event for e, held in self.voids if held == ident)
        }
        gone = {t.ident for t in self.dead if t.gone is not None and t.gone <= cut.version}
        return [f"object {i}, synced, is gone" for i in must - gone if not shown.objects[i]]

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], shown: object
    ) -> list[str]:
        """Recovery gives the same bytes as the checker's, twice; fsck is clean; leaks are
        collected."""
        return mount_checks(image, self.blocks, recovered)
