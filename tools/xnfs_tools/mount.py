"""mount.xnfs: mount file systems of an image. Also mount.fuse.xnfs, which mount(8) calls.

An image is open in one process only, so file systems of one image that are to be mounted at the
same time are mounted by one command and served by one process: one XN, one free map, one registry.

The command returns when the mount is usable: the server runs in a child, which tells its parent
through a pipe that it is ready, or in one line why not.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import logging.handlers
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Final

from libfs.formats import Format
from libfs.fuse import FuseMissing, MountFailed, load, unmount
from libfs.requests import CONTROL
from xnfs_tools import mountinfo, mountopts
from xnfs_tools.command import (
    Codes,
    Failed,
    Parser,
    Usage,
    explain,
    parser,
    run,
    split_image,
    words,
)
from xnfs_tools.foreign import load_format
from xnfs_tools.serving import Place, serve_places

PROG: Final = "mount.xnfs"
HELPER: Final = "mount.fuse.xnfs"
SYSTEM, FAILED = 2, 32
CODES: Final = Codes(failed=FAILED, usage=1, interrupted=FAILED)
#: A server that was killed lets go of its image when the kernel has taken its memory back.
_PATIENCE: Final = 5.0
_MS_RDONLY, _MS_REMOUNT = 1, 32
_FLAGS: Final = {"nosuid": 2, "nodev": 4, "noexec": 8}


def arguments(helper: bool = False) -> Parser:
    """The command line; mount(8) has its own ideas of what -f means."""
    made = parser(HELPER if helper else PROG, "Mount an xnfs image on a directory.")
    made.add_argument("image", metavar="IMAGE[:ROOT]", help="file or block device")
    made.add_argument("directory", metavar="DIR", help="where to mount it")
    made.add_argument(
        "more", metavar="IMAGE[:ROOT] DIR", nargs="*", help="others of the same image"
    )
    made.add_argument(
        "-o",
        metavar="OPTIONS",
        action="append",
        default=[],
        help="mount options, with commas between",
    )
    if helper:
        made.add_argument("-f", dest="fake", action="store_true", help="do everything but mount")
        made.add_argument("-n", action="store_true", help="ignored (no mtab)")
        made.add_argument("-s", action="store_true", help="ignored (sloppy options)")
        made.add_argument("-v", action="store_true", help="ignored (verbose)")
        made.add_argument("-t", metavar="TYPE", help="ignored (type)")
    else:
        made.add_argument(
            "-f", dest="foreground", action="store_true", help="stay in the foreground"
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command, under either name."""
    helper = os.path.basename(sys.argv[0]) == HELPER and argv is None
    return run(HELPER if helper else PROG, CODES, lambda: _main(argv, helper))


def _main(argv: Sequence[str] | None, helper: bool) -> int:
    args = arguments(helper).parse_intermixed_args(words(argv))
    options = mountopts.parse(args.o)
    image, places = _places([args.image, args.directory, *args.more], options.root)
    if options.remount:
        if len(places) > 1:
            raise Usage("remount one at a time")
        return _remount(places[0].directory, options)
    kind = _foreign(options, helper=helper)
    if not options.direct():
        if len(places) > 1:
            raise Usage("several at once need transport=kernel")
        try:
            load()
        except FuseMissing as error:
            raise Failed(f"{error}; 'xnfs doctor' says more", SYSTEM) from None
    stale = [_clear_stale(place.directory) for place in places]
    try:
        for place in places:
            if not stat.S_ISDIR(os.stat(place.directory).st_mode):
                raise Failed(f"{place.directory}: not a directory")
        os.stat(image)
    except OSError as error:
        raise Failed(explain(error)) from None
    if helper and args.fake:
        return 0

    def serve(ready: Callable[[], None]) -> None:
        serve_places(image, places, options, kind, ready, _PATIENCE if any(stale) else 0.0)

    if not helper and args.foreground:
        logging.basicConfig(format=f"{PROG}: %(message)s", level=logging.INFO)
        serve(lambda: None)
        return 0
    return _in_background(serve)


def _places(given: Sequence[str], root: str | None) -> tuple[str, list[Place]]:
    """The image, and what of it goes where. Raises: Usage."""
    if len(given) % 2:
        raise Usage(f"where is {given[-1]} to be mounted?")
    images, places = set(), []
    for text, directory in zip(given[::2], given[1::2], strict=True):
        image, name = split_image(text)
        # The server changes its directory, and the kernel's table has absolute names.
        image = os.path.realpath(image)
        images.add(image)
        if name is not None and root is not None:
            raise Usage(f"{text} and root={root}: one or the other")
        source = image if name is None else f"{image}:{name}"
        places.append(Place(name or root, os.path.realpath(directory), source))
    if len(images) > 1:
        raise Usage("one command mounts file systems of one image")
    if len({place.directory for place in places}) < len(places):
        raise Usage("a directory is named twice")
    return images.pop(), places


def _foreign(options: mountopts.MountOptions, *, helper: bool) -> Format | None:
    """Somebody's own file system: code that runs as whoever mounts. So only who has the rights of
    that user, and no more, may choose it, and mount(8) takes no module from where it was called.
    """
    if options.fs is None:
        return None
    if options.anybody or (os.getuid(), os.getgid()) != (os.geteuid(), os.getegid()):
        raise Failed("fs= runs anybody's code: not for mounts that are made for somebody else")
    return load_format(options.fs, here=not helper)


def _clear_stale(directory: str) -> bool:
    """Take away what a killed server left at the directory; whether there was something."""
    found = False
    while mountinfo.at(directory) is not None:
        try:
            os.statvfs(directory)  # attributes may still be cached; this is always asked for
            return found
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                return found
        if unmount(directory, lazy=True):
            raise Failed(f"{directory}: a dead mount is in the way and can't be removed")
        found = True
    return found


def _remount(directory: str, options: mountopts.MountOptions) -> int:
    """`mount -o remount,ro` and back. The server is told first, so that it has written everything
    back before the kernel refuses writes; and last when it may write again.
    """
    mounted = mountinfo.at(directory)
    if mounted is None:
        raise Failed(f"{directory}: no xnfs file system is mounted there")
    if options.readonly:
        _tell(directory, b"ro")
    flags = _MS_REMOUNT | (_MS_RDONLY if options.readonly else 0)
    for name in {*mounted.options.split(","), *options.kernel} & _FLAGS.keys():
        flags |= _FLAGS[name]
    libc = ctypes.CDLL(None, use_errno=True)
    where = os.fsencode(directory)
    if libc.mount(os.fsencode(mounted.source), where, b"fuse.xnfs", flags, None):
        failed = ctypes.get_errno()
        if options.readonly:
            _tell(directory, b"rw")
        raise Failed(f"{directory}: {os.strerror(failed)}")
    if not options.readonly:
        _tell(directory, b"rw")
    return 0


def _tell(directory: str, what: bytes) -> None:
    try:
        os.setxattr(directory, CONTROL, what)
    except OSError as error:
        if error.errno == errno.EROFS and what == b"ro":
            return  # it is already
        raise Failed(explain(error)) from None


def _in_background(serve: Callable[[Callable[[], None]], None]) -> int:
    """Run `serve` in a child and return as soon as it is ready. Raises: Failed."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _child(serve, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    if said == b"\0":
        return 0
    if not said:
        raise Failed("the server ended before the mount was ready")
    raise Failed(said[1:].decode(errors="replace"), said[0])


def _child(serve: Callable[[Callable[[], None]], None], writer: int) -> None:
    """The server. Never returns."""
    os.setsid()
    words = tempfile.TemporaryFile()  # noqa: SIM115 - libfuse says on standard error what failed
    os.dup2(words.fileno(), 2)

    def ready() -> None:
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        _log_to_system()
        os.write(writer, b"\0")
        os.close(writer)

    status = 0
    try:
        serve(ready)
    except BaseException as error:
        status = FAILED
        text = _last_line(words) if isinstance(error.__context__, MountFailed) else ""
        text = f"{explain(error)}{f' ({text})' if text else ''}"
        code = error.status if isinstance(error, Failed) and error.status is not None else FAILED
        try:
            os.write(writer, bytes([code]) + text.encode(errors="replace"))
        except OSError:  # it was ready, and closed the pipe
            logging.getLogger("xnfs").error("%s", text)
    finally:
        os._exit(status)


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _log_to_system() -> None:
    """What a server has to say later goes to the system's log, if there is one."""
    logging.lastResort = None
    if os.path.exists("/dev/log"):
        try:
            handler = logging.handlers.SysLogHandler("/dev/log")
        except OSError:
            return
        handler.ident = f"{PROG}[{os.getpid()}]: "
        logging.getLogger("xnfs").addHandler(handler)
