"""Extended attributes as records: namespace, lengths, name without its prefix, value, back to back.

Where they lie and how many fit is each file system's own; who may set what, the POSIX layer's.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from libfs.posix.interface import XATTR_CREATE, XATTR_REPLACE, FsError
from xnfs import CorruptionError

HEAD: Final = struct.Struct("<BBH")  # namespace, name length, value length
NAMESPACES: Final = {b"user.": 1, b"trusted.": 2, b"security.": 3, b"system.": 4}
_PREFIXES: Final = {number: prefix for prefix, number in NAMESPACES.items()}

#: name -> value, in the order of the records
Attributes = dict[bytes, bytes]


def split_name(name: bytes) -> tuple[int, bytes]:
    """(namespace, rest). Raises: EOPNOTSUPP for an unknown one, ERANGE for a name too long."""
    for prefix, number in NAMESPACES.items():
        if name.startswith(prefix):
            rest = name[len(prefix) :]
            if not 1 <= len(rest) <= 255:
                raise FsError(errno.ERANGE)
            return number, rest
    raise FsError(errno.EOPNOTSUPP)


def check_flags(flags: int, there: bool) -> None:
    """What XATTR_CREATE and XATTR_REPLACE ask for. Raises: EEXIST, ENODATA."""
    if flags & XATTR_CREATE and there:
        raise FsError(errno.EEXIST)
    if flags & XATTR_REPLACE and not there:
        raise FsError(errno.ENODATA)


def record(name: bytes, value: bytes) -> bytes:
    """One record. Raises as `split_name`; ENOSPC for a value that no record can have."""
    number, rest = split_name(name)
    if len(value) > 0xFFFF:
        raise FsError(errno.ENOSPC)
    return HEAD.pack(number, len(rest), len(value)) + rest + value


def parse_untrusted(block: int, raw: bytes, out: Attributes) -> None:
    """Add the records of one area to `out`. Raises CorruptionError."""
    at = 0
    while at + HEAD.size <= len(raw):
        space, name_size, value_size = HEAD.unpack_from(raw, at)
        if space == 0:
            return
        at += HEAD.size
        end = at + name_size + value_size
        prefix = _PREFIXES.get(space)
        if prefix is None or not name_size or end > len(raw):
            raise CorruptionError(block, "attribute record", (space, name_size, value_size), "sane")
        name = prefix + raw[at : at + name_size]
        if name in out:
            raise CorruptionError(block, "attribute name", name, "once")
        out[name] = raw[at + name_size : end]
        at = end
