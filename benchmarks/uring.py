"""FUSE over io_uring, as far as a measurement needs it: a ring, its entries, commit and fetch.

The host kernel puts each request into a buffer that the server registered, and one system call
commits the answers to some requests and waits for the next ones. Used by `transports.py` only.
Sources: `Documentation/filesystems/fuse/fuse-io-uring.rst` and `include/uapi/linux/fuse.h` and
`io_uring.h` of Linux 6.14 and later; no Python package has the records, so they stand here.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PARAMETER: Final = Path("/sys/module/fuse/parameters/enable_uring")
#: Among the flags of INIT.
OVER_IO_URING: Final = 1 << 41

_SETUP, _ENTER = 425, 426
_FLAGS: Final = 1 << 10 | 1 << 12 | 1 << 13  # SQE128, SINGLE_ISSUER, DEFER_TASKRUN
_SQES_AT: Final = 0x10000000
_GETEVENTS: Final = 1
_URING_CMD: Final = 46
_REGISTER, _COMMIT_AND_FETCH = 1, 2

# opcode; fd, command; address, length; user_data; flags, commit id, queue
_SQE: Final = struct.Struct("=B3xiI4xQI4xQ8xQQH6x")
_SQE_SIZE: Final = 128
_CQE: Final = struct.Struct("=Qi4x")  # user_data, result
_IOVECS: Final = struct.Struct("=QQQQ")
#: Where the fixed record of an opcode lies in a header, and the words about the payload.
FIXED_AT: Final = 128
_ENTRY_AT: Final = 256
_ENTRY: Final = struct.Struct("=8xQI")  # commit id, size of the payload
_SIZE: Final = struct.Struct("=I")
_HEADER_SIZE: Final = 288

#: (header, payload, its size) -> size of the answer's payload; both are overwritten with it.
Answer = Callable[[memoryview, memoryview, int], int]


@contextmanager
def enabled() -> Iterator[None]:
    """Offer it to who mounts meanwhile, on the whole machine. A connection keeps what was agreed
    on at INIT, so no mount needs this for longer."""
    before = PARAMETER.read_text().strip()
    PARAMETER.write_text("Y")
    try:
        yield
    finally:
        PARAMETER.write_text(before)


def address(memory: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Ring:
    """One ring, with the queues of all cores: the host kernel wants one for each."""

    def __init__(self, fuse: int, payload: int, depth: int) -> None:
        """`depth` entries for each queue, with `payload` bytes each."""
        self._fuse = fuse
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        queues = range(os.cpu_count() or 1)
        number = len(queues) * depth
        parameters = ctypes.create_string_buffer(struct.pack("=III108x", 0, 0, _FLAGS))
        self._fd = self._checked(_SETUP, number, parameters)
        words = struct.unpack_from("=30I", parameters.raw)
        sq, cq = words[10:20], words[20:30]  # head, tail, ring_mask, ring_entries, ...
        size = max(sq[6] + 4 * words[0], cq[5] + _CQE.size * words[1])
        self._memory = mmap.mmap(self._fd, size)  # both rings in one, IORING_FEAT_SINGLE_MMAP
        self._words = memoryview(self._memory).cast("I")
        self._sqes = mmap.mmap(self._fd, words[0] * _SQE_SIZE, offset=_SQES_AT)
        self._sq_tail, self._sq_mask, self._array = sq[1] // 4, words[0] - 1, sq[6] // 4
        self._cq_head, self._cq_tail, self._cq_mask = cq[0] // 4, cq[1] // 4, words[1] - 1
        self._cqes = cq[5]
        self._waiting = 0
        self._entries: list[tuple[int, memoryview, memoryview, object]] = []
        for queue in queues:
            for _ in range(depth):
                self._register(queue, mmap.mmap(-1, 4096), mmap.mmap(-1, payload))

    def _checked(self, *arguments: object) -> int:
        result = int(self._syscall(*arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def _register(self, queue: int, header: mmap.mmap, payload: mmap.mmap) -> None:
        iovecs = ctypes.create_string_buffer(
            _IOVECS.pack(address(header), _HEADER_SIZE, address(payload), len(payload))
        )
        self._entries.append((queue, memoryview(header), memoryview(payload), iovecs))
        where = (ctypes.addressof(iovecs), 2)
        self._submit(_REGISTER, len(self._entries) - 1, queue, 0, where)

    def _submit(
        self, command: int, index: int, queue: int, commit: int, where: tuple[int, int] = (0, 0)
    ) -> None:
        words, mask = self._words, self._sq_mask
        tail = words[self._sq_tail]
        slot = tail & mask
        _SQE.pack_into(
            self._sqes, slot * _SQE_SIZE,
            *(_URING_CMD, self._fuse, command, *where, index, 0, commit, queue),
        )  # fmt: skip
        words[self._array + slot] = slot
        words[self._sq_tail] = tail + 1 & 0xFFFFFFFF
        self._waiting += 1

    def serve(self, answer: Answer) -> None:
        """Until the mount is gone."""
        words, memory = self._words, self._memory
        while True:
            self._checked(_ENTER, self._fd, self._waiting, 1, _GETEVENTS, None, 0)
            self._waiting = 0
            head = words[self._cq_head]
            while head != words[self._cq_tail]:
                at = self._cqes + (head & self._cq_mask) * _CQE.size
                index, result = _CQE.unpack_from(memory, at)
                head = head + 1 & 0xFFFFFFFF
                if result < 0:
                    return
                queue, header, payload, _iovecs = self._entries[index]
                commit, size = _ENTRY.unpack_from(header, _ENTRY_AT)
                _SIZE.pack_into(header, _ENTRY_AT + 16, answer(header, payload, size))
                self._submit(_COMMIT_AND_FETCH, index, queue, commit)
            words[self._cq_head] = head
