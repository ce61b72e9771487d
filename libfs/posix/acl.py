"""POSIX access control lists: the wire format of Linux, and what a list means.

Does: parse and build the value of `system.posix_acl_access` and `_default`; translate between mode
and list; inherit a directory's default list; decide who may do what (POSIX 1003.1e draft 17).
Does not: store lists or ask who may change one; that is `xattrs`.
Guarantees: an `Acl` is well formed; the parser accepts only what Linux accepts.

    offset  0  u32  version = 2
            4  entries of 8 bytes: u16 tag, u16 permissions, u32 id (0xffffffff where it has none),
               in the order owner, users, owning group, groups, mask, other
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from libfs.posix.interface import FsError, User

VERSION = 2
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF
_HEADER = struct.Struct("<I")  # version
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id


@dataclass(frozen=True, slots=True)
class Acl:
    """A list. Permissions are 0 to 7; `mask` is there whenever a user or a group is named."""

    owner: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    mask: int | None = None

    @property
    def minimal(self) -> bool:
        """Whether a mode says the same."""
        return self.mask is None

    @property
    def mode(self) -> int:
        """The permission bits of a mode: the group bits show the mask where there is one."""
        group = self.group if self.mask is None else self.mask
        return self.owner << 6 | group << 3 | self.other

    def with_mode(self, mode: int) -> Acl:
        """The same list after a chmod: a mask, where there is one, stands for the group bits."""
        owner, middle, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
        if self.mask is None:
            return Acl(owner, middle, other)
        return Acl(owner, self.group, other, self.users, self.groups, middle)


def parse_untrusted(value: bytes) -> Acl | None:
    """The list in `value`; None for an empty one.

    Raises: EINVAL if it is malformed, EOPNOTSUPP if it is of another version.
    """
    if not value:
        return None
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise FsError(errno.EINVAL)
    if _HEADER.unpack_from(value)[0] != VERSION:
        raise FsError(errno.EOPNOTSUPP)
    if len(value) == _HEADER.size:
        return None
    return _collect(list(_ENTRY.iter_unpack(value[_HEADER.size :])))


def _collect(entries: list[tuple[int, int, int]]) -> Acl:
    """Check order and number of the entries, and that permissions are 0 to 7."""
    single: dict[int, int] = {}
    users: list[tuple[int, int]] = []
    groups: list[tuple[int, int]] = []
    previous = 0
    for tag, perm, ident in entries:
        if perm > 7 or tag < previous:
            raise FsError(errno.EINVAL)
        previous = tag
        if tag in (USER, GROUP):
            if ident == NO_ID:
                raise FsError(errno.EINVAL)
            (users if tag == USER else groups).append((ident, perm))
        elif tag in (USER_OBJ, GROUP_OBJ, MASK, OTHER) and tag not in single:
            single[tag] = perm
        else:
            raise FsError(errno.EINVAL)
    if not {USER_OBJ, GROUP_OBJ, OTHER} <= single.keys():
        raise FsError(errno.EINVAL)
    if (users or groups) and MASK not in single:
        raise FsError(errno.EINVAL)
    return Acl(
        single[USER_OBJ],
        single[GROUP_OBJ],
        single[OTHER],
        tuple(users),
        tuple(groups),
        single.get(MASK),
    )


def parse_stored_untrusted(value: bytes) -> Acl | None:
    """The list that a file system had stored. Raises: EUCLEAN if it could not have been set."""
    try:
        return parse_untrusted(value)
    except FsError:
        raise FsError(errno.EUCLEAN, "malformed access control list on disk") from None


def encode(acl: Acl) -> bytes:
    """The wire format of `acl`."""
    parts = [_HEADER.pack(VERSION), _ENTRY.pack(USER_OBJ, acl.owner, NO_ID)]
    parts += [_ENTRY.pack(USER, perm, uid) for uid, perm in acl.users]
    parts.append(_ENTRY.pack(GROUP_OBJ, acl.group, NO_ID))
    parts += [_ENTRY.pack(GROUP, perm, gid) for gid, perm in acl.groups]
    if acl.mask is not None:
        parts.append(_ENTRY.pack(MASK, acl.mask, NO_ID))
    parts.append(_ENTRY.pack(OTHER, acl.other, NO_ID))
    return b"".join(parts)


def inherit(default: Acl, mode: int) -> tuple[int, Acl | None]:
    """What a new inode starts with under a default list: its mode, and its access list if a mode
    alone can't say it.

    `mode` is the one asked for, without umask: the list takes the umask's place (draft 17, 23.1).
    """
    middle = default.group if default.mask is None else default.mask
    limit = default.owner << 6 | middle << 3 | default.other
    mode = mode & ~0o777 | mode & 0o777 & limit
    return mode, None if default.minimal else default.with_mode(mode)


def permits(acl: Acl | None, mode: int, uid: int, gid: int, user: User, want: int) -> bool:
    """Whether an inode of owner `uid`, group `gid`, with `mode` and access list `acl`, grants
    `want` to `user` (draft 17, 23.1.5). uid 0 is not special here.

    The first class that matches decides; of the groups that match, any one may grant.
    """
    if user.uid == uid:
        return not want & ~(mode >> 6)
    if acl is None or acl.mask is None:
        in_group = user.gid == gid or gid in user.groups
        return not want & ~(mode >> 3 if in_group else mode)
    mask = mode >> 3 & 7
    for named, perm in acl.users:
        if named == user.uid:
            return not want & ~(perm & mask)
    entries = ((gid, acl.group), *acl.groups)
    matching = [p for g, p in entries if g == user.gid or g in user.groups]
    if matching:
        return any(not want & ~(perm & mask) for perm in matching)
    return not want & ~mode
