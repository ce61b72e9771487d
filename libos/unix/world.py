"""What the processes of one Unix share.

As in ExOS, the abstractions live in libraries that all processes of one instance link; what they
share (process table, open file descriptions) is memory that they all may write, so processes of one
Unix trust each other as far as that memory goes. Other environments on the machine get nothing of
it: frames and environments are all on the account of the first process, under its capability.
"""

from __future__ import annotations

import errno
import importlib.resources
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libfs.posix import FsError, Ino, Posix, User
from libos.disk import TimedDevice
from xnfs import Boot, Machine, Program

if TYPE_CHECKING:
    from libos.unix.process import Process

#: Programs that come with it, as files of `libos/unix/bin`.
PROGRAMS = (
    *("cat", "cp", "echo", "false", "grep", "head", "kill", "ls", "mkdir", "mv", "rm", "seq"),
    *("sh", "sleep", "sort", "sum", "touch", "true", "wc"),
)


class World:
    """One instance of this Unix."""

    def __init__(self, posix: Posix, root: int, disk: TimedDevice | None = None) -> None:
        """`root`: the directory that is `/`. `disk`: what file operations wait for, if it takes
        time.
        """
        self.posix = posix
        self.root = Ino(root)
        self.disk = disk
        self.processes: dict[int, Process] = {}
        self.account = 0  # of the first process
        self.token = b""
        self.console: list[bytes] = []  # what was written to it
        self._compiled: dict[bytes, Callable[..., Program]] = {}

    # --- paths ------------------------------------------------------------------------------

    def resolve(self, user: User, path: str, directory: Ino) -> Ino:
        """The inode at a path. Symbolic links are not followed. Raises FsError."""
        ino = self.root if path.startswith("/") else directory
        for name in path.split("/"):
            if name and name != ".":
                ino = Ino(self.posix.lookup(user, ino, name.encode()).ino)
        return ino

    def parent(self, user: User, path: str, directory: Ino) -> tuple[Ino, bytes]:
        """The directory of a path's last name, and that name. Raises FsError."""
        head, slash, name = path.rstrip("/").rpartition("/")
        if not name:
            raise FsError(errno.EINVAL)
        return self.resolve(user, head or slash, directory), name.encode()

    def content(self, user: User, ino: Ino) -> bytes:
        """A whole file. Raises FsError."""
        handle = self.posix.open(user, ino, 0)
        try:
            return self.posix.read(handle, 0, self.posix.getattr(user, ino).size)
        finally:
            self.posix.release(handle)

    # --- programs ---------------------------------------------------------------------------

    def program(self, user: User, ino: Ino) -> Callable[..., Program]:
        """The `main(process, arguments)` of a program file, compiled once for each content.

        Raises FsError: ENOEXEC where it is no program.
        """
        source = self.content(user, ino)
        main = self._compiled.get(source)
        if main is None:
            names: dict[str, Any] = {}
            try:
                exec(compile(source, "program", "exec"), names)
            except Exception:
                raise FsError(errno.ENOEXEC) from None
            main = names.get("main")
            if not callable(main):
                raise FsError(errno.ENOEXEC)
            self._compiled[source] = main
        return main


def install(posix: Posix, root: int) -> None:
    """Put the programs into `/bin`. Raises FsError."""
    user = User(0, 0)
    at = Ino(posix.mkdir(user, Ino(root), b"bin", 0o755).ino)
    files = importlib.resources.files("libos.unix.bin")
    for name in PROGRAMS:
        _, handle = posix.create(user, at, name.encode(), 0o755, 2)
        posix.write(handle, 0, files.joinpath(f"{name}.py").read_bytes())
        posix.release(handle)


def boot(
    machine: Machine, world: World, *arguments: str, slots: int = 1, user: User | None = None
) -> int:
    """Start the first process: it runs the program `arguments[0]`. Raises XnError."""
    from libos.unix.process import first  # which imports us

    def program(me: Boot) -> Program:
        return (yield from first(me, world, arguments, user or User(0, 0)))

    return machine.boot(program, slots=slots)
