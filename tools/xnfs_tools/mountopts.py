"""What stands after -o: which options are for whom."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Final

from libfs.posix import Atime, Options
from xnfs_tools.command import Usage, parse_size
from xnfs_tools.session import CACHE

#: For the host kernel, by way of libfuse. (libfuse mounts with nosuid and nodev unless told
#: otherwise.)
_KERNEL: Final = frozenset(
    "suid nosuid dev nodev exec noexec allow_other allow_root default_permissions".split()
)
#: For mount(8) itself, or without a meaning here.
_IGNORED: Final = frozenset(
    "defaults auto noauto nofail fail _netdev nouser noowner nogroup "
    "async nodiratime diratime nostrictatime norelatime silent loud iversion noiversion".split()
)
#: With one of these anybody may have mount(8) mount what root has written into fstab.
_ANYBODY: Final = frozenset("user users owner group".split())
#: What the kernel's table says of a mount; `mount -o remount` gives it all back.
_REPORTED: Final = frozenset("user_id group_id max_read blksize rootmode fd fsname subtype".split())
_ATIME: Final = {
    "noatime": Atime.NOATIME,
    "relatime": Atime.RELATIME,
    "atime": Atime.RELATIME,
    "strictatime": Atime.STRICTATIME,
}


#: Of file systems; the table of formats says which of them has which.
_FORMAT: Final = frozenset({"cleaner", "snapshot"})
_TRANSPORTS: Final = ("auto", "kernel", "fusepy")


@dataclass
class MountOptions:
    """The options, sorted."""

    readonly: bool = False
    remount: bool = False
    sync: bool = False
    dirsync: bool = False
    atime: Atime = Atime.RELATIME
    cache: int = CACHE
    root: str | None = None
    fs: str | None = None
    #: mount(8) was allowed to mount for somebody who is not root
    anybody: bool = False
    transport: str = "auto"
    spin: bool = True
    kernel: list[str] = field(default_factory=list)
    #: for the file system alone
    format: dict[str, object] = field(default_factory=dict)

    def posix(self) -> Options:
        """For the POSIX layer."""
        return Options(self.atime, self.readonly, self.sync, self.dirsync)

    def direct(self) -> bool:
        """Whether the kernel's protocol is spoken without a library. `allow_root` is libfuse's."""
        if self.transport == "auto":
            return sys.platform == "linux" and "allow_root" not in self.kernel
        return self.transport == "kernel"

    def words(self) -> list[str]:
        """For the transport that speaks the kernel's protocol."""
        given = {
            "ro": self.readonly,
            "sync": self.sync,
            "dirsync": self.dirsync,
            "strictatime": self.atime is Atime.STRICTATIME,
            "nospin": not self.spin,
        }
        return [*self.kernel, *(word for word, on in given.items() if on)]

    def libfuse(self) -> list[str]:
        """For libfuse."""
        # nonempty: as on every other file system, what is below a mount point is simply hidden.
        return [*self.kernel, "nonempty", *(["ro"] if self.readonly else [])]


def parse(texts: list[str]) -> MountOptions:
    """Raises: Usage."""
    options = MountOptions()
    for word in (word for text in texts for word in text.split(",") if word):
        _one(options, word)
    return options


def _one(options: MountOptions, word: str) -> None:
    name, given, value = word.partition("=")
    if word in ("ro", "rw"):
        options.readonly = word == "ro"
    elif word in ("remount", "sync", "dirsync"):
        setattr(options, word, True)
    elif word in ("cffs", "nocffs"):
        options.format["grouping"] = word == "cffs"
    elif word in _ATIME:
        options.atime = _ATIME[word]
    elif word in _KERNEL:
        options.kernel.append(word)
    elif name == "cache" and given:
        options.cache = parse_size(value)
    elif name == "root" and value:
        options.root = value
    elif name in _FORMAT and value:
        options.format[name] = value
        options.readonly |= name == "snapshot"
    elif name == "fs" and value:
        options.fs = value
    elif name in _ANYBODY:
        options.anybody = True
    elif word == "nospin":
        options.spin = False
    elif name == "transport" and value in _TRANSPORTS:
        options.transport = value
    elif not _is_ignored(word, name):
        raise Usage(f"unknown mount option '{word}'")


def _is_ignored(word: str, name: str) -> bool:
    if word in _IGNORED or name in _REPORTED:
        return True
    return name.startswith("x-") or name == "comment"
