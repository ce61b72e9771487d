"""The mount itself: made with mount(2) as root, through fusermount as anybody else; and removed.

Does: open /dev/fuse, attach it to a directory, raise the read-ahead, unmount.
Does not: speak the protocol. Until the first request is answered, every look at the directory
waits; so nothing here looks at it, and the caller must have resolved its path before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DEVICE: Final = "/dev/fuse"
#: What the kernel reads ahead of a sequential reader; it starts with 128.
READ_AHEAD_KIB: Final = 2048

# mount(2) and umount2(2)
_FLAGS: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128}
_MNT_DETACH: Final = 2
_DIRECTORY: Final = 0o040000

_REASONS: Final = {
    errno.ENODEV: "this kernel has no FUSE (modprobe fuse)",
    errno.EPERM: "mounting is not allowed here",
    errno.EBUSY: "the directory is in use",
}


class MountFailed(Exception):
    """The mount could not be made; the text says why."""


@dataclass
class Wanted:
    """Mount options, sorted. By default no set-id and no devices, as fusermount has it."""

    flags: set[str] = field(default_factory=lambda: {"nosuid", "nodev"})
    allow_other: bool = False
    #: Whether the host kernel checks modes and access lists (`files` says why it must).
    default_permissions: bool = field(default_factory=lambda: os.geteuid() != 0)
    #: Every read is to move the access time, so the kernel must say when a file is opened.
    strictatime: bool = False
    #: Whether the server looks for requests before it sleeps (`session`).
    spin: bool = True

    @classmethod
    def parse(cls, words: Sequence[str]) -> Wanted:
        """Words as after -o. Raises: MountFailed."""
        wanted = cls()
        for word in words:
            if word in ("suid", "dev", "exec", "rw", "async"):
                wanted.flags.discard({"rw": "ro", "async": "sync"}.get(word, "no" + word))
            elif word in _FLAGS:
                wanted.flags.add(word)
            elif word in ("allow_other", "default_permissions", "strictatime"):
                setattr(wanted, word, True)
            elif word == "nospin":
                wanted.spin = False
            elif word != "nonempty":  # mounting over files is nobody's business but the caller's
                raise MountFailed(f"the kernel transport knows no option '{word}'")
        # Where none but root gets in, there is nothing to check, and the kernel need not ask for a
        # directory's attributes again after each change in it.
        wanted.default_permissions |= wanted.allow_other
        return wanted

    def common(self) -> list[str]:
        """The words that the kernel and fusermount both know."""
        return [word for word in ("default_permissions", "allow_other") if getattr(self, word)]


def mount(directory: str, source: str, wanted: Wanted) -> int:
    """Mount; the descriptor that requests come from, not blocking. Raises: MountFailed."""
    if os.geteuid() == 0:
        return _mount_directly(directory, source, wanted)
    return _mount_by_helper(directory, source, wanted)


def _mount_directly(directory: str, source: str, wanted: Wanted) -> int:
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MountFailed(f"{DEVICE}: {error.strerror}") from None
    ids = [f"fd={fd}", f"rootmode={_DIRECTORY:o}", f"user_id={os.getuid()}"]
    words = ",".join([*ids, f"group_id={os.getgid()}", *wanted.common()])
    flags = sum(_FLAGS[word] for word in wanted.flags)
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(directory)
    if libc.mount(os.fsencode(source), target, b"fuse.xnfs", flags, words.encode()):
        number = ctypes.get_errno()
        os.close(fd)
        raise MountFailed(_REASONS.get(number, os.strerror(number)))
    return fd


def _mount_by_helper(directory: str, source: str, wanted: Wanted) -> int:
    """fusermount mounts, being set-uid, and hands the descriptor back through a socket."""
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if helper is None:
        raise MountFailed("fusermount is missing (apt-get install fuse3)")
    named = "fsname=" + source.replace("\\", "\\\\").replace(",", "\\,")
    words = [*sorted(wanted.flags), *wanted.common(), named, "subtype=xnfs"]
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            done = subprocess.run(
                [helper, "-o", ",".join(words), "--", directory],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if done.returncode or not fds:
        lines = done.stderr.strip().splitlines()
        raise MountFailed(lines[-1] if lines else "fusermount failed")
    os.set_blocking(fds[0], False)
    os.set_inheritable(fds[0], False)
    return fds[0]


def raise_read_ahead(directory: str) -> None:
    """Let the kernel read further ahead, where that is allowed. Needs root; no harm without."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            # ID parent MAJOR:MINOR root DIRECTORY ...; the last one is the visible one
            devices = [
                fields[2]
                for fields in map(str.split, table)
                if fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
                == os.fsencode(directory).decode("latin-1")
            ]
        Path(f"/sys/class/bdi/{devices[-1]}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except (OSError, LookupError, ValueError):
        pass


def unmount(directory: str, *, lazy: bool = False) -> int:
    """Unmount; 0 or the errno. Through fusermount where the caller is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), _MNT_DETACH if lazy else 0) == 0:
        return 0
    failed = ctypes.get_errno()
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if failed != errno.EPERM or helper is None:
        return failed
    done = subprocess.run(
        [helper, "-u", *(["-z"] if lazy else []), "--", directory],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return errno.EBUSY if done.returncode else 0


def write_back(directory: str) -> None:
    """Have the kernel hand over its dirty pages of this file system. Raises: OSError.

    Asks the server for attributes on the way, so not to be called by the thread that serves.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
