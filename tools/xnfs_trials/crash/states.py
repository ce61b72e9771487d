"""The states that a power cut can leave on a disk, derived from the writes and the flushes alone.

Everything written before the last completed flush is there. Of the blocks written since, any
subset may be there, each whole or torn at a boundary of 512 bytes. A write of many blocks counts
as many writes of one. Nothing here knows what XN believes of its own order; that the two agree is
what the tests show.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

BLOCK = 4096
SECTOR = 512
ZERO = bytes(BLOCK)
ZERO_SECTOR = bytes(SECTOR)
EXHAUSTIVE = 6


#: `overlap` of what never completed: a failed write or flush, one under way at the end
NEVER = 1 << 60
#: flag of a write: metadata, as far as its bytes and its place tell
METADATA = 1


@dataclass(frozen=True, slots=True)
class Write:
    """One block handed to the device. What decides is the order of events and `overlap`; the times
    are for people."""

    block: int
    data: bytes
    sequence: int = 0  # number among all that the device was asked
    submitted: int = 0  # ticks of the device's clock
    completed: int | None = 0
    durable: int | None = None  # when the first flush that covers it had completed
    overlap: int = 0  # how many of the events after it were submitted before it completed
    flags: int = 0

    @property
    def sectors(self) -> tuple[int, ...]:
        """A digest of each sector: equal for equal bytes at the same place."""
        return digests(self.block, self.data)


@dataclass(frozen=True, slots=True)
class Flush:
    """A flush: every write that had completed before it is durable once it has completed."""

    sequence: int = 0
    submitted: int = 0
    completed: int | None = 0
    overlap: int = 0


Event = Write | Flush


@dataclass
class State:
    """One image after a cut. `image` is shared between states: copy what you keep."""

    event: int  # the cut is after this many events
    image: dict[int, bytes]
    key: int  # equal for equal images
    label: str
    kept: tuple[int, ...] = ()  # indices of the unflushed writes that reached the disk
    torn: tuple[int, int] | None = None  # of these, the one that tore: (index, mask of sectors)


@lru_cache(maxsize=1 << 13)
def digests(block: int, data: bytes) -> tuple[int, ...]:
    """A digest of each sector of a block; 0 for one of zeros. XOR them for the whole block."""
    salt = block.to_bytes(8, "little")
    return tuple(
        int.from_bytes(
            hashlib.blake2b(
                data[at : at + SECTOR], digest_size=16, salt=salt, person=at.to_bytes(2, "little")
            ).digest(),
            "little",
        )
        if data[at : at + SECTOR] != ZERO_SECTOR
        else 0
        for at in range(0, BLOCK, SECTOR)
    )


@lru_cache(maxsize=1 << 15)
def _digest(block: int, data: bytes) -> int:
    raw = hashlib.blake2b(data, digest_size=16, salt=block.to_bytes(8, "little")).digest()
    return int.from_bytes(raw, "little")


class Cutter:
    """Walks through the events once and yields the states at each."""

    def __init__(
        self,
        base: Mapping[int, bytes],
        events: Sequence[Event],
        rng: random.Random,
        *,
        samples: int = 12,
        torn: int = 2,
        exhaustive: int = EXHAUSTIVE,
    ) -> None:
        self.events = events
        self.rng = rng
        self.samples, self.torn, self.exhaustive = samples, torn, exhaustive
        self.image = dict(base)
        self.key = 0

    def _put(self, block: int, data: bytes) -> None:
        self.key ^= _digest(block, self.image.get(block, ZERO)) ^ _digest(block, data)
        self.image[block] = data

    def states(self, asks: Sequence[int]) -> Iterator[State]:
        """All states worth a look. `asks`: numbers of events after which a sync has returned, so
        that the same images must keep a stronger promise from there on."""
        pending: list[Write] = []
        again = set(asks)
        yield State(0, self.image, self.key, "nothing written")
        for number, event in enumerate(self.events, 1):
            if isinstance(event, Flush):
                for write in pending:
                    self._put(write.block, write.data)
                pending = []
                yield State(number, self.image, self.key, "flushed")
            else:
                pending.append(event)
                yield from self._cut(number, pending, newest=True)
            if number in again and pending:
                yield from self._cut(number, pending, newest=False)

    def _cut(self, number: int, pending: list[Write], *, newest: bool) -> Iterator[State]:
        """Subsets of the pending writes; with `newest` only those that hold the last one, the
        others have been seen."""
        n = len(pending)
        for mask in self._masks(n, newest):
            chosen = [w for i, w in enumerate(pending) if mask >> i & 1]
            yield from self._apply(number, chosen, f"{mask:0{n}b} of {n}")
        for _ in range(self.torn):
            mask = self._random_mask(n) | 1 << n - 1
            chosen = [w for i, w in enumerate(pending) if mask >> i & 1]
            sectors = self._sectors()
            label = f"{mask:0{n}b} of {n}, block {chosen[-1].block} torn {sectors:08b}"
            yield from self._apply(number, chosen, label, sectors)

    def _random_mask(self, n: int) -> int:
        return self.rng.getrandbits(n) if self.rng.random() < 0.5 else (1 << n) - 1

    def _sectors(self) -> int:
        prefix = self.rng.random() < 0.6
        return (1 << self.rng.randrange(1, 8)) - 1 if prefix else self.rng.randrange(1, 255)

    def _masks(self, n: int, newest: bool) -> Iterator[int]:
        last = 1 << n - 1 if newest else 0
        if n <= self.exhaustive:
            yield from (m | last for m in range(1 << (n - 1 if newest else n)))
            return
        full = (1 << n) - 1
        masks = {full, last}
        for _ in range(self.samples):
            one = 1 << self.rng.randrange(n)
            masks |= {full ^ one | last, one | last, self.rng.getrandbits(n) | last}
            masks.add((one - 1) | last)
        picked = self.rng.sample(sorted(masks), min(len(masks), self.samples))
        yield from {full, last, *picked}

    def _apply(
        self, number: int, chosen: list[Write], label: str, sectors: int = 255
    ) -> Iterator[State]:
        """Put the writes on the image, yield it, take them back."""
        saved: dict[int, bytes] = {}
        for i, write in enumerate(chosen):
            saved.setdefault(write.block, self.image.get(write.block, ZERO))
            data = write.data
            if sectors != 255 and i == len(chosen) - 1:
                data = _tear(self.image.get(write.block, ZERO), data, sectors)
            self._put(write.block, data)
        yield State(number, self.image, self.key, label)
        for block, data in saved.items():
            self._put(block, data)


def _tear(old: bytes, new: bytes, sectors: int) -> bytes:
    """The sectors whose bit is set are new."""
    return b"".join(
        (new if sectors >> i & 1 else old)[i * SECTOR : (i + 1) * SECTOR] for i in range(8)
    )
