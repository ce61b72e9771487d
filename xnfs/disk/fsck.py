"""fsck: is what an image says of itself true, and if not, make it so.

It knows the kernel's own structures and, through `owns`, every pointer of every file system ever
installed; what only a file system knows is checked by its own checker afterwards. Passes:
superblocks, log, tables, types, the walk from the roots (`fsck_walk.py`; repeated while it had to
cut a pointer), tables against the walk.

Findings are data. With `repair` each is mended as it is found, in an order that leaves the image
no worse at any moment: pointers are cut before the tables are lowered. Without, the same code runs
over a copy-on-write layer in memory: nothing is written.

Relies on: nobody else has the image open. Guarantees: trusts no byte, ends on any bytes, and never
frees a block while something reachable could not be read as its type (`Result.incomplete`).

Not here: asking the user, exit codes (`tools`), collecting leaks while mounted (`collect.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bitarray import bitarray

from xnfs.disk.device import BlockDevice
from xnfs.disk.fsck_roots import RootsCheck
from xnfs.disk.fsck_walk import Finding, Walk
from xnfs.disk.layout import (
    CLEAN,
    DAMAGED,
    FIRST_TYPE,
    GROUP,
    SECTORS,
    Geometry,
    Seed,
    Superblock,
    decode_superblock_untrusted,
)
from xnfs.disk.log import Log
from xnfs.disk.numbers import VERSION, column_of
from xnfs.disk.records import BLOCK
from xnfs.disk.recovery import Recovered, recover
from xnfs.disk.scratch import Scratch
from xnfs.disk.superblock import read_superblock_untrusted, write_superblock
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import BadImage, DeviceError, VersionError

Report = Callable[[Finding], None]
Progress = Callable[[str, int, int], None]

#: A pass cuts all that it finds; what a cut uncovers is found by the next one. Far more than
#: needed.
MAX_PASSES = 64


@dataclass(frozen=True, slots=True)
class Result:
    """What fsck has seen. `leaked` counts what a power cut may leave: no damage while the image is
    not marked clean."""

    findings: int
    unrepaired: int
    leaked: int
    replayed: bool
    incomplete: bool
    used: int
    blocks: int

    @property
    def clean(self) -> bool:
        """Nothing found."""
        return not self.findings


def check_image(
    device: BlockDevice,
    *,
    repair: bool,
    report: Report,
    progress: Progress | None = None,
) -> Result:
    """Check the image on a device, and mend it if asked; durable on return.

    Raises BadImage or VersionError where there is nothing to check, DeviceError.
    """
    if repair and read_superblock_untrusted(device).must_be_readonly:
        raise VersionError("features are in use that this program may not change: it can only look")
    target = device if repair else Scratch(device)
    return _Fsck(target, report, progress or (lambda what, done, total: None)).run()


class _Fsck:
    """One run."""

    def __init__(self, device: BlockDevice, report: Report, progress: Progress) -> None:
        self._device = device
        self._out = report
        self._progress = progress
        self._seen: set[tuple[str, int, str]] = set()
        self._findings = self._unrepaired = 0
        self._sb = read_superblock_untrusted(device)
        self._g: Geometry = self._sb.geometry
        self._seed = Seed(self._sb.uuid)
        self._table = TypeTable(device, self._g, self._seed, self._sb.types_used)
        self._types = {kind.number: kind for kind in self._table}

    def run(self) -> Result:
        """All passes."""
        self._superblocks()
        replayed = self._replay()
        damaged: set[tuple[int, int]] = set()
        tables = Tables.load(self._device, self._g, self._seed, damaged, replayed.versions)
        RootsCheck(self._device, self._g, self._seed, self._table, tables, self._report).run()
        walk = self._walk(tables)
        self._check_types(walk)
        leaked = self._tables(tables, walk, damaged)
        self._finish(walk)
        return Result(
            self._findings,
            self._unrepaired,
            leaked,
            replayed.done == "redone",
            walk.incomplete,
            walk.marked.count(1),
            self._g.blocks,
        )

    def _report(self, finding: Finding) -> None:
        """Once each: later passes see the same again."""
        key = (finding.code, finding.block, finding.message)
        if key not in self._seen:
            self._seen.add(key)
            self._findings += 1
            self._unrepaired += not finding.repairable
            self._out(finding)

    def _read(self, block: int) -> bytearray:
        raw = bytearray(BLOCK)
        self._device.read(block, [memoryview(raw)])
        return raw

    # -- superblocks

    def _superblocks(self) -> None:
        """Both copies must be whole and of this image. That one is older is what a cut may
        leave."""
        for block in (0, self._g.data_end):
            try:
                copy: Superblock | None = decode_superblock_untrusted(self._read(block))
            except (BadImage, DeviceError):
                copy = None
            if copy is None:
                self._report(Finding("superblock", block, "this copy is damaged", True))
            elif (copy.uuid, copy.geometry) != (self._sb.uuid, self._g):
                self._report(Finding("superblock", block, "this copy is of another image", True))
            else:
                continue
            self._sb = write_superblock(self._device, self._sb)
        if self._sb.state & DAMAGED:
            text = "corruption was seen while the image was in use"
            self._report(Finding("marked-damaged", 0, text, safe_to_preen=True))

    # -- types

    def _check_types(self, walk: Walk) -> None:
        """Damaged records. One behind the last good record, that nothing misses, is what a cut left
        of an installation."""
        last = max((kind.number for kind in self._table), default=0) - FIRST_TYPE
        for why in self._table.damaged:
            if walk.incomplete or why.block - self._g.types_start < last:
                self._report(Finding("type-record", why.block, str(why), repairable=False))
        for number, text in self._table.broken.items():
            block = self._g.types_start + number - FIRST_TYPE
            self._report(Finding("type-unusable", block, text, repairable=False))

    # -- log

    def _replay(self) -> Recovered:
        """What recovery at mount does; then the log is emptied, or it would undo what is mended
        here."""
        log = Log(self._device, self._seed, self._g)
        found = log.newest_untrusted(self._sb.seq)
        nothing = Recovered(self._device, self._sb.seq, frozenset(), "nothing")
        if not found:
            return nothing
        stamps, images = self._table.stamps(), [image for t in found for image in t.images]
        unknown = [i for i in images if i.type and i.type not in stamps]
        outside = [i for i in images if not self._g.is_loggable(i.block)]
        if unknown or outside:
            text = f"transaction {found[0].seq}: {len(unknown)} blocks of unusable types"
            text += f", {len(outside)} outside the data area"
            self._report(Finding("log", self._g.log_start, text, repairable=False))
            return nothing
        replayed = recover(self._device, self._seed, log, stamps, self._g, self._sb.seq)
        # No number is used again.
        self._sb = write_superblock(self._device, replace(self._sb, seq=found[0].seq))
        log.erase(0)
        log.erase(1)
        self._device.flush()
        return replayed

    # -- the walk

    def _walk(self, tables: Tables) -> Walk:
        """Until nothing had to be cut."""
        proven = bitarray(self._g.blocks, endian="little")
        solid = bitarray(self._g.blocks, endian="little")
        for _turn in range(MAX_PASSES):
            walk = Walk(
                self._device,
                self._g,
                self._seed,
                self._types,
                tables,
                self._report,
                lambda done: self._progress("blocks of metadata", done, 0),
                proven,
                solid,
            )
            walk.run(range(self._g.roots_start, self._g.data_start))
            # Cut pointers are gone for good before the tables are lowered.
            self._device.flush()
            if not walk.cuts:
                return walk
        walk.incomplete = True
        return walk

    # -- tables

    def _tables(self, tables: Tables, walk: Walk, damaged: set[tuple[int, int]]) -> int:
        """Make `total` what the walk has counted, and the newest versions those that it has seen.
        Returns how many blocks were marked for nobody."""
        for block, seq in walk.versions.items():
            tables.versions.set(block, seq)
        leaked = 0
        for group in range(self._g.groups):
            if group % 64 == 0:
                self._progress("groups of blocks", group, self._g.groups)
            lo = max(group * GROUP, self._g.data_start)
            hi = min((group + 1) * GROUP, self._g.data_end)
            if lo < hi:
                leaked += self._group(tables, walk, lo, hi, damaged)
        for block, sector in sorted(damaged):
            if block < self._g.refs_start:
                self._report(Finding("map-sector", block, f"sector {sector} of the free map"))
            elif column_of(block - self._g.refs_start) is VERSION:
                text = f"sector {sector} of the versions"
                self._report(Finding("versions-sector", block, text))
            else:
                self._report(Finding("refs-sector", block, f"sector {sector} of the counts"))
        self._write(tables)
        return leaked

    def _group(
        self, tables: Tables, walk: Walk, lo: int, hi: int, damaged: set[tuple[int, int]]
    ) -> int:
        """One group of the map, [lo, hi), and its counts."""
        used, named = tables.snapshot()[lo:hi], walk.marked[lo:hi]
        sector = (self._g.map_start + lo // GROUP // SECTORS, lo // GROUP % SECTORS)
        known = sector not in damaged
        for start, count in _runs(named & ~used, lo):
            text = f"{count} blocks from {start} are in use, the map says free"
            self._report(Finding("map-missing", start, text))
            for block in range(start, start + count):
                tables.set_total(block, walk.counts.get(block, 1))
        self._counts(tables, walk, lo, hi)
        unnamed = used & ~named
        leaked = unnamed.count(1)
        if walk.incomplete or not leaked:
            return 0
        if self._sb.state & CLEAN and known:
            text = f"{leaked} blocks are marked as in use, nothing names them"
            self._report(Finding("leak", lo + unnamed.find(1), text, safe_to_preen=True))
        for start, count in _runs(unnamed, lo):
            for block in range(start, start + count):
                tables.set_total(block, 0)
        return leaked if known else 0

    def _counts(self, tables: Tables, walk: Walk, lo: int, hi: int) -> None:
        """R5: counts are never below the pointers; above only after a cut."""
        wrong = {b: (n, 1) for b, n in tables.shared(lo, hi - lo) if walk.marked[b]}
        for block in wrong.keys() & walk.counts.keys():
            del wrong[block]
        for block, seen in walk.counts.items():
            if lo <= block < hi and tables.total(block) != seen:
                wrong[block] = tables.total(block), seen
        for block, (total, seen) in sorted(wrong.items()):
            if total < seen:
                text = f"{seen} pointers name it, it counts {total}"
                self._report(Finding("refs-low", block, text))
            elif walk.incomplete:
                continue
            elif self._sb.state & CLEAN and not tables.count_is_damaged(block):
                text = f"{seen} pointers name it, it counts {total}"
                self._report(Finding("refs-high", block, text, safe_to_preen=True))
            tables.set_total(block, seen)

    def _write(self, tables: Tables) -> None:
        dirty = tables.dirty_blocks()
        numbers = [block for block in dirty if block >= self._g.refs_start]
        # The map, which says where there are numbers, comes after them.
        for blocks in (numbers, dirty[: len(dirty) - len(numbers)]):
            for block in blocks:
                self._device.write(block, [tables.encode(block)])
                tables.mark_written(block)
            self._device.flush()

    def _finish(self, walk: Walk) -> None:
        """Nothing is wrong and nothing leaked any more: say so."""
        if not walk.incomplete and not self._unrepaired and self._sb.state != CLEAN:
            self._sb = write_superblock(self._device, replace(self._sb, state=CLEAN))


def _runs(bits: bitarray, base: int) -> Iterator[tuple[int, int]]:
    """(start, count) of the runs of ones."""
    at = bits.find(1)
    while at >= 0:
        end = bits.find(0, at)
        end = len(bits) if end < 0 else end
        yield base + at, end - at
        at = bits.find(1, end)
