"""xnfs: all commands under one name, and those that have no name of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Final

from xnfs_tools import debugfs, dumpfs, files, fsck, mkfs, mount, umount
from xnfs_tools.command import Codes, Parser, Usage, parser, run, words
from xnfs_tools.doctor import doctor

PROG: Final = "xnfs"
CODES: Final = Codes(failed=1, usage=2)

#: These have their own command lines and exit statuses.
_COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "mkfs": mkfs.main,
    "mount": mount.main,
    "umount": umount.main,
    "fsck": fsck.main,
    "dumpfs": dumpfs.main,
    "debugfs": debugfs.main,
}

#: These too, but have no other name. The modules are loaded when they are asked for.
_MODULES: Final = {
    "attack": ("xnfs_tools.attack", "what a hostile file system can do to the kernel and others"),
    "cp": ("xnfs_tools.cp", "copy within an image, without touching the bytes"),
    "crash": ("xnfs_tools.crash", "cut the power of a file system everywhere, and look"),
    "run": ("xnfs_tools.run", "an experiment on the simulated machine"),
    "serve": ("xnfs_tools.serve", "serve the files of an image over HTTP, on a TAP device"),
}


def arguments() -> Parser:
    """The command line of what is only here."""
    made = parser(PROG, "Make, mount, check and look into xnfs images.")
    kinds = made.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name in _COMMANDS:
        kinds.add_parser(name, help=f"the same as {name}.xnfs", add_help=False)
    for name, (_module, text) in _MODULES.items():
        kinds.add_parser(name, help=text, add_help=False)
    kinds.add_parser("doctor", help="say whether this machine can mount")
    each = kinds.add_parser("ls", help="list a directory of an image")
    each.add_argument("image", metavar="IMAGE")
    each.add_argument("path", metavar="PATH", nargs="?", default="/")
    each = kinds.add_parser("cat", help="print a file of an image")
    each.add_argument("image", metavar="IMAGE")
    each.add_argument("path", metavar="PATH")
    each = kinds.add_parser("get", help="copy a file out of an image")
    each.add_argument("image", metavar="IMAGE")
    each.add_argument("path", metavar="PATH")
    each.add_argument("file", metavar="FILE", nargs="?", help="default: the same name here")
    each = kinds.add_parser("put", help="copy a file into an image")
    each.add_argument("image", metavar="IMAGE")
    each.add_argument("file", metavar="FILE")
    each.add_argument("path", metavar="PATH")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    given = words(argv)
    if given and given[0] in _COMMANDS:
        return _COMMANDS[given[0]](given[1:])
    if given and given[0] in _MODULES:
        status: int = importlib.import_module(_MODULES[given[0]][0]).main(given[1:])
        return status
    return run(PROG, CODES, lambda: _main(given))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    if args.command == "doctor":
        return doctor()
    if args.command == "ls":
        return files.ls(args.image, args.path)
    if args.command == "cat":
        return files.cat(args.image, args.path)
    if args.command == "get":
        return files.get(args.image, args.path, args.file)
    if args.command == "put":
        return files.put(args.image, args.file, args.path)
    raise Usage(f"unknown command {args.command}")
