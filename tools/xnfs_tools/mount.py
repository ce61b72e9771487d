"""mount.xnfs: mount an image. Also mount.fuse.xnfs, which mount(8) calls.

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
import time
from collections.abc import Callable, Sequence
from typing import IO, Final

from libfs.fuse import FuseMissing, Mount, MountFailed, load, unmount
from libfs.kernel.mounting import MountFailed as KernelRefused
from libfs.kernel.session import Mount as DirectMount
from libfs.requests import CONTROL
from xnfs import BadImage, CorruptionError, InUse
from xnfs_tools import mountinfo, mountopts
from xnfs_tools.command import Codes, Failed, Parser, explain, parser, run, words
from xnfs_tools.session import open_image

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
    made.add_argument("image", metavar="IMAGE", help="file or block device")
    made.add_argument("directory", metavar="DIR", help="where to mount it")
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
    args = arguments(helper).parse_args(words(argv))
    options = mountopts.parse(args.o)
    # The server changes its directory, and the kernel's table has absolute names.
    image, directory = os.path.realpath(args.image), os.path.realpath(args.directory)
    if options.remount:
        return _remount(directory, options)
    if not options.direct():
        try:
            load()
        except FuseMissing as error:
            raise Failed(f"{error}; 'xnfs doctor' says more", SYSTEM) from None
    stale = _clear_stale(directory)
    try:
        if not stat.S_ISDIR(os.stat(directory).st_mode):
            raise Failed(f"{args.directory}: not a directory")
        os.stat(image)
    except OSError as error:
        raise Failed(explain(error)) from None
    if helper and args.fake:
        return 0

    def serve(ready: Callable[[], None]) -> None:
        _serve(image, directory, options, ready, _PATIENCE if stale else 0.0)

    if not helper and args.foreground:
        logging.basicConfig(format=f"{PROG}: %(message)s", level=logging.INFO)
        serve(lambda: None)
        return 0
    return _in_background(serve)


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


def _serve(
    image: str,
    directory: str,
    options: mountopts.MountOptions,
    ready: Callable[[], None],
    patience: float,
) -> None:
    """Mount and serve until unmounted.

    Raises: Failed, with the advice to run fsck where it helps.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with open_image(
                image,
                readonly=options.readonly,
                root=options.root,
                cache=options.cache,
                options=options.posix(),
                grouping=options.grouping,
            ) as session:
                kind = DirectMount if options.direct() else Mount
                words = options.words() if options.direct() else options.libfuse()

                def started(bad: tuple[int, ...] = session.xn.bad_superblocks) -> None:
                    ready()
                    for block in bad:
                        text = "%s: the superblock in block %d is damaged; its other copy was used"
                        logging.getLogger("xnfs").warning(text, image, block)

                kind(session.posix, directory, source=image, options=words, ready=started).run()
            return
        except Failed as error:
            cause = error.__context__
            if isinstance(cause, InUse):
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                there = mountinfo.of(image)
                if there is not None:
                    raise Failed(f"{image}: already mounted on {there.directory}") from None
            if isinstance(cause, BadImage | CorruptionError):
                raise Failed(f"{error}; to check it: fsck.xnfs {image}") from None
            raise
        except CorruptionError as error:
            raise Failed(f"{image}: {error}; to check it: fsck.xnfs {image}") from None
        except KernelRefused as error:
            raise Failed(f"{directory}: {error}") from None
        except MountFailed:
            raise Failed(f"{directory}: could not mount") from None


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
