"""xnfs snapshot: the snapshots of a file system that can have them.

The image must not be mounted, but for `mount`, which mounts. What a snapshot is, and what it costs,
is the file system's own; a format says in the table (`libfs.formats`) that it has them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from libfs.formats import Snapshotting, of_type
from libfs.posix.interface import FsError
from xnfs import XnError
from xnfs_tools import mount
from xnfs_tools.command import Codes, Failed, Parser, about, parser, run, words
from xnfs_tools.session import choose_root, open_kernel

PROG: Final = "xnfs snapshot"
CODES: Final = Codes(failed=1, usage=2)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Take, list, delete, mount and go back to snapshots.")
    kinds = made.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, text in (
        ("create", "keep everything as it is now, under a name"),
        ("list", "names and times, oldest first"),
        ("delete", "forget one; what only it has becomes free"),
        ("rollback", "make the file system what the snapshot is; what came after is lost"),
        ("mount", "mount one, read-only"),
    ):
        each = kinds.add_parser(name, help=text)
        each.add_argument("--root", metavar="ROOT", help="the file system (default: main)")
        each.add_argument("image", metavar="IMAGE")
        if name != "list":
            each.add_argument("name", metavar="NAME")
        if name == "mount":
            each.add_argument("directory", metavar="DIR")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    args = arguments().parse_args(words(argv))
    if args.command == "mount":
        options = f"snapshot={args.name}" + (f",root={args.root}" if args.root else "")
        return mount.main([args.image, args.directory, "-o", options])
    with _opened(args.image, args.root, readonly=args.command == "list") as fs:
        if args.command == "create":
            fs.snapshot(args.name)
        elif args.command == "delete":
            fs.delete_snapshot(args.name)
        elif args.command == "rollback":
            fs.rollback(args.name)
        else:
            for name, taken in fs.snapshots():
                print(
                    f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(taken // 10**9))}  {name}"
                )
    return 0


@contextlib.contextmanager
def _opened(path: str, root: str | None, *, readonly: bool) -> Iterator[Snapshotting]:
    """The file system, unmounted again at the end. Raises: Failed."""
    with open_kernel(path, readonly=readonly) as xn:
        entry = choose_root(xn, path, root)
        kind = of_type(xn, entry.type)
        if kind is None or not kind.snapshots:
            name = "this kind of file system" if kind is None else kind.name
            raise Failed(f"{path}: {name} has no snapshots")
        try:
            fs = kind.mount(xn, xn.admin, entry.name, readonly=readonly)
            assert isinstance(fs, Snapshotting)
            try:
                yield fs
            finally:
                fs.close()
        except FsError as error:
            raise Failed(f"{path}: {error.strerror}") from None
        except XnError as error:
            raise about(path, error) from None
