"""fsck.xnfs: check an image, and repair it.

First the exokernel's own check (every pointer of every file system, the free map, the counts), then
each file system's. Neither is done here; this decides what to ask, what to repair, and the exit
status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from libfs.common.checking import Finding as FileSystemFinding
from libfs.formats import of_type, rebuild
from xnfs import BLOCK, FileDevice, FramePool, InUse, Xn, XnError, read_superblock_untrusted
from xnfs.disk.fsck import Result, check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.layout import CLEAN
from xnfs_tools import mountinfo
from xnfs_tools.command import (
    Codes,
    Failed,
    Parser,
    Progress,
    Usage,
    about,
    ask,
    parser,
    run,
    words,
)
from xnfs_tools.session import CACHE

PROG: Final = "fsck.xnfs"
# The bits of the exit status, as fsck(8) knows them.
CORRECTED, LEFT, ERROR, USAGE, CANCELLED = 1, 4, 8, 16, 32
CODES: Final = Codes(failed=ERROR, usage=USAGE, interrupted=CANCELLED)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Check an xnfs image, and repair it.")
    made.add_argument("-n", action="store_true", help="repair nothing, answer no to everything")
    made.add_argument("-y", action="store_true", help="repair everything that can be repaired")
    made.add_argument("-p", action="store_true", help="repair what is safe without asking")
    made.add_argument("-a", action="store_true", help="the same as -p")
    made.add_argument("-f", action="store_true", help="check even if the image is marked clean")
    made.add_argument("image", metavar="IMAGE", help="file or block device")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    args = arguments().parse_args(words(argv))
    preen = args.p or args.a
    if args.n + args.y + preen > 1:
        raise Usage("-n, -y and -p exclude each other")
    if not (args.n or args.y or preen) and not sys.stdin.isatty():
        raise Failed("there is no terminal to ask on: give -n, -y or -p")
    path: str = args.image
    try:
        if not args.f and not args.n and _is_clean(path):
            print(f"{path}: clean (-f checks all the same)")
            return 0
        return _check(path, always=args.y, preen=preen, never=args.n)
    except XnError as error:
        raise about(path, error) from None


def _check(path: str, *, always: bool, preen: bool, never: bool) -> int:
    """Look; then repair, if that is wanted: the exit status."""
    look = _Pass(path, writable=not never)
    look.run(kernel=always, file_systems=always)
    if not look.findings:
        look.summary()
        return 0
    if always or never:
        look.summary()
        return LEFT if never else CORRECTED | (LEFT if look.left else 0)
    if preen:
        return _preen(path, look)
    if not ask("Repair?", "there is no terminal to ask on"):
        look.summary()
        return LEFT
    mend = _Pass(path, writable=True)
    mend.run(kernel=True, file_systems=True)
    mend.summary()
    return CORRECTED | (LEFT if mend.left else 0)


def _preen(path: str, last: _Pass) -> int:
    """Mend what was found, as long as it can lose nothing. The file systems are looked at, before
    they are mended, only when the kernel's structures are sound."""
    status = 0
    for file_systems in (False, True):
        if not all(finding.safe_to_preen for finding in last.findings):
            print(f"{path}: needs more than -p may do: run fsck.xnfs {path} by hand")
            return status | LEFT
        last = _Pass(path, writable=True, quiet=True)
        last.run(kernel=True, file_systems=file_systems)
        status = CORRECTED
    last.summary()
    return status | (LEFT if last.left else 0)


class _Pass:
    """One look at everything, with or without mending it."""

    def __init__(self, path: str, *, writable: bool, quiet: bool = False) -> None:
        self.findings: list[Finding | FileSystemFinding] = []
        self.left = 0
        self._path = path
        self._writable = writable
        self._quiet = quiet
        self._result: Result | None = None

    def run(self, *, kernel: bool, file_systems: bool) -> None:
        """The kernel's structures first: the file systems' checkers rely on them. The arguments say
        what is to be mended."""
        progress = Progress()
        device = _open(self._path, readonly=not self._writable)
        try:
            result = check_image(
                device, repair=kernel, report=self._found, progress=progress, rebuild=rebuild
            )
            progress.end()
            self._result = result
            self.left = result.unrepaired if kernel else result.findings
            if result.clean or (kernel and not result.incomplete):
                self._file_systems(device, repair=file_systems)
            else:
                print("what the file systems know of themselves was not checked: that comes first")
        finally:
            progress.end()
            device.close()

    def _file_systems(self, device: FileDevice, *, repair: bool) -> None:
        xn = Xn(device, frames=FramePool(CACHE // BLOCK), readonly=not repair)
        try:
            for root in xn.roots():
                kind = of_type(xn, root.type)
                if kind is not None and kind.check is not None:
                    found = kind.check(xn, xn.admin, root.name, repair=repair, report=self._found)
                    self.left += found.unrepaired
        finally:
            xn.close()

    def _found(self, finding: Finding | FileSystemFinding) -> None:
        self.findings.append(finding)
        if not self._quiet:
            print(f"{finding.code}: block {finding.block}: {finding.message}")

    def summary(self) -> None:
        """The last line."""
        result = self._result
        if result is None:
            return
        found = len(self.findings)
        what = f"{found} findings, {self.left} left" if found else "clean"
        leaked = f", {result.leaked} of them still to be collected" if result.leaked else ""
        print(f"{self._path}: {what}; {result.used} of {result.blocks} blocks in use{leaked}")


def _is_clean(path: str) -> bool:
    device = _open(path, readonly=True)
    try:
        return read_superblock_untrusted(device).state == CLEAN
    finally:
        device.close()


def _open(path: str, *, readonly: bool) -> FileDevice:
    try:
        return FileDevice(path, readonly=readonly)
    except InUse:
        mounted = " and ".join(each.directory for each in mountinfo.of(os.path.realpath(path)))
        where = f"mounted on {mounted}" if mounted else "in use by another program"
        raise Failed(f"{path}: {where}; it can't be checked now") from None
    except XnError as error:
        raise about(path, error) from None
