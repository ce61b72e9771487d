"""debugfs.xnfs: look into an image, block by block. Read-only.

Where the file system is asked (ls, stat, cat) it answers itself; blocks and owners come from
`owns` alone, so they work for any type that is installed.
"""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Final

from libfs.formats import of_type
from xnfs_tools import files
from xnfs_tools.command import Codes, Parser, Usage, parser, run, split_image, words
from xnfs_tools.inspect import open_inspector
from xnfs_tools.session import SUPERUSER, Session, choose_root, open_image

PROG: Final = "debugfs.xnfs"
CODES: Final = Codes(failed=1, usage=2)
_HELP: Final = """\
ls [PATH]      names in a directory, with inode numbers
stat PATH      attributes of an inode
cat PATH       contents of a file
blocks PATH    the blocks that belong to an inode
owner BLOCK    who owns a block, up to the root
types          the types installed
roots          the file systems in the image
logdump        the transactions in the log
help, quit"""


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Look into an xnfs image.", usage=f"{PROG} [-R COMMAND] IMAGE")
    made.add_argument("-R", metavar="COMMAND", help="carry out one command; 'help' lists them")
    made.add_argument("image", metavar="IMAGE", help="file or block device, or IMAGE:ROOT")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    args = arguments().parse_args(words(argv))
    if args.R is not None:
        return command(args.image, args.R)
    return _converse(args.image)


def _converse(image: str) -> int:
    """Commands from standard input, one a line; the status is that of the last one."""
    status = 0
    while True:
        if sys.stdin.isatty():
            print("debugfs: ", end="", flush=True)
        text = sys.stdin.readline()
        if not text or text.strip() in ("quit", "q", "exit"):
            return status
        status = run(PROG, CODES, functools.partial(command, image, text))


def command(image: str, text: str) -> int:
    """Carry out one command; 0. Raises: Usage, Failed."""
    try:
        name, *rest = shlex.split(text) or ["help"]
    except ValueError as error:
        raise Usage(f"'{text}': {error}") from None
    if name == "help":
        print(_HELP)
        return 0
    if name not in _COMMANDS:
        raise Usage(f"unknown command '{name}' (help lists them)")
    function, least, most = _COMMANDS[name]
    if not least <= len(rest) <= most:
        raise Usage(f"{name}: {'no argument' if not most else 'an argument'} expected")
    function(image, *rest)
    return 0


def _ls(image: str, path: str = "/") -> None:
    files.ls(image, path)


def _cat(image: str, path: str) -> None:
    files.cat(image, path)


def _stat(image: str, path: str) -> None:
    with open_image(image, readonly=True) as session:
        attr = session.resolve(path)
        print(files.line(path.encode(errors="surrogateescape"), attr, b""))
        for field in ("ino", "generation", "nlink", "size", "blocks", "rdev"):
            print(f"  {field:<12}{getattr(attr, field)}")
        for field in ("atime", "mtime", "ctime", "crtime"):
            print(f"  {field:<12}{files.moment(getattr(attr, field))}")
        for name in session.posix.listxattr(SUPERUSER, attr.ino):
            value = session.posix.getxattr(SUPERUSER, attr.ino, name)
            print(f"  {files.printable(name)} = {files.printable(value)}")


def _blocks(image: str, path: str) -> None:
    with open_image(image, readonly=True) as session:
        inode = _block_of(session, path)
        root = choose_root(session.xn, image, split_image(image)[1])
        kind = of_type(session.xn, root.type)
        if kind is not None and kind.blocks is not None:
            for name, start, count in kind.blocks(session.xn, root.name, inode):
                end = f" .. {start + count - 1}" if count > 1 else ""
                print(f"{start}{end}  {name}")
            return
    with open_inspector(image) as inspector:
        for depth, number, start, count in inspector.below(inode):
            end = f" .. {start + count - 1}" if count > 1 else ""
            print(f"{'  ' * depth}{start}{end}  {inspector.name(number)}")


def _block_of(session: Session, path: str) -> int:
    return int(session.resolve(path).ino)


def _owner(image: str, block: str) -> None:
    if not block.isdecimal():
        raise Usage(f"'{block}' is not a block number")
    with open_inspector(image) as inspector:
        number = int(block)
        area = inspector.area(number)
        if area is not None:
            print(f"{number}  {area}")
            return
        chain = inspector.owners(number)
        if not chain:
            print(f"{number}  owned by nobody")
        for at, kind in chain:
            print(f"{at}  {inspector.name(kind)}")


def _types(image: str) -> None:
    with open_inspector(image) as inspector:
        for number, name in sorted(inspector.types().items()):
            print(f"{number:<5} {name}")


def _roots(image: str) -> None:
    with open_inspector(image) as inspector:
        for name, kind, start in inspector.roots():
            print(f"{name:<22} block {start}, {inspector.name(kind)}")


def _logdump(image: str) -> None:
    with open_inspector(image) as inspector:
        inspector.logdump()


_COMMANDS: Final[dict[str, tuple[Callable[..., None], int, int]]] = {
    "ls": (_ls, 0, 1),
    "stat": (_stat, 1, 1),
    "cat": (_cat, 1, 1),
    "blocks": (_blocks, 1, 1),
    "owner": (_owner, 1, 1),
    "types": (_types, 0, 0),
    "roots": (_roots, 0, 0),
    "logdump": (_logdump, 0, 0),
}
