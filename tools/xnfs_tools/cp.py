"""`xnfs cp`: copy within an image, without a mount or through the one that has it (XCP).

Where the image is mounted, its server does the work, as the caller (`libfs.kernel.controls`).
Otherwise it is done here, as the superuser: whoever may write the image may do anything in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from libfs.kernel import controls
from libfs.posix import FsError
from libfs.posix.copying import How
from xnfs_tools import mountinfo
from xnfs_tools.command import Codes, Failed, Parser, Progress, Usage, parser, run, words
from xnfs_tools.files import printable
from xnfs_tools.session import ROOT, SUPERUSER, Session, open_image

PROG: Final = "xnfs cp"
CODES: Final = Codes(failed=1, usage=2)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Copy within an image, without touching the bytes.")
    made.add_argument("-r", action="store_true", help="directories, too, with all below them")
    made.add_argument(
        "-a", action="store_true", help="the same, keeping owners, modes, times, attributes, links"
    )
    made.add_argument("-R", "--root", metavar="ROOT", help="the file system (default: main)")
    made.add_argument("source", metavar="IMAGE:SRC", help="file or directory in an image")
    made.add_argument("target", metavar="IMAGE:DST", help="new name, or a directory to copy into")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    args = arguments().parse_args(words(argv))
    image, source = _place(args.source)
    other, target = _place(args.target)
    if image != other:
        raise Failed("source and target must be in one image")
    mask = os.umask(0o077)
    os.umask(mask)
    copy(image, source, target, How(args.r, args.a, mask), args.root)
    return 0


def _place(text: str) -> tuple[str, str]:
    """An image, as an absolute path without links, and a path in it: what stands before and after
    the first colon that follows the name of a file, or of a mounted image, which may lie where the
    caller can't look."""
    image, colon, path = text.partition(":")
    while colon:
        real = os.path.realpath(image)
        if os.path.exists(real) or mountinfo.of(real):
            return real, path
        more, colon, path = path.partition(":")
        image = f"{image}:{more}"
    raise Usage(f"'{text}' is not IMAGE:PATH, with an image that exists")


def copy(image: str, source: str, target: str, how: How, root: str | None = None) -> None:
    """Copy within a root, wherever the image is open. Raises: Failed."""
    mounted = mountinfo.of(image)
    try:
        if mounted:
            name = root or ROOT
            sources = {f"{image}:{name}"} | ({image} if name == ROOT else set())
            there = [each for each in mounted if each.source in sources]
            if not there:
                raise Failed(f"{image} is mounted, but not its file system '{name}'")
            request = controls.CopyRequest(how, os.fsencode(source), os.fsencode(target))
            controls.ask(there[0].directory, request)
            return
        with open_image(image if root is None else f"{image}:{root}", readonly=False) as session:
            _copy_here(session, source, target, how)
    except FsError as error:
        raise failed(error, source, target) from None


def _copy_here(session: Session, source: str, target: str, how: How) -> None:
    posix = session.posix
    request = controls.CopyRequest(how, os.fsencode(source), os.fsencode(target))
    progress = Progress()
    steps = 0

    def pause() -> None:
        nonlocal steps
        steps += 1
        progress("steps", steps)

    try:
        controls.copy(posix, SUPERUSER, request, pause)
    finally:
        progress.end()


def failed(error: FsError, source: str, target: str) -> Failed:
    """What to tell: the path that the error is about, if it knows one, else the copy."""
    if error.filename is not None:
        below = printable(os.fsencode(error.filename))
        return Failed(f"{source.rstrip('/')}/{below}: {error.strerror}")
    return Failed(f"{source} to {target}: {error.strerror}")
