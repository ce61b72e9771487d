"""The wire format of access control lists: what is accepted, and that nothing else is."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libfs.posix import FsError, User, acl

BITS = st.integers(0, 7)
IDS = st.integers(0, 0xFFFFFFFE)
NAMED = st.lists(st.tuples(IDS, BITS), max_size=5).map(tuple)


@st.composite
def lists(draw: st.DrawFn) -> acl.Acl:
    users, groups = draw(NAMED), draw(NAMED)
    mask = draw(BITS if users or groups else st.none() | BITS)
    return acl.Acl(draw(BITS), draw(BITS), draw(BITS), users, groups, mask)


def _pack(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *e) for e in entries)


PLAIN = [(1, 7, acl.NO_ID), (4, 5, acl.NO_ID), (0x20, 5, acl.NO_ID)]
MASK = (0x10, 7, acl.NO_ID)

DAMAGED = {
    "short-header": (b"\x02\0\0", errno.EINVAL),
    "half-entry": (_pack(*PLAIN) + b"\0\0\0\0", errno.EINVAL),
    "version-1": (_pack(*PLAIN, version=1), errno.EOPNOTSUPP),
    "no-owner": (_pack(*PLAIN[1:]), errno.EINVAL),
    "no-group": (_pack(PLAIN[0], PLAIN[2]), errno.EINVAL),
    "no-other": (_pack(*PLAIN[:2]), errno.EINVAL),
    "two-owners": (_pack(PLAIN[0], *PLAIN), errno.EINVAL),
    "two-masks": (_pack(*PLAIN[:2], MASK, MASK, PLAIN[2]), errno.EINVAL),
    "wrong-order": (_pack(PLAIN[1], PLAIN[0], PLAIN[2]), errno.EINVAL),
    "permission-8": (_pack((1, 8, acl.NO_ID), *PLAIN[1:]), errno.EINVAL),
    "unknown-tag": (_pack(*PLAIN, (0x40, 0, 0)), errno.EINVAL),
    "tag-0": (_pack((0, 0, 0), *PLAIN), errno.EINVAL),
    "named-without-mask": (_pack(PLAIN[0], (2, 7, 5), *PLAIN[1:]), errno.EINVAL),
    "named-without-id": (
        _pack(PLAIN[0], (2, 7, acl.NO_ID), PLAIN[1], MASK, PLAIN[2]),
        errno.EINVAL,
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_acl_refuses(name: str) -> None:
    value, code = DAMAGED[name]
    with pytest.raises(FsError) as caught:
        acl.parse_untrusted(value)
    assert caught.value.errno == code
    with pytest.raises(FsError) as caught:
        acl.parse_stored_untrusted(value)
    assert caught.value.errno == errno.EUCLEAN


def test_acl_empty_is_none() -> None:
    assert acl.parse_untrusted(b"") is None
    assert acl.parse_untrusted(_pack()) is None


@given(lists())
def test_acl_round(value: acl.Acl) -> None:
    assert acl.parse_untrusted(acl.encode(value)) == value


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x02\0\0\0" + tail))
def test_acl_any_bytes_parse_or_are_refused(value: bytes) -> None:
    try:
        parsed = acl.parse_untrusted(value)
    except FsError as error:
        assert error.errno in (errno.EINVAL, errno.EOPNOTSUPP)  # noqa: PT017
    else:
        assert parsed is None or len(acl.encode(parsed)) == len(value)


@given(lists(), st.integers(0, 0o777))
def test_acl_with_mode_shows_that_mode(value: acl.Acl, mode: int) -> None:
    changed = value.with_mode(mode)
    assert changed.mode == mode
    assert (changed.users, changed.groups, changed.minimal) == (
        value.users,
        value.groups,
        value.minimal,
    )


@given(lists(), st.integers(0, 0o7777))
def test_acl_inherit_never_gives_more_than_asked(default: acl.Acl, mode: int) -> None:
    got, access = acl.inherit(default, mode)
    assert got & ~mode == 0
    assert got & ~0o777 == mode & ~0o777
    assert got & 0o777 & ~default.mode == 0
    if access is not None:
        assert access.mode == got & 0o777


@given(st.integers(0, 0o777), BITS)
def test_acl_minimal_list_is_a_mode(mode: int, want: int) -> None:
    plain = acl.Acl(mode >> 6, mode >> 3 & 7, mode & 7)
    for user in (User(1, 9), User(9, 2), User(9, 8, (2,)), User(9, 9)):
        assert acl.permits(plain, mode, 1, 2, user, want) == acl.permits(
            None, mode, 1, 2, user, want
        )


def test_acl_bytes() -> None:
    """The numbers are those of <linux/posix_acl_xattr.h>."""
    value = acl.encode(acl.Acl(7, 5, 1, ((10, 6),), ((20, 4),), 5))
    assert value.hex(" ", 8) == (
        "02000000 01000700ffffffff 020006000a000000 04000500ffffffff "
        "0800040014000000 10000500ffffffff 20000100ffffffff"
    )
