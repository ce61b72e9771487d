"""xnfs: all commands under one name, and those that have no name of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Final

from xnfs_tools import debugfs, dumpfs, files, fsck, mkfs, mount, mv, roots, umount
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
    "snapshot": ("xnfs_tools.snapshot", "take, list, delete, mount and go back to snapshots"),
    "cp": ("xnfs_tools.cp", "copy within an image, without touching the bytes"),
    "crash": ("xnfs_tools.crash", "cut the power of a file system everywhere, and look"),
    "run": ("xnfs_tools.run", "an experiment on the simulated machine"),
    "verify": ("xnfs_tools.verify", "say what the verifier proves of downloaded code"),
    "serve": ("xnfs_tools.serve", "serve the files of an image over HTTP"),
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
    each = kinds.add_parser("mv", help="move files between the file systems of an image")
    each.add_argument("source", metavar="IMAGE:ROOT/PATH")
    each.add_argument("target", metavar="IMAGE:ROOT/PATH")
    each = kinds.add_parser("roots", help="list the file systems of an image")
    each.add_argument("image", metavar="IMAGE")
    each = kinds.add_parser("rmroot", help="remove a file system, and free its blocks")
    each.add_argument("-F", action="store_true", help="without asking")
    each.add_argument("image", metavar="IMAGE:ROOT")
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
    if args.command == "mv":
        return mv.move(args.source, args.target)
    if args.command == "roots":
        return roots.show(args.image)
    if args.command == "rmroot":
        return roots.remove(args.image, force=args.F)
    raise Usage(f"unknown command {args.command}")
