"""fsck.xnfs: check an image, and repair it.

First the exokernel's own check (every pointer of every file system, the free map, the counts), then
each file system's. Neither is done here; this decides what to ask, what to repair, and the exit
status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from xnfs import FileDevice, InUse, XnError, read_superblock_untrusted
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
    asks = not (args.n or args.y or preen)
    if asks and not sys.stdin.isatty():
        raise Failed("there is no terminal to ask on: give -n, -y or -p")
    device = _open(args.image, readonly=args.n)
    try:
        if not args.f and not args.n and read_superblock_untrusted(device).state == CLEAN:
            print(f"{args.image}: clean (-f checks all the same)")
            return 0
        return _check(args.image, device, always=args.y, preen=preen, never=args.n)
    except XnError as error:
        raise about(args.image, error) from None
    finally:
        device.close()


def _open(path: str, *, readonly: bool) -> FileDevice:
    try:
        return FileDevice(path, readonly=readonly)
    except InUse:
        mounted = mountinfo.of(os.path.realpath(path))
        where = f"mounted on {mounted.directory}" if mounted else "in use by another program"
        raise Failed(f"{path}: {where}; it can't be checked now") from None
    except XnError as error:
        raise about(path, error) from None


@dataclass
class _Findings:
    """What was found, printed as it comes."""

    path: str
    all: list[Finding] = field(default_factory=list)

    def __call__(self, finding: Finding) -> None:
        """One more."""
        self.all.append(finding)
        print(f"{finding.code}: block {finding.block}: {finding.message}")


def _check(path: str, device: FileDevice, *, always: bool, preen: bool, never: bool) -> int:
    """Look; then repair, if that is wanted: the exit status."""
    progress = Progress()
    found = _Findings(path)
    result = check_image(device, repair=always, report=found, progress=progress)
    progress.end()
    if not found.all:
        _summary(path, result)
        return 0
    if not always and not never:
        if preen and not all(finding.safe_to_preen for finding in found.all):
            print(f"{path}: needs more than -p may do: run fsck.xnfs {path} by hand")
            return LEFT
        if preen or ask("Repair?", "no terminal"):
            result = check_image(device, repair=True, report=lambda _: None, progress=progress)
            progress.end()
            always = True
    _summary(path, result)
    if not always:
        return LEFT
    return CORRECTED | (LEFT if result.unrepaired else 0)


def _summary(path: str, result: Result) -> None:
    what = (
        "clean"
        if result.clean
        else f"{result.findings} findings, {result.unrepaired} not repairable"
    )
    leaked = f", {result.leaked} blocks leaked" if result.leaked else ""
    print(f"{path}: {what}; {result.used} of {result.blocks} blocks in use{leaked}")
