"""xnfs snapshot: the snapshots of a file system that can have them.

Where the image is mounted, its server does it (`controls`), but for `rollback`. What a snapshot is,
and what it costs, is the file system's own; a format says in the table (`libfs.formats`) that it
has them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Final

from libfs.formats import Snapshotting, of_type
from libfs.kernel.controls import ask_server
from libfs.kernel.mounting import write_back
from libfs.posix.interface import FsError
from xnfs import XnError
from xnfs_tools import mount, mountinfo
from xnfs_tools.command import Codes, Failed, Parser, about, parser, run, split_image, words
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
        each.add_argument("image", metavar="IMAGE[:ROOT]", help="the file system (default: main)")
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
    image, root = split_image(args.image)
    mounted = mountinfo.of(os.path.realpath(image))
    name = getattr(args, "name", "")
    if args.command == "mount" and not mounted:
        where = image if root is None else f"{image}:{root}"
        return mount.main([where, args.directory, "-o", f"snapshot={name}"])
    if mounted:
        told = _ask(args.command, mounted, root or "", name, getattr(args, "directory", None))
    else:
        told = _do(args.command, image, root, name)
    for each, taken in told:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken // 10**9))
        print(f"{when}  {each}")
    return 0


def _ask(
    command: str, mounted: Sequence[mountinfo.MountPoint], root: str, name: str, where: str | None
) -> list[tuple[str, int]]:
    """Have the server of a mounted image do it; what `list` tells. Raises: Failed."""
    words = [root, *([name] if name else []), *([os.path.realpath(where)] if where else [])]
    try:
        if command == "create":
            for each in mounted:
                write_back(each.directory)
        request = f"snapshot {command}".encode(), *map(os.fsencode, words)
        told = os.fsdecode(ask_server(mounted[0].directory, *request)).split("\0")
    except OSError as error:
        raise Failed(f"{mounted[0].image}: {error.strerror}") from None
    return [(each, int(taken)) for taken, each in zip(told[::2], told[1::2], strict=False)]


def _do(command: str, image: str, root: str | None, name: str) -> list[tuple[str, int]]:
    """Do it here; what `list` tells. Raises: Failed."""
    with _opened(image, root, readonly=command == "list") as fs:
        if command == "list":
            return fs.snapshots()
        act = {"create": fs.snapshot, "delete": fs.delete_snapshot, "rollback": fs.rollback}
        act[command](name)
        return []


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
