"""The formats that a root can have, in one table: for whoever makes, mounts or checks any of them.

Nothing above this line asks which file system it has: a root's type says which, and all keep the
contract of `libfs.posix.interface`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from libfs.ffs import Ffs
from libfs.ffs import check as check_ffs
from libfs.ffs import types as ffs_types
from libfs.ffs.superblock import decode_super_untrusted
from libfs.lfs import Lfs
from libfs.lfs import check as check_lfs
from libfs.lfs import types as lfs_types
from libfs.lfs.cleaner import POLICIES
from libfs.lfs.lost import rebuild as rebuild_lfs
from libfs.lfs.volume import decode_super_untrusted as decode_lfs_super_untrusted
from libfs.posix.interface import FileSystem
from xnfs import Lost, Xn

#: An empty file system as the root of a name, durable: (xn, cap, name), for those of the table also
#: `uid` and `gid`, and what the format has of its own. Raises XnError.
Mkfs = Callable[..., None]
#: The root of a name: (xn, cap, name, readonly=), and the `options` of the format. Raises XnError,
#: FsError.
Mount = Callable[..., FileSystem]


@runtime_checkable
class Snapshotting(FileSystem, Protocol):
    """A file system that can keep itself as it is."""

    def snapshots(self) -> list[tuple[str, int]]:
        """(name, time in ns), oldest first."""

    def snapshot(self, name: str) -> None:
        """Durable on return. Raises: EEXIST, EINVAL (the name), ENOSPC, EROFS."""

    def delete_snapshot(self, name: str) -> None:
        """Durable on return. Raises: ENOENT, EROFS."""

    def rollback(self, name: str) -> None:
        """Become what the snapshot is. Nobody has a file open. Raises: ENOENT, EROFS."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file system. `super`: the type of its roots. `check`: its own checker. `uuid`:
    what a root's block says. `send`: moves a file to another root of the same format without
    copying it, as `Ffs.send`."""

    name: str
    super: str
    mkfs: Mkfs
    mount: Mount
    check: Callable[..., Any] | None = None
    #: mount options of its own: name -> values, or None for any
    options: Mapping[str, tuple[object, ...] | None] = field(default_factory=dict)
    snapshots: bool = False  # it is `Snapshotting`
    uuid: Callable[[int, bytes], bytes] | None = None
    #: (type, first block, count) of all that an inode has: (xn, root, ino). None: the number of an
    #: inode is that of its block, and pointers lead to the rest
    blocks: Callable[[Xn, str, int], Iterable[tuple[str, int, int]]] | None = None
    send: Callable[..., None] | None = None
    #: what stood in a destroyed block of its types, where that can be told
    rebuild: Callable[[Lost], bytes | None] | None = None


def _uuid_of_ffs(block: int, raw: bytes) -> bytes:
    return decode_super_untrusted(block, raw).uuid


def _uuid_of_lfs(block: int, raw: bytes) -> bytes:
    return decode_lfs_super_untrusted(block, raw)[2]


FORMATS: Final[dict[str, Format]] = {
    "ffs": Format(
        "ffs",
        ffs_types.SUPER,
        Ffs.mkfs,
        Ffs.mount,
        check_ffs,
        {"grouping": (True, False)},
        uuid=_uuid_of_ffs,
        send=Ffs.send,
    ),
    "lfs": Format(
        "lfs",
        lfs_types.SUPER,
        Lfs.mkfs,
        Lfs.mount,
        check_lfs,
        {"cleaner": POLICIES, "snapshot": None},
        snapshots=True,
        uuid=_uuid_of_lfs,
        blocks=Lfs.blocks_of,
        rebuild=rebuild_lfs,
    ),
}


def of_type(xn: Xn, number: int) -> Format | None:
    """The format of roots of this type; None if it is not known here."""
    for known in FORMATS.values():
        if xn.type_number(known.super) == number:
            return known
    return None


def rebuild(lost: Lost) -> bytes | None:
    """What stood in a destroyed block, as far as one of the formats can tell (for fsck)."""
    told = (known.rebuild(lost) for known in FORMATS.values() if known.rebuild is not None)
    return next((raw for raw in told if raw is not None), None)
