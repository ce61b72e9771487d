"""POSIX ACLs: who gets what, mode and list following each other, inheritance."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libfs.posix import Ino, Posix, User
from libfs.posix.interface import ACL_ACCESS, ACL_DEFAULT
from tests.conformance.conftest import FACTORIES
from tests.conformance.support import (
    ALICE,
    BOB,
    CREATE,
    ROOT,
    errno_of,
    make_dir,
    make_file,
    perm,
    refuses,
)

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF
Entries = list[tuple[int, int, int]]

OWNER, GID = 1000, 100


def wire(entries: Entries) -> bytes:
    """The format of Linux, written down a second time."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def unwire(value: bytes) -> Entries:
    return [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]


def build(
    owner: int,
    group: int,
    other: int,
    mask: int | None = None,
    users: tuple[tuple[int, int], ...] = (),
    groups: tuple[tuple[int, int], ...] = (),
) -> Entries:
    entries: Entries = [(USER_OBJ, owner, NO_ID)]
    entries += [(USER, perms, uid) for uid, perms in users]
    entries.append((GROUP_OBJ, group, NO_ID))
    entries += [(GROUP, perms, gid) for gid, perms in groups]
    if mask is not None:
        entries.append((MASK, mask, NO_ID))
    entries.append((OTHER, other, NO_ID))
    return entries


def reference(entries: Entries, user: User, want: int) -> bool:
    """acl(5), "Access check algorithm", line by line."""
    masks = [perms for tag, perms, _ in entries if tag == MASK]
    mask = masks[0] if masks else 7
    mine = {user.gid, *user.groups}
    if user.uid == OWNER:
        return (entries[0][1] & want) == want
    for tag, perms, ident in entries:
        if tag == USER and ident == user.uid:
            return (perms & mask & want) == want
    matched = False
    for tag, perms, ident in entries:
        if (tag == GROUP_OBJ and GID in mine) or (tag == GROUP and ident in mine):
            matched = True
            if (perms & want) == want:
                return (perms & mask & want) == want
    return not matched and (entries[-1][1] & want) == want


USERS = [
    User(OWNER, 5),
    User(2000, 5),
    User(2001, 5),
    User(3000, GID),
    User(3000, 5, (7, GID)),
    User(3000, 201),
    User(3000, 5, (201, 202)),
    User(3000, GID, (201,)),
    User(2000, GID, (201,)),
    User(4000, 4000),
]


def _file(posix: Posix, name: bytes = b"f") -> Ino:
    ino = make_file(posix, posix.root, name)
    posix.setattr(ROOT, ino, uid=OWNER, gid=GID)
    return ino


def _check_against_reference(posix: Posix, ino: Ino, entries: Entries) -> None:
    for user, want in itertools.product(USERS, (1, 2, 4, 6, 7)):
        got = errno_of(partial(posix.access, user, ino, want))
        expected = 0 if reference(entries, user, want) else errno.EACCES
        assert got == expected, (user, want, entries)


TABLE = [
    build(7, 5, 0),
    build(0, 7, 7),
    build(7, 0, 7),
    build(6, 4, 4, mask=7),
    build(7, 7, 7, mask=0, users=((2000, 7),), groups=((201, 7),)),
    build(7, 0, 0, mask=7, users=((2000, 7),)),
    build(7, 0, 0, mask=5, users=((2000, 7), (2001, 2))),
    build(7, 7, 7, mask=7, users=((2000, 0),)),
    build(7, 0, 7, mask=7, groups=((201, 6),)),
    build(7, 4, 0, mask=7, groups=((201, 2), (202, 1))),  # rights of groups do not add up
    build(7, 1, 7, mask=7, users=((2000, 1),), groups=((201, 7), (202, 0))),
    build(7, 6, 0, mask=4, groups=((201, 7),)),
    build(0, 7, 7, mask=7, users=((OWNER, 7),)),  # the owner is never looked up by name
]


@pytest.mark.parametrize("entries", TABLE, ids=range(len(TABLE)))
def test_acl_table(posix: Posix, entries: Entries) -> None:
    ino = _file(posix)
    posix.setxattr(ROOT, ino, ACL_ACCESS, wire(entries))
    _check_against_reference(posix, ino, entries)
    for mode in (0, 0o070, 0o707, 0o740):
        posix.setattr(ROOT, ino, mode=mode)
        changed = _after_chmod(entries, mode)
        _check_against_reference(posix, ino, changed)


def _after_chmod(entries: Entries, mode: int) -> Entries:
    """chmod sets owner, other, and the mask if there is one, the owning group if not."""
    middle = MASK if any(tag == MASK for tag, _, _ in entries) else GROUP_OBJ
    new = {USER_OBJ: mode >> 6 & 7, middle: mode >> 3 & 7, OTHER: mode & 7}
    return [(tag, new.get(tag, perms), ident) for tag, perms, ident in entries]


BITS = st.integers(0, 7)
NAMED = st.lists(st.tuples(st.sampled_from([2000, 2001, 201, 202, OWNER]), BITS), max_size=3)


@pytest.mark.parametrize("kind", sorted(FACTORIES))
def test_acl_property_like_the_reference(kind: str) -> None:
    posix = Posix(FACTORIES[kind]())
    ino = _file(posix)

    @settings(max_examples=60)
    @given(BITS, BITS, BITS, BITS, NAMED, NAMED)
    def check(
        owner: int,
        group: int,
        other: int,
        mask: int,
        users: list[tuple[int, int]],
        groups: list[tuple[int, int]],
    ) -> None:
        named = dict(users)
        entries = build(
            owner, group, other, mask, tuple(named.items()), tuple(dict(groups).items())
        )
        posix.setxattr(ROOT, ino, ACL_ACCESS, wire(entries))
        _check_against_reference(posix, ino, entries)

    check()
    posix.close()


# -- mode and list


def test_acl_sets_mode(posix: Posix) -> None:
    ino = _file(posix)
    entries = build(6, 7, 1, mask=4, users=((2000, 7),))
    posix.setxattr(User(OWNER, 5), ino, ACL_ACCESS, wire(entries))
    assert perm(posix.getattr(ROOT, ino)) == 0o641
    assert posix.getxattr(BOB, ino, ACL_ACCESS) == wire(entries)
    assert ACL_ACCESS in posix.listxattr(BOB, ino)


def test_acl_follows_chmod(posix: Posix) -> None:
    ino = _file(posix)
    posix.setxattr(ROOT, ino, ACL_ACCESS, wire(build(6, 7, 1, mask=4, users=((2000, 7),))))
    posix.setattr(ROOT, ino, mode=0o725)
    expected = build(7, 7, 5, mask=2, users=((2000, 7),))
    assert unwire(posix.getxattr(ROOT, ino, ACL_ACCESS)) == expected


def test_acl_that_a_mode_can_say_is_not_stored(posix: Posix) -> None:
    ino = _file(posix)
    posix.setxattr(ROOT, ino, ACL_ACCESS, wire(build(6, 4, 0, mask=6, users=((2000, 7),))))
    posix.setxattr(ROOT, ino, ACL_ACCESS, wire(build(6, 5, 0)))
    assert perm(posix.getattr(ROOT, ino)) == 0o650
    assert posix.listxattr(ROOT, ino) == []
    with refuses(errno.ENODATA):
        posix.getxattr(ROOT, ino, ACL_ACCESS)


@pytest.mark.parametrize("how", ["remove", "empty", "no-entries"])
@pytest.mark.parametrize("name", [ACL_ACCESS, ACL_DEFAULT])
def test_acl_removal(posix: Posix, name: bytes, how: str) -> None:
    ino = make_dir(posix, posix.root, b"d")
    posix.setxattr(ROOT, ino, name, wire(build(7, 5, 5, mask=7, users=((2000, 7),))))
    for _ in range(2):  # a second time changes nothing and is no error
        if how == "remove":
            posix.removexattr(ROOT, ino, name)
        else:
            posix.setxattr(ROOT, ino, name, b"" if how == "empty" else wire([]))
    assert posix.listxattr(ROOT, ino) == []


def test_acl_set_drops_sgid_for_strangers(posix: Posix) -> None:
    ino = _file(posix)
    posix.setattr(ROOT, ino, mode=0o2755)
    posix.setxattr(User(OWNER, 5), ino, ACL_ACCESS, wire(build(7, 5, 5)))
    assert perm(posix.getattr(ROOT, ino)) == 0o755
    posix.setattr(ROOT, ino, mode=0o2755)
    posix.setxattr(User(OWNER, GID), ino, ACL_ACCESS, wire(build(7, 5, 5)))
    assert perm(posix.getattr(ROOT, ino)) == 0o2755


def test_acl_rights(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", user=ALICE, mode=0o777)
    for name in (ACL_ACCESS, ACL_DEFAULT):
        with refuses(errno.EPERM):
            posix.setxattr(BOB, ino, name, wire(build(7, 7, 7)))
        with refuses(errno.EPERM):
            posix.removexattr(BOB, ino, name)
        posix.setxattr(ALICE, ino, name, wire(build(7, 7, 7)))


def test_acl_on_other_kinds(posix: Posix) -> None:
    link = posix.symlink(ROOT, posix.root, b"l", b"t").ino
    for name in (ACL_ACCESS, ACL_DEFAULT):
        with refuses(errno.EOPNOTSUPP):
            posix.setxattr(ROOT, link, name, wire(build(7, 7, 7)))
        with refuses(errno.EOPNOTSUPP):
            posix.getxattr(ROOT, link, name)
    file = _file(posix)
    with refuses(errno.EACCES):
        posix.setxattr(ROOT, file, ACL_DEFAULT, wire(build(7, 7, 7)))
    with refuses(errno.ENODATA):
        posix.getxattr(ROOT, file, ACL_DEFAULT)
    fifo = posix.mknod(ROOT, posix.root, b"p", stat.S_IFIFO | 0o600).ino
    posix.setxattr(ROOT, fifo, ACL_ACCESS, wire(build(6, 6, 0, mask=6, users=((2000, 6),))))
    posix.access(User(2000, 5), fifo, 6)


# -- inheritance

DEFAULT = build(7, 7, 5, mask=7, users=((2000, 7),), groups=((201, 5),))


def _parent(posix: Posix, entries: Entries) -> Ino:
    ino = make_dir(posix, posix.root, b"d", mode=0o777)
    posix.setxattr(ROOT, ino, ACL_DEFAULT, wire(entries))
    assert perm(posix.getattr(ROOT, ino)) == 0o777
    return ino


@pytest.mark.parametrize("mode", [0o777, 0o644, 0o600, 0o007, 0o4755])
@pytest.mark.parametrize("how", ["create", "tmpfile", "mkdir", "fifo"])
def test_acl_inheritance(posix: Posix, how: str, mode: int) -> None:
    """The umask does not count; the mode asked for limits owner, mask and other."""
    parent = _parent(posix, DEFAULT)
    fh = None
    if how == "create":
        attr, fh = posix.create(ALICE, parent, b"x", mode, CREATE, 0o077)
    elif how == "tmpfile":
        attr, fh = posix.tmpfile(ALICE, parent, mode, os.O_RDWR, 0o077)
    elif how == "mkdir":
        attr = posix.mkdir(ALICE, parent, b"x", mode, 0o077)
    else:
        attr = posix.mknod(ALICE, parent, b"x", stat.S_IFIFO | mode, 0, 0o077)
    setid = 0 if how == "mkdir" else mode & 0o7000
    assert perm(attr) == mode & 0o775 | setid
    expected = _after_chmod(DEFAULT, mode & 0o775)
    assert unwire(posix.getxattr(ROOT, attr.ino, ACL_ACCESS)) == expected
    if how == "mkdir":
        assert unwire(posix.getxattr(ROOT, attr.ino, ACL_DEFAULT)) == DEFAULT
    if fh is not None:
        posix.release(fh)


def test_acl_inheritance_goes_on(posix: Posix) -> None:
    parent = _parent(posix, DEFAULT)
    for _ in range(3):
        parent = posix.mkdir(ALICE, parent, b"x", 0o777, 0o077).ino
    assert unwire(posix.getxattr(ROOT, parent, ACL_DEFAULT)) == DEFAULT
    posix.access(User(2000, 5), parent, 7)


def test_acl_inheritance_of_a_plain_list(posix: Posix) -> None:
    """A default list that a mode can say takes the umask's place, and gives files no list."""
    parent = _parent(posix, build(7, 5, 1))
    attr, fh = posix.create(ALICE, parent, b"x", 0o666, CREATE, 0o077)
    assert perm(attr) == 0o640
    assert posix.listxattr(ROOT, attr.ino) == []
    posix.release(fh)
    assert posix.listxattr(ROOT, posix.mkdir(ALICE, parent, b"y", 0o777).ino) == [ACL_DEFAULT]


def test_acl_inheritance_not_by_symlinks(posix: Posix) -> None:
    parent = _parent(posix, DEFAULT)
    attr = posix.symlink(ALICE, parent, b"l", b"t")
    assert perm(attr) == 0o777
    assert posix.listxattr(ROOT, attr.ino) == []


def test_acl_inheritance_stops_when_removed(posix: Posix) -> None:
    parent = _parent(posix, DEFAULT)
    assert posix.listxattr(ROOT, posix.mkdir(ALICE, parent, b"1", 0o777).ino)
    posix.removexattr(ROOT, parent, ACL_DEFAULT)
    attr = posix.mkdir(ALICE, parent, b"2", 0o777, 0o077)
    assert perm(attr) == 0o700
    assert posix.listxattr(ROOT, attr.ino) == []
    posix.setxattr(ROOT, parent, ACL_DEFAULT, wire(build(7, 0, 0)))
    assert perm(posix.mkdir(ALICE, parent, b"3", 0o777)) == 0o700


def test_acl_search_through_named_user(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o700)
    make_file(posix, ino, b"f")
    with refuses(errno.EACCES):
        posix.lookup(BOB, ino, b"f")
    posix.setxattr(ROOT, ino, ACL_ACCESS, wire(build(7, 0, 0, mask=5, users=((BOB.uid, 5),))))
    posix.lookup(BOB, ino, b"f")
    with refuses(errno.EACCES):
        posix.unlink(BOB, ino, b"f")
    posix.setattr(ROOT, ino, mode=0o700)
    with refuses(errno.EACCES):
        posix.lookup(BOB, ino, b"f")


@pytest.mark.parametrize("count", [10, 30, 1000])
@pytest.mark.parametrize("name", [ACL_ACCESS, ACL_DEFAULT])
def test_acl_long_list(posix: Posix, name: bytes, count: int) -> None:
    """It fits, or it is ENOSPC and nothing changes."""
    ino = make_dir(posix, posix.root, b"d", mode=0o711)
    users = tuple((5000 + number, number % 8) for number in range(count))
    value = wire(build(7, 0, 0, mask=7, users=users))
    before = posix.getattr(ROOT, ino)
    code = errno_of(partial(posix.setxattr, ROOT, ino, name, value))
    if code:
        assert (code, count > 10) == (errno.ENOSPC, True)
        assert posix.listxattr(ROOT, ino) == []
        assert posix.getattr(ROOT, ino) == before
        return
    assert posix.getxattr(ROOT, ino, name) == value
    for uid, bits in users if name == ACL_ACCESS else ():
        if bits & 4:
            posix.access(User(uid, 1), ino, 4)
        else:
            with refuses(errno.EACCES):
                posix.access(User(uid, 1), ino, 4)
