"""How a file system is to be mounted, as far as the POSIX layer cares. Names are mount(8)'s."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Atime(Enum):
    """When a read moves the access time: see `timestamps`."""

    RELATIME = "relatime"
    NOATIME = "noatime"
    STRICTATIME = "strictatime"


@dataclass(frozen=True, slots=True)
class Options:
    """`sync`: every change is durable on return. `dirsync`: only changes of names are."""

    atime: Atime = Atime.RELATIME
    readonly: bool = False
    sync: bool = False
    dirsync: bool = False
