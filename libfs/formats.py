"""The formats that a root can have, in one table: for whoever makes, mounts or checks any of them.

Nothing above this line asks which file system it has: a root's type says which, and all keep the
contract of `libfs.posix.interface`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from libfs.ffs import Ffs
from libfs.ffs import check as check_ffs
from libfs.ffs import types as ffs_types
from libfs.lfs import Lfs
from libfs.lfs import check as check_lfs
from libfs.lfs import types as lfs_types
from libfs.posix.interface import FileSystem
from xnfs import Xn

#: An empty file system as the root of a name, durable: (xn, cap, name, uid=, gid=), and what the
#: format has of its own. Raises XnError.
Mkfs = Callable[..., None]
#: The root of a name: (xn, cap, name, readonly=), and what the format has of its own. Raises
#: XnError, FsError.
Mount = Callable[..., FileSystem]


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file system. `super`: the type of its roots. `check`: its own checker."""

    name: str
    super: str
    mkfs: Mkfs
    mount: Mount
    check: Callable[..., Any] | None = None


FORMATS: Final[dict[str, Format]] = {
    "ffs": Format("ffs", ffs_types.SUPER, Ffs.mkfs, Ffs.mount, check_ffs),
    "lfs": Format("lfs", lfs_types.SUPER, Lfs.mkfs, Lfs.mount, check_lfs),
}


def of_type(xn: Xn, number: int) -> Format | None:
    """The format of roots of this type; None if it is not known here."""
    for known in FORMATS.values():
        if xn.type_number(known.super) == number:
            return known
    return None
