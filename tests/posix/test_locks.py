"""The lock table against a byte-by-byte model."""

from __future__ import annotations

import errno
import os

from hypothesis import given
from hypothesis import strategies as st

from libfs.posix import FsError, Ino, Lock, User
from libfs.posix.handles import Handle
from libfs.posix.locks import F_RDLCK, F_UNLCK, F_WRLCK, LockTable

SPAN = 12
STEP = st.tuples(
    st.integers(1, 3),
    st.sampled_from([F_RDLCK, F_WRLCK, F_UNLCK]),
    st.integers(0, SPAN - 1),
    st.integers(0, SPAN - 1),
)
HANDLE = Handle(Ino(1), User(0, 0), os.O_RDWR, directory=False)

# byte -> owner -> kind
Model = list[dict[int, int]]


def _free(model: Model, owner: int, kind: int, start: int, end: int) -> bool:
    return not any(
        other != owner and F_WRLCK in (kind, held)
        for byte in range(start, end + 1)
        for other, held in model[byte].items()
    )


@given(st.lists(STEP, max_size=30))
def test_locks_like_single_bytes(steps: list[tuple[int, int, int, int]]) -> None:
    table = LockTable()
    model: Model = [{} for _ in range(SPAN)]
    for owner, kind, one, two in steps:
        start, end = min(one, two), max(one, two)
        got = 0
        try:
            table.set(HANDLE, Lock(owner, kind, start, end), None)
        except FsError as error:
            got = error.errno or -1
        free = kind == F_UNLCK or _free(model, owner, kind, start, end)
        assert got == (0 if free else errno.EAGAIN)
        for byte in range(start, end + 1) if free else ():
            model[byte].pop(owner, None)
            if kind != F_UNLCK:
                model[byte][owner] = kind
        _compare(table, model)


def _compare(table: LockTable, model: Model) -> None:
    """Ask for each byte, as somebody else and as each owner."""
    for byte in range(SPAN):
        for asker in range(4):
            for kind in (F_RDLCK, F_WRLCK):
                found = table.test(HANDLE, Lock(asker, kind, byte, byte))
                assert (found is None) == _free(model, asker, kind, byte, byte)
                if found is not None:
                    held = range(found.start, found.end + 1)
                    assert all(model[b].get(found.owner) == found.kind for b in held)


@given(st.lists(STEP, max_size=40))
def test_locks_who_waits_is_served_in_the_end(steps: list[tuple[int, int, int, int]]) -> None:
    """When all owners have let go, nobody waits any more."""
    table = LockTable()
    served: list[int] = []
    queued = 0
    for number, (owner, kind, one, two) in enumerate(steps):
        lock = Lock(owner, kind, min(one, two), max(one, two))
        try:
            queued += not table.set(HANDLE, lock, lambda number=number: served.append(number))  # type: ignore[misc]
        except FsError as error:
            assert error.errno == errno.EDEADLK  # noqa: PT017
    for _ in range(len(steps) + 1):
        for owner in range(1, 4):
            table.unlock_owner(HANDLE, owner)
    assert len(served) == len(set(served)) == queued
    assert table.test(HANDLE, Lock(9, F_WRLCK, 0, SPAN)) is None
