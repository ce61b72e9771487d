"""The file systems that the commands know: one line each in the table.

A root is recognised by the type of its first block. Anybody else's file system can be named as
`module:Class`; it is ordinary Python, and runs with all the rights of who runs the command.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from libfs.ffs import Ffs
from libfs.ffs import check as check_ffs
from libfs.ffs.superblock import decode_super_untrusted
from libfs.posix.interface import FileSystem
from xnfs import RootEntry, Xn
from xnfs_tools.command import Failed


class Findings(Protocol):
    """What a checker says at its end."""

    @property
    def unrepaired(self) -> int:
        """Findings that are left."""


class Kind(Protocol):
    """A class of file systems."""

    @staticmethod
    def mkfs(xn: Xn, cap: bytes, name: str, /) -> None:
        """An empty one, as the root `name`, durable. Known formats take `uid` and `gid`, too."""

    @staticmethod
    def mount(xn: Xn, cap: bytes, name: str, /, *, readonly: bool = False) -> FileSystem:
        """Raises XnError, FsError."""


class Format(NamedTuple):
    """A kind of file system."""

    name: str
    root: str  # type of its root's block
    kind: Any  # a Kind
    check: Callable[..., Findings] | None = None
    uuid: Callable[[int, bytes], bytes] | None = None  # from that block
    #: Moves a file to another root of the same format, as `Ffs.send`. None: files are copied.
    send: Callable[..., None] | None = None


def _uuid_of_ffs(block: int, raw: bytes) -> bytes:
    return decode_super_untrusted(block, raw).uuid


FORMATS: Final = {
    each.name: each
    for each in (
        Format("ffs", "ffs.super", Ffs, check_ffs, _uuid_of_ffs, Ffs.send),
    )
}  # fmt: skip


def format_of(xn: Xn, root: RootEntry) -> Format | None:
    """The format of a root; None if it is nobody's here."""
    return next((f for f in FORMATS.values() if xn.type_number(f.root) == root.type), None)


def load_format(spec: str, *, here: bool) -> Format:
    """The format of `module:Class`; `here`: modules may lie in the current directory, too.

    Raises: Failed.
    """
    module, _, name = spec.partition(":")
    if here and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        kind = getattr(importlib.import_module(module), name)
        if not (callable(kind.mkfs) and callable(kind.mount)):
            raise AttributeError("mkfs and mount must be methods")
    except (ImportError, AttributeError, ValueError) as error:
        raise Failed(f"no file system '{spec}' (module:Class): {error}") from None
    return Format(spec, "", kind)
