"""What follows a crash, before anything else: finish the newest transaction, or forget it.

Takes time that depends on the size of the log only, not of the image. Guarantees: afterwards every
image of that transaction is in place, or none is; running it again, also after a cut in the
middle of it, gives the same bytes. It relies on what `commit.py` keeps: while a transaction is the
newest, the places of its images get nothing but these, and until they are durable there, the blocks
that it lists stay as they were listed.

An image that is opened read-only is not written: the finished blocks are laid over it in memory.

Source: DESIGN section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xnfs.disk.device import BlockDevice, Buffers, Views
from xnfs.disk.layout import STAMP, Geometry, Seed
from xnfs.disk.log import Log, Transaction
from xnfs.disk.records import BLOCK
from xnfs.errors import ReadOnly


class Overlay:
    """A read-only device with some blocks replaced in memory."""

    def __init__(self, device: BlockDevice, blocks: Mapping[int, bytes]) -> None:
        self._device = device
        self._laid = dict(blocks)

    @property
    def blocks(self) -> int:
        """Size of the device below."""
        return self._device.blocks

    @property
    def readonly(self) -> bool:
        """Always."""
        return True

    def read(self, start: int, views: Views) -> None:
        """As below, with the replaced blocks laid over."""
        self._device.read(start, views)
        at = start
        for view in views:
            count = len(view) // BLOCK
            for block in self._laid.keys() & range(at, at + count):
                view[(block - at) * BLOCK : (block - at + 1) * BLOCK] = self._laid[block]
            at += count

    def write(self, start: int, views: Buffers) -> None:
        """Never."""
        raise ReadOnly("the image is open read-only")

    def flush(self) -> None:
        """Nothing to flush."""

    def is_zero(self, start: int, count: int) -> bool:
        """As below, unless a block is replaced."""
        clear = self._laid.keys().isdisjoint(range(start, start + count))
        return clear and self._device.is_zero(start, count)

    def close(self) -> None:
        """Close the device below."""
        self._device.close()


@dataclass(frozen=True, slots=True)
class Recovered:
    """`device`: the one to go on with. `seq`: the newest transaction that happened. `logged`: the
    blocks that recovery may write again next time. `done`: "nothing", "redone" or "undone".
    `versions`: block -> newest version, where the tables may have an older one."""

    device: BlockDevice
    seq: int
    logged: frozenset[int]
    done: str
    versions: Mapping[int, int] = field(default_factory=dict)


def recover(
    device: BlockDevice,
    seed: Seed,
    log: Log,
    stamps: Mapping[int, int],
    geometry: Geometry,
    settled: int,
) -> Recovered:
    """Finish or forget the newest transaction. Durable on return, unless the device is read-only.

    `stamps`: type number -> offset of the stamp. `settled`: the number in the superblock; when it
    was written, all transactions up to it were durable in place, so what the log still has of them
    says nothing (a cut while it was being emptied may leave the older of two). Raises DeviceError.
    """
    found = log.newest_untrusted(settled)
    seq, done = found[0].seq if found else 0, "nothing"
    if not all(map(geometry.is_loggable, _named(found))):
        return Recovered(device, seq, frozenset(), done)  # no kernel wrote this
    while found:
        place = _Place(device, seed, stamps, found)
        if place.happened():
            break
        if not device.readonly:
            # What it lists may be overwritten from now on, even with the same bytes: it must never
            # be taken for complete again.
            log.erase(seq)
            device.flush()
        found, seq, done = found[1:], seq - 1, "undone"
    if not found:
        return Recovered(device, seq, frozenset(), done)
    for missing in place.missing():
        if missing and done == "nothing":
            done = "redone"
        if device.readonly:
            device = Overlay(device, missing)
        elif missing:
            for block, data in sorted(missing.items()):
                device.write(block, [data])
            # Images of the newest transaction in place prove that the one before is.
            device.flush()
    own = {i.block: seq for i in found[0].images if i.type or geometry.is_versioned_table(i.block)}
    return Recovered(device, seq, place.logged, done, {**found[0].versions, **own})


def _named(found: Iterable[Transaction]) -> Iterator[int]:
    for transaction in found:
        yield from (image.block for image in transaction.images)
        yield from (block for block, _digest in transaction.listed)
        yield from transaction.versions


class _Place:
    """The newest transaction and the one before, against what stands in place."""

    def __init__(
        self,
        device: BlockDevice,
        seed: Seed,
        stamps: Mapping[int, int],
        found: Sequence[Transaction],
    ) -> None:
        self._device, self._seed = device, seed
        self._newest, self._before = found[0], found[1:]
        marked, placed, overtaken, complete = False, False, False, True
        for image in self._newest.images:
            there, at = self._read(image.block), stamps.get(image.type)
            marked |= at is not None
            if there != image.data:
                complete = False
                overtaken |= at is not None and self._stamp(image.block, there, at) > found[0].seq
            else:
                placed |= at is not None
        # A stamp tells an image from any other. A later one: the half with the next transaction,
        # which came when this one was in place, is damaged.
        self._settled = overtaken or (complete and marked)
        self._begun = placed
        images = {image.block: image.data for image in self._newest.images}
        older = {image.block: image.data for t in self._before for image in t.images}
        self._wanted = {b: data for b, data in older.items() if b not in images}, images
        self.logged = frozenset(images if marked else images | older)

    def happened(self) -> bool:
        """Had the flush that makes the newest transaction durable written all that belongs to it?

        One stamped image in place proves that placing had begun, so the flush before it had ended.
        If there is none, nobody has overwritten what is listed.
        """
        if self._settled or self._begun:
            return True
        digest = self._seed.digest
        return all(digest(block, self._read(block)) == want for block, want in self._newest.listed)

    def missing(self) -> Iterator[dict[int, bytes]]:
        """What must be written: of the transaction before, which may not be in place yet, either,
        and then, when that is durable, of the newest."""
        for wanted in () if self._settled else self._wanted:
            yield {b: data for b, data in wanted.items() if self._read(b) != data}

    def _read(self, block: int) -> bytes:
        page = bytearray(BLOCK)
        self._device.read(block, [memoryview(page)])
        return bytes(page)

    def _stamp(self, block: int, page: bytes, at: int) -> int:
        """The number in a stamp; -1 if the block is torn."""
        crc, _kind, seq = STAMP.unpack_from(page, at)
        return int(seq) if self._seed.crc(block, page[:at], page[at + 4 :]) == crc else -1
