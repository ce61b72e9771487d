"""The states that a power cut can leave on a disk, derived from the writes and the flushes alone.

Every write that had completed before a flush was issued is there once the flush has completed. Of
all others any subset may be there, each whole or torn at a boundary of 512 bytes. A write of many
blocks counts as many writes of one. Nothing here knows what XN believes of its own order; that the
two agree is what the tests show.

A `Plan` says which of these states are made, and how many at most; `choices.py` numbers them.
Neighbours in the order of making differ in few blocks, so that image, digests and key are kept up
by toggling.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from xnfs_trials.crash.choices import WHOLE, Choice, Cutpoint, Plan, number_of, pick, share_out

BLOCK = 4096
SECTOR = 512
ZERO = bytes(BLOCK)
ZERO_SECTOR = bytes(SECTOR)
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


class State:
    """One image after a cut. Key and choice are its own; image and digests are those of the
    cutter, made when they are asked for and good until the next state: copy what you keep."""

    __slots__ = ("_cutter", "acked", "choice", "event", "key", "pending")

    def __init__(
        self,
        cutter: Cutter,
        event: int,
        acked: int,
        key: int,
        pending: tuple[int, ...],
        choice: Choice,
    ) -> None:
        self._cutter = cutter
        self.event = event  # the cut is after this many events
        self.acked = acked  # and a sync that returned after this many has returned
        self.key = key  # XOR of the digests: equal for equal images
        self.pending = pending  # indices of the events that the cut could have lost
        self.choice = choice

    @property
    def image(self) -> dict[int, bytes]:
        """The blocks that are not zero, and perhaps some that are."""
        self._cutter.tear()
        return self._cutter.image

    @property
    def digest(self) -> dict[int, int]:
        """The digest of each block; 0 for zeros."""
        self._cutter.tear()
        return self._cutter.digest

    @property
    def kept(self) -> tuple[int, ...]:
        """Of the pending writes, those that reached the disk (one of them perhaps in part)."""
        return tuple(e for i, e in enumerate(self.pending) if self.choice.mask >> i & 1)

    @property
    def lost(self) -> tuple[int, ...]:
        """And those that did not."""
        return tuple(e for i, e in enumerate(self.pending) if not self.choice.mask >> i & 1)

    @property
    def torn(self) -> tuple[int, int] | None:
        """(index of the event, sectors that are new), if one tore."""
        mask, torn, sectors, _alike = self.choice
        return None if sectors == WHOLE or not mask else (self.pending[torn], sectors)

    @property
    def label(self) -> str:
        """For people."""
        if not self.pending:
            return "everything is durable"
        text = f"{self.choice.mask:0{len(self.pending)}b} of {len(self.pending)} writes"
        return text + (f", event {self.torn[0]} torn {self.torn[1]:08b}" if self.torn else "")


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


@lru_cache(maxsize=1 << 13)
def digest(block: int, data: bytes) -> int:
    """A digest of a block."""
    out = 0
    for sector in digests(block, data):
        out ^= sector
    return out


def image_digests(image: Mapping[int, bytes]) -> dict[int, int]:
    """The digest of each block that is not zero."""
    return {block: value for block, data in image.items() if (value := digest(block, data))}


def image_key(image: Mapping[int, bytes]) -> int:
    """The key of an image, from nothing but the image."""
    key = 0
    for value in image_digests(image).values():
        key ^= value
    return key


class Cutter:
    """Walks through the events once and yields the states at each cut."""

    def __init__(
        self,
        base: Mapping[int, bytes],
        events: Sequence[Event],
        rng: random.Random,
        plan: Plan,
        *,
        metadata: Callable[[Write], bool] = lambda write: bool(write.flags & METADATA),
        known: Mapping[int, int] | None = None,
    ) -> None:
        """`metadata`: of which writes every subset of the sectors is tried. `known`: the digests of
        the base, if the caller has them."""
        self.events = events
        self.plan = plan
        self.rng = rng
        self._metadata = metadata
        self._known_metadata: dict[int, bool] = {}
        self.image = dict(base)
        self.digest = image_digests(base) if known is None else dict(known)
        self.key = 0
        for value in self.digest.values():
            self.key ^= value
        #: legal states of the plan that its limit keeps from being made; known once they are asked
        self.left_out = 0
        self._pending: tuple[int, ...] = ()
        self._mask = 0  # which of the pending writes are on the image now
        self._under: dict[int, bytes] = {}  # block of a pending write -> its durable bytes
        self._halves = -1, ZERO, ZERO  # the block that tears, its old and new bytes
        self._differ: list[int] = []  # by how much the digests of its sectors differ
        self._torn: tuple[int, int] | None = None  # (block, sectors) that wait to be asked for

    def states(self, asks: Sequence[int] = ()) -> Iterator[State]:
        """All states of the plan. `asks`: numbers of events after which a sync has returned, so
        that the same images must keep a stronger promise from there on."""
        cuts = list(self._cuts(set(asks)))
        counts = [number_of(cut, self.plan) for cut in cuts]
        shares = share_out(counts, self.plan.states)
        self.left_out = sum(counts) - sum(shares)
        for cut, share in zip(cuts, shares, strict=True):
            self._enter(cut)
            for choice in pick(cut, self.plan, share, self.rng):
                self._go(choice.mask)
                yield from self._show(cut, choice)

    # -- which cuts there are

    def _cuts(self, asks: set[int]) -> Iterator[Cutpoint]:
        """The cuts, in order, with what each could lose."""
        pending: list[int] = []
        flushes: list[int] = []  # submitted, not yet completed
        latest = dict(self.image) if self.plan.few else {}
        yield Cutpoint(0, 0, (), (), newest=False, closing=False, metadata=0)
        for number, event in enumerate(self.events, 1):
            index = number - 1
            if isinstance(event, Flush):
                flushes.append(index)
            else:
                pending.append(index)
            ending = [f for f in flushes if f + 1 + self.events[f].overlap == number]
            if isinstance(event, Write):
                # A sync that returns at this very number is not yet promised by these.
                cut = self._cutpoint(number, number - bool(ending), pending, newest=True)
                yield replace(cut, few=self._few(event, latest)) if self.plan.few else cut
            flushes = [f for f in flushes if f not in ending]
            done = [w for w in pending if any(w + 1 + self.events[w].overlap <= f for f in ending)]
            if ending:
                pending = [w for w in pending if w not in done]
                yield Cutpoint(number, number, tuple(pending), tuple(done), newest=None)
            if number in asks and pending:
                yield self._cutpoint(number, number, pending, newest=False)

    def _cutpoint(self, number: int, acked: int, pending: list[int], *, newest: bool) -> Cutpoint:
        closing = number == len(self.events) or isinstance(self.events[number], Flush)
        metadata = sum(self._is_metadata(index) << i for i, index in enumerate(pending))
        return Cutpoint(number, acked, tuple(pending), (), newest, closing, metadata)

    def _few(self, write: Write, latest: dict[int, bytes]) -> tuple[int, ...]:
        """The sectors that change from what lay there last, if it is metadata and they are few."""
        old, latest[write.block] = latest.get(write.block, ZERO), write.data
        both = zip(digests(write.block, old), digests(write.block, write.data), strict=True)
        changed = tuple(i for i, (one, other) in enumerate(both) if one != other)
        return changed if len(changed) <= self.plan.few and self._metadata(write) else ()

    def _is_metadata(self, index: int) -> bool:
        if index not in self._known_metadata:
            write = self.events[index]
            self._known_metadata[index] = isinstance(write, Write) and self._metadata(write)
        return self._known_metadata[index]

    # -- the image

    def _enter(self, cut: Cutpoint) -> None:
        """What was settled before this cut is durable; what was submitted since is pending."""
        if cut.settled:
            self._go(0)
            for index in cut.settled:
                write = self.events[index]
                assert isinstance(write, Write)
                self._put(write.block, write.data, digest(write.block, write.data))
                self._under[write.block] = write.data
        mask = 0
        on = {e for i, e in enumerate(self._pending) if self._mask >> i & 1}
        for i, index in enumerate(cut.pending):
            write = self.events[index]
            assert isinstance(write, Write)
            self._under.setdefault(write.block, self.image.get(write.block, ZERO))
            mask |= (index in on) << i
        self._pending, self._mask = cut.pending, mask
        if not cut.pending:
            self._under = {}

    def _put(self, block: int, data: bytes, value: int) -> None:
        self.key ^= self.digest.get(block, 0) ^ value
        self.digest[block] = value
        self.image[block] = data

    def _go(self, mask: int) -> None:
        """Put exactly these pending writes on the image."""
        change = mask ^ self._mask
        self._mask = mask
        while change:
            i = change.bit_length() - 1
            change ^= 1 << i
            write = self.events[self._pending[i]]
            assert isinstance(write, Write)
            data = self._content(write.block, mask)
            self._put(write.block, data, digest(write.block, data))

    def _content(self, block: int, mask: int) -> bytes:
        """A block with these pending writes on it: the last one counts."""
        while mask:
            i = mask.bit_length() - 1
            mask ^= 1 << i
            write = self.events[self._pending[i]]
            if isinstance(write, Write) and write.block == block:
                return write.data
        return self._under[block]

    def _show(self, cut: Cutpoint, choice: Choice) -> Iterator[State]:
        """Yield the state, with one block torn if the choice says so; the bytes are torn only if
        somebody asks for them."""
        if choice.sectors == WHOLE or not choice.mask:
            yield State(self, cut.number, cut.acked, self.key, self._pending, choice)
            return
        key, block = self.key, self._tearable(choice)
        if block is not None:
            key ^= self._missing(choice.sectors)
            self._torn = block, choice.sectors
        yield State(self, cut.number, cut.acked, key, self._pending, choice)
        if block is not None:
            if self._torn is None:
                now = self._halves[2]
                self._put(block, now, digest(block, now))
            self._torn = None

    def _tearable(self, choice: Choice) -> int | None:
        """The block that tears, unless a later write of it lies over it; its old and new bytes."""
        write = self.events[self._pending[choice.torn]]
        assert isinstance(write, Write)
        if self.image[write.block] is not write.data:
            return None
        old = self._content(write.block, choice.mask ^ 1 << choice.torn)
        known, before, after = self._halves
        if known != write.block or before is not old or after is not write.data:
            self._halves = write.block, old, write.data
            both = zip(digests(write.block, old), digests(write.block, write.data), strict=True)
            self._differ = [one ^ other for one, other in both]
        return write.block

    def _missing(self, sectors: int) -> int:
        """What the key changes by when of the torn block only these sectors are new."""
        out = 0
        for i, differ in enumerate(self._differ):
            if not sectors >> i & 1:
                out ^= differ
        return out

    def tear(self) -> None:
        """Put the torn block of the state on the image, if it has one and it isn't there yet."""
        if self._torn is not None:
            (block, sectors), self._torn = self._torn, None
            _, old, new = self._halves
            self._put(block, tear(old, new, sectors), self.digest[block] ^ self._missing(sectors))


def tear(old: bytes, new: bytes, sectors: int) -> bytes:
    """The sectors whose bit is set are new."""
    return b"".join(
        (new if sectors >> i & 1 else old)[i * SECTOR : (i + 1) * SECTOR] for i in range(8)
    )
