"""A disk behind a write cache, with the time of every step.

    cached      the host has taken the write; the disk has not heard of it
    submitted   the disk has it, and has not answered
    completed   the disk has answered; its own cache may still lose it
    durable     a flush that was issued after it had completed has itself completed

With `queue=0` a write is submitted when it is called and completed when it returns. Otherwise up to
so many blocks wait in the host's cache, where a later write of a block replaces the one before,
until newer ones push them out, in any order, or a flush submits them all. A block that fails on its
way out is lost: the next flush raises the error, once, and the one after that succeeds; Linux does
the same. Calls may overlap: what is submitted during a flush is not covered by it.

Faults are devices of their own (`xnfs.disk.stacked.FaultingDevice`, and `Fault` for which): above
this one they strike the call, and what is recorded here is what reached the disk; below, they
strike what leaves the cache.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from xnfs.disk.device import BlockDevice, Buffers, Views, span
from xnfs.disk.stacked import StackedDevice
from xnfs.errors import DeviceError
from xnfs_trials.crash.rawdisk import BLOCK
from xnfs_trials.crash.states import NEVER, Event, Flush, Write

CACHED, SUBMITTED, COMPLETED, DURABLE = "cached", "submitted", "completed", "durable"


@dataclass(slots=True)
class Request:
    """One block to write, or (block is None) one flush, and when it came how far, in ticks."""

    sequence: int
    block: int | None
    data: bytes
    cached: int
    submitted: int | None = None
    completed: int | None = None
    durable: int | None = None
    index: int = -1  # its place among what was submitted
    done: int | None = None  # how many had been submitted when it completed

    def state(self, at: int) -> str:
        """How far it had come at a time. A flush is never durable."""
        for when, state in ((self.durable, DURABLE), (self.completed, COMPLETED)):
            if when is not None and when <= at:
                return state
        return CACHED if self.submitted is None or self.submitted > at else SUBMITTED

    def event(self) -> Event:
        """As the cutter wants it."""
        assert self.submitted is not None  # callers pass what was submitted
        overlap = NEVER if self.done is None else self.done - self.index - 1
        if self.block is None:
            return Flush(self.sequence, self.submitted, self.completed, overlap)
        return Write(
            self.block,
            self.data,
            self.sequence,
            self.submitted,
            self.completed,
            self.durable,
            overlap,
        )


class ModelDevice(StackedDevice):
    """Passes on, sooner or later, what it is asked; remembers all of it in `requests`."""

    def __init__(self, below: BlockDevice, *, queue: int = 0, seed: int = 0) -> None:
        super().__init__(below)
        self.queue = queue
        self.now = 0
        self.requests: list[Request] = []
        self._submitted: list[Request] = []
        self._cache: dict[int, Request] = {}
        self._error: DeviceError | None = None
        self._rng = random.Random(seed)

    @property
    def events(self) -> list[Event]:
        """What was submitted, in order: for the cutter."""
        return [request.event() for request in self._submitted]

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice. The cache answers first."""
        self.below.read(start, views)
        for view in views:
            flat = view.cast("B")
            for at in range(0, flat.nbytes, BLOCK):
                if (request := self._cache.get(start)) is not None:
                    flat[at : at + BLOCK] = request.data
                start += 1

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        span(self, start, views)
        data = b"".join(views)
        new = [
            self._request(start + at // BLOCK, data[at : at + BLOCK])
            for at in range(0, len(data), BLOCK)
        ]
        if not self.queue:
            self._pass_on(new, start, views)
            return
        for request in new:
            assert request.block is not None  # they are writes
            self._cache[request.block] = request
        while len(self._cache) > self.queue:
            self._write_out(self._rng.choice(list(self._cache)))

    def flush(self) -> None:
        """See BlockDevice."""
        for block in self._rng.sample(list(self._cache), len(self._cache)):
            self._write_out(block)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        request = self._request(None, b"")
        self._submit(request)
        covered = [r for r in self._submitted if r.completed is not None and r.durable is None]
        self.below.flush()
        self._complete(request)
        for other in covered:
            if other.block is not None:
                other.durable = request.completed

    def is_zero(self, start: int, count: int) -> bool:
        """See BlockDevice."""
        cached = any(start <= block < start + count for block in self._cache)
        return not cached and self.below.is_zero(start, count)

    def _request(self, block: int | None, data: bytes) -> Request:
        request = Request(len(self.requests), block, data, self._tick())
        self.requests.append(request)
        return request

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def _submit(self, request: Request) -> None:
        request.submitted, request.index = self._tick(), len(self._submitted)
        self._submitted.append(request)

    def _complete(self, request: Request) -> None:
        request.completed, request.done = self._tick(), len(self._submitted)

    def _pass_on(self, requests: Sequence[Request], start: int, views: Buffers) -> None:
        for request in requests:
            self._submit(request)
        self.below.write(start, views)
        for request in requests:
            self._complete(request)

    def _write_out(self, block: int) -> None:
        """Submit a cached block. If that fails it is gone, and the next flush says so."""
        request = self._cache.pop(block, None)
        if request is None:
            return  # a call that overlaps was faster
        try:
            self._pass_on([request], block, [request.data])
        except DeviceError as error:
            self._error = error
