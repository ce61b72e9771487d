"""mkfs.xnfs: make an image, and a file system in it; or one more file system in an image."""

from __future__ import annotations

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from libfs.ffs import F_GROUPING
from libfs.formats import FORMATS, Format
from libfs.posix import Posix
from xnfs import (
    BLOCK,
    BadImage,
    Caller,
    DeviceError,
    FileDevice,
    FramePool,
    VersionError,
    Xn,
    XnError,
    create_image,
    format_image,
    read_superblock_untrusted,
)
from xnfs_tools.command import (
    Codes,
    Failed,
    Parser,
    Usage,
    about,
    ask,
    human,
    parse_size,
    parser,
    run,
    words,
)
from xnfs_tools.foreign import load_format
from xnfs_tools.populate import populate
from xnfs_tools.session import CACHE, ROOT, open_kernel

PROG: Final = "mkfs.xnfs"
CODES: Final = Codes(failed=1, usage=1)
#: How much of the beginning is looked at for somebody's data.
_LOOK: Final = 256
_NAME_MAX: Final = 64


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Make an xnfs image with a file system in it.")
    made.add_argument(
        "-t",
        metavar="TYPE",
        default="ffs",
        help=f"kind of file system: {', '.join(FORMATS)}, or module:Class",
    )
    made.add_argument(
        "--add", metavar="NAME", help="add a file system of this name to the image that is there"
    )
    made.add_argument(
        "-O",
        metavar="FEATURE",
        choices=["cffs"],
        help="cffs: small files of a directory are read together",
    )
    made.add_argument("-L", metavar="LABEL", default="", help="label, at most 64 bytes")
    made.add_argument("-U", metavar="UUID", help="UUID (default: a random one)")
    made.add_argument("-n", action="store_true", help="say what would be done, and do nothing")
    made.add_argument("-F", action="store_true", help="overwrite whatever is there without asking")
    made.add_argument("-d", metavar="DIR", help="copy the contents of this directory into it")
    made.add_argument("image", metavar="IMAGE", help="file or block device")
    made.add_argument("size", metavar="SIZE", nargs="?", help="with k, m, g or t; for a new file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    args = arguments().parse_args(words(argv))
    ident = _uuid(args.U)
    size = None if args.size is None else parse_size(args.size)
    if args.d is not None and not os.path.isdir(args.d):
        raise Failed(f"{args.d}: not a directory")
    path: str = args.image
    kind = _kind(args.t)
    if args.O and kind.name != "ffs":
        raise Usage(f"{kind.name} has no feature '{args.O}'")
    features = {"flags": F_GROUPING} if args.O else {}
    if args.add is not None:
        if size is not None or args.L or args.U or args.F:
            raise Usage("--add takes what the image has: no SIZE, -L, -U or -F")
        return _add(path, args.add, kind, args.d, features, dry=args.n)
    fresh = not os.path.lexists(path)
    if fresh:
        if size is None:
            raise Usage(f"{path} does not exist: give a size to create it")
    else:
        size = _may_overwrite(path, size, force=args.F, dry=args.n)
    size -= size % BLOCK
    plan = f"{path}: {args.t}, {human(size)} ({size // BLOCK} blocks of {BLOCK}), UUID {ident}"
    if args.n:
        print(f"would make {plan}")
        return 0
    with _created(path, size, fresh=fresh):
        _make(path, ident.bytes, args.L, kind, args.d, features)
    print(plan)
    return 0


def _add(
    path: str,
    name: str,
    kind: Format,
    source: str | None,
    features: Mapping[str, int],
    *,
    dry: bool,
) -> int:
    """One more root. If it can't be filled it is removed again. Raises: Failed."""
    if not name or not name.isprintable() or set(name) & set(":/ "):
        raise Usage(f"'{name}' can't be the name of a file system (no blanks, ':' or '/')")
    if len(name.encode()) > _NAME_MAX:
        raise Usage(f"'{name}' is too long: {_NAME_MAX} bytes at most")
    with open_kernel(path, readonly=dry) as xn:
        if any(root.name == name for root in xn.roots()):
            raise Failed(f"{path}: there is a file system named '{name}' already")
        plan = f"{path}:{name}: {kind.name}, shares {human(xn.free_blocks() * BLOCK)} that are free"
        if dry:
            print(f"would add {plan}")
            return 0
        try:
            try:
                _fill(xn, name, kind, source, features)
            except BaseException:
                if any(root.name == name for root in xn.roots()):
                    xn.remove_root(Caller(xn.admin), name)
                raise
        except XnError as error:
            raise about(path, error) from None
    print(plan)
    return 0


def _kind(text: str) -> Format:
    """A format by name, or somebody's own: ordinary code, which runs as whoever calls mkfs."""
    if ":" in text:
        return load_format(text, here=True)
    try:
        return FORMATS[text]
    except KeyError:
        raise Usage(f"there is no kind '{text}' ({', '.join(FORMATS)}, or module:Class)") from None


def _uuid(text: str | None) -> uuid.UUID:
    try:
        return uuid.uuid4() if text is None else uuid.UUID(text)
    except ValueError:
        raise Usage(f"'{text}' is not a UUID") from None


def _may_overwrite(path: str, size: int | None, *, force: bool, dry: bool) -> int:
    """The size that the image will have. Raises: Failed, also if the user says no."""
    device = _open(path, readonly=dry)
    try:
        found = None if force else _contents(device)
        if found is not None and not dry:
            text = f"{path} contains {found}"
            if not ask(f"{text}. Overwrite it?", f"{text}; use -F to overwrite it"):
                raise Failed("nothing was changed")
        have = device.blocks * BLOCK
    finally:
        device.close()
    if size is None or size == have:
        return have
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Failed(f"{path}: the size of a device can't be chosen (it has {human(have)})")
    return size


def _open(path: str, *, readonly: bool) -> FileDevice:
    try:
        return FileDevice(path, readonly=readonly)
    except XnError as error:
        raise about(path, error) from None


def _contents(device: FileDevice) -> str | None:
    """What seems to be on the device; None for nothing but zeros."""
    try:
        label = read_superblock_untrusted(device).label
        return f"an xnfs file system{f' labelled {label!r}' if label else ''}"
    except VersionError:
        return "an xnfs file system of a newer version"
    except BadImage as error:
        _, like, what = str(error).partition("it looks like ")
        if like:
            return what
    buffer = bytearray(min(_LOOK, device.blocks) * BLOCK)
    if buffer:
        device.read(0, [memoryview(buffer)])
    return "data" if any(buffer) else None


@contextlib.contextmanager
def _created(path: str, size: int, *, fresh: bool) -> Iterator[None]:
    """The file in its size and all zero; removed if it was made here and what follows fails."""
    if not fresh:
        if stat.S_ISREG(os.stat(path).st_mode):
            # Sparse again, and without a trace of what was there.
            os.truncate(path, 0)
            os.truncate(path, size)
        yield
        return
    try:
        create_image(path, size)
    except DeviceError as error:
        raise about(path, error) from None
    try:
        yield
    except BaseException:
        os.unlink(path)
        raise


def _make(
    path: str,
    ident: bytes,
    label: str,
    kind: Format,
    source: str | None,
    features: Mapping[str, int],
) -> None:
    device = _open(path, readonly=False)
    try:
        format_image(device, uuid=ident, label=label, now=time.time_ns())
        xn = Xn(device, frames=FramePool(CACHE // BLOCK))
        try:
            _fill(xn, ROOT, kind, source, features)
        finally:
            xn.close()
    except XnError as error:
        raise about(path, error) from None
    finally:
        device.close()


def _fill(xn: Xn, name: str, kind: Format, source: str | None, features: Mapping[str, int]) -> None:
    """A file system, with what is in the directory `source`. Raises: XnError, Failed, OSError."""
    # Who makes an image for themselves wants to write in it.
    owner = {"uid": os.getuid(), "gid": os.getgid()} if kind.super else {}
    kind.mkfs(xn, xn.admin, name, **owner, **features)
    if source is not None:
        posix = Posix(kind.mount(xn, xn.admin, name, readonly=False))
        try:
            populate(posix, source)
        finally:
            posix.close()
