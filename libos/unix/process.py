"""Processes: fork, exec, wait, descriptors, pipes and signals, as library code.

A program is `main(process, arguments)`, a generator; it calls the methods here with `yield from`.

*fork* can't return twice, because a Python generator can't be copied: the child begins at a
function that the parent names. All else is as it should be: a copy-on-write copy of the address
space, and the descriptors, which share their offsets.

Waiting is by predicate, over the exposed state of a child or over the frame of a pipe; signals are
sent by `SEND`, and the receiver's own handler decides whether it obeys the sender.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, Final

from libfs.posix import FsError, Ino, User
from libos import pipe as pipes
from libos.pipe import Pipe
from libos.space import Space
from libos.unix.files import Channel, Console, Description, File, PipeEnd
from libos.unix.world import World
from xnfs import Boot, NoSuchEnvironment, Program, XnError, calls

SIGINT, SIGKILL, SIGTERM, SIGCHLD = 2, 9, 15, 17
#: What a signal that nobody handles does: all but this one end the process.
_IGNORED: Final = frozenset({SIGCHLD})
#: Pages for pipes, far from those of programs.
_PIPES: Final = 1 << 34
#: True if the word at args[0] is args[1], or that at args[2] is args[3], …: a child has ended.
_ENDED: Final = """\
def ready(kernel, a, b, c, d, args):
    if len(args) < 8:
        return 0
    for i in range(4):
        at = args[2 * i]
        if at != 0 and at <= len(kernel) - 8:
            if u64(kernel, at) == args[2 * i + 1]:
                return 1
    return 0
"""
_LOOK: Final = 200_000  # cycles between looks at more children than a predicate watches

Entry = Callable[..., Program]


class Replaced(BaseException):
    """exec: unwinds what ran, up to the loop that starts the new program."""

    def __init__(self, main: Entry, arguments: tuple[str, ...]) -> None:
        self.main = main
        self.arguments = arguments


class Process:
    """One process, as the library inside it sees it."""

    def __init__(self, me: Boot, world: World, parent: int, user: User, directory: Ino) -> None:
        self.me = me
        self.world = world
        self.pid = me.id
        self.parent = parent
        self.user = user
        self.directory = directory
        self.space = Space(me, account=world.account, token=world.token)
        self.descriptors: dict[int, Description] = {}
        self.children: set[int] = set()
        self.handlers: dict[int, Callable[[Process, int], Program]] = {}
        self._pipes: dict[Channel, Pipe] = {}
        self._page = _PIPES
        self._ended = -1
        world.processes[self.pid] = self

    def start(self) -> Program:
        """What the environment itself must do: save area, handlers, the predicate of `wait`."""
        yield from self.space.start()
        yield (calls.HANDLER, calls.SENT, self._signalled)
        self._ended = yield (calls.PREDICATE, _ENDED, (), self.me.token)

    def run(self, main: Entry, arguments: tuple[str, ...]) -> Program:
        """Run a program, and whatever it becomes by exec, to its end. Returns the status."""
        while True:
            try:
                status = yield from main(self, arguments)
                return (yield from self._finish(status if type(status) is int else 0))
            except Replaced as new:
                main, arguments = new.main, new.arguments
                self.handlers.clear()
            except FsError as error:
                yield from self.write(2, f"{arguments[0]}: {error.strerror}\n".encode())
                return (yield from self._finish(1))

    def _finish(self, status: int) -> Program:
        """Close everything; what cannot be closed was not open."""
        yield from self.close_all()
        self.world.processes.pop(self.pid, None)
        return status

    def exit(self, status: int) -> Program:
        """End here."""
        yield from self._finish(status)
        yield (calls.EXIT, status)

    # --- processes --------------------------------------------------------------------------

    def fork(self, entry: Entry, *arguments: Any, slots: int = 1) -> Program:
        """A child that runs `entry(process, *arguments)` on a copy of this address space, with
        these descriptors. Returns its number. Raises XnError.
        """
        world = self.world
        birth: list[Any] = []
        child = yield (
            calls.SPAWN,
            _born,
            (self, birth, entry, arguments),
            world.account,
            world.token,
        )
        pages, token = yield from self.space.share(child)
        birth += [pages, token, dict(self.descriptors), dict(self.handlers)]
        for description in self.descriptors.values():
            yield from description.opened(self)
        self.children.add(child)
        yield (calls.GIVE_QUOTA, world.account, child, 0, slots, 0, world.token)
        for _ in range(slots):
            yield (calls.SLOT_ALLOC, child, calls.ANY, calls.ANY, world.token)
        return child

    def exec(self, path: str, arguments: Sequence[str]) -> Program:
        """Become the program of a file. Returns only by raising FsError."""
        world = self.world
        ino = world.resolve(self.user, path if "/" in path else f"/bin/{path}", self.directory)
        world.posix.access(self.user, ino, 1)
        main = world.program(self.user, ino)
        yield from self.waited(4096)
        raise Replaced(main, tuple(arguments))

    def wait(self, pid: int = 0) -> Program:
        """Wait for a child, or for any (0): its number and its status, 128 + 9 if it was ended from
        outside. Raises FsError: ECHILD.
        """
        if pid not in self.children and (pid or not self.children):
            raise FsError(errno.ECHILD)
        wanted = [pid] if pid else sorted(self.children)
        tables = self.me.tables
        while True:
            for child in wanted:
                if tables.state(child) in (calls.ENDED, calls.NONE):
                    self.children.discard(child)
                    left = self.world.processes.pop(child, None)
                    if left is not None:  # it could not close what it had
                        yield from left.close_all(self)
                        return child, 128 + SIGKILL
                    return child, tables.status(child) or 0
            args: list[int] = []
            for child in wanted[:4]:
                word = tables.environments + 3 * (child % tables.max_environments)
                args += [8 * word, child << 8 | calls.ENDED]
            args += [0] * (8 - len(args))
            now = yield (calls.CLOCK,)
            limit = now + _LOOK if len(wanted) > 4 else 0
            yield (calls.WAIT, self._ended, tuple(args), limit)

    def sleep(self, cycles: int) -> Program:
        """Sleep for so long, whatever interrupts."""
        now = yield (calls.CLOCK,)
        end = now + cycles
        while now < end:
            yield (calls.SLEEP, end)
            now = yield (calls.CLOCK,)

    # --- signals ----------------------------------------------------------------------------

    def signal(self, number: int, handler: Callable[[Process, int], Program] | None) -> None:
        """Handle a signal: `handler(process, number)` runs, then what was interrupted goes on.
        None: as before.
        """
        if handler is None:
            self.handlers.pop(number, None)
        else:
            self.handlers[number] = handler

    def kill(self, pid: int, number: int) -> Program:
        """Send a signal. Raises FsError: ESRCH, EPERM."""
        other = self.world.processes.get(pid)
        if other is None:
            raise FsError(errno.ESRCH)
        if self.user.uid not in (0, other.user.uid):
            raise FsError(errno.EPERM)
        try:
            if number == SIGKILL:
                yield (calls.END, pid, self.world.token)
            elif pid == self.pid:
                yield from self._signalled(pid, number, 0, 0)
            else:
                yield (calls.SEND, pid, number, 0, 0)
        except NoSuchEnvironment:
            raise FsError(errno.ESRCH) from None

    def _signalled(self, sender: int, number: int, r1: int, r2: int) -> Program:
        """Anybody on the machine may send; only this Unix's own are obeyed."""
        source = self.world.processes.get(sender)
        if source is None or source.user.uid not in (0, self.user.uid):
            return
        handler = self.handlers.get(number)
        if handler is not None:
            yield from handler(self, number)
        elif number not in _IGNORED:
            yield from self.exit(128 + number)

    # --- descriptors ------------------------------------------------------------------------

    def open(self, path: str, flags: int = 0, mode: int = 0o644) -> Program:
        """Open or create (os.O_* flags). Returns the lowest free descriptor. Raises FsError."""
        world = self.world
        create, append = flags & 0o100, bool(flags & 0o2000)
        try:
            ino = world.resolve(self.user, path, self.directory)
            handle = world.posix.open(self.user, ino, flags)
        except FsError as error:
            if error.errno != errno.ENOENT or not create:
                raise
            parent, name = world.parent(self.user, path, self.directory)
            made, handle = world.posix.create(self.user, parent, name, mode, flags)
            ino = Ino(made.ino)
        yield from self.waited(0)
        return (yield from self._install(File(handle, ino, append)))

    def _install(self, description: Description) -> Program:
        number = min(set(range(len(self.descriptors) + 1)) - self.descriptors.keys())
        yield from description.opened(self)
        self.descriptors[number] = description
        return number

    def dup2(self, old: int, new: int) -> Program:
        """`new` names what `old` names."""
        description = self._at(old)
        if old != new:
            if new in self.descriptors:
                yield from self.close(new)
            yield from description.opened(self)
            self.descriptors[new] = description
        return new

    def close(self, number: int) -> Program:
        """Raises FsError: EBADF."""
        description = self._at(number)
        del self.descriptors[number]
        yield from description.closed(self)

    def close_all(self, by: Process | None = None) -> Program:
        """Close all, in this process or in the one that buries it."""
        for number in list(self.descriptors):
            yield from self.descriptors.pop(number).closed(by or self)

    def pipe_ends(self) -> Program:
        """A new pipe: the descriptors to read and to write."""
        frame = yield from pipes.make(self.me, self.world.account, self.world.token)
        channel = Channel(frame)
        reader = yield from self._install(PipeEnd(channel, writes=False))
        writer = yield from self._install(PipeEnd(channel, writes=True))
        return reader, writer

    def pipe(self, channel: Channel) -> Program:
        """Our view of a pipe, bound on first use."""
        pipe = self._pipes.get(channel)
        if pipe is None:
            self._page += 1
            pipe = Pipe(self.me, channel.frame, self.world.token, self._page)
            self._pipes[channel] = pipe
            yield from pipe.attach()
        return pipe

    def forget(self, channel: Channel) -> Program:
        """Nobody has the pipe any more: its frame is free."""
        del self._pipes[channel]
        yield (calls.FRAME_FREE, channel.frame, self.world.token)

    def read(self, number: int, count: int) -> Program:
        """Up to so many bytes; b"" at the end."""
        return (yield from self._at(number).read(self, count))

    def read_all(self, number: int) -> Program:
        """Everything up to the end."""
        parts = []
        while part := (yield from self.read(number, 4096)):
            parts.append(part)
        return b"".join(parts)

    def write(self, number: int, data: bytes) -> Program:
        """All of the bytes."""
        return (yield from self._at(number).write(self, data))

    def _at(self, number: int) -> Description:
        description = self.descriptors.get(number)
        if description is None:
            raise FsError(errno.EBADF)
        return description

    # --- files ------------------------------------------------------------------------------

    def chdir(self, path: str) -> Program:
        """Paths begin there from now on. Raises FsError."""
        ino = self.world.resolve(self.user, path, self.directory)
        self.world.posix.access(self.user, ino, 1)
        yield from self.waited(0)
        self.directory = ino

    def names(self, path: str) -> Program:
        """The names in a directory, without dots. Raises FsError."""
        posix = self.world.posix
        handle = posix.opendir(self.user, self.world.resolve(self.user, path, self.directory))
        found: list[bytes] = []
        cookie = 0
        while entries := posix.readdir(handle, cookie):
            found += [entry.name for entry in entries if entry.name not in (b".", b"..")]
            cookie = entries[-1].next
        posix.releasedir(handle)
        yield from self.waited(16 * len(found))
        return found

    def mkdir(self, path: str, mode: int = 0o755) -> Program:
        """Raises FsError."""
        parent, name = self.world.parent(self.user, path, self.directory)
        self.world.posix.mkdir(self.user, parent, name, mode)
        yield from self.waited(0)

    def unlink(self, path: str) -> Program:
        """Raises FsError."""
        parent, name = self.world.parent(self.user, path, self.directory)
        self.world.posix.unlink(self.user, parent, name)
        yield from self.waited(0)

    def rename(self, old: str, new: str) -> Program:
        """Raises FsError."""
        world = self.world
        source = world.parent(self.user, old, self.directory)
        world.posix.rename(self.user, *source, *world.parent(self.user, new, self.directory))
        yield from self.waited(0)

    def waited(self, count: int) -> Program:
        """The time of a file operation: its words copied, and the disk."""
        yield count // 8 + 50
        if self.world.disk is not None:
            yield from self.world.disk.wait()


def _born(me: Boot) -> Program:
    """The child's side of fork."""
    parent, birth, entry, arguments = me.args
    process = Process(me, parent.world, parent.pid, parent.user, parent.directory)
    yield from process.start()
    pages, token, process.descriptors, process.handlers = birth
    process.space.adopt(pages.items(), token)

    def main(process: Process, _: tuple[str, ...]) -> Program:
        return (yield from entry(process, *arguments))

    return (yield from process.run(main, ("child",)))


def first(me: Boot, world: World, arguments: tuple[str, ...], user: User) -> Program:
    """The first process: descriptors 0 to 2 are the console."""
    world.account, world.token = me.id, me.token
    process = Process(me, world, 0, user, world.root)
    yield from process.start()
    console = Console()
    for _ in range(3):
        yield from process._install(console)

    def main(process: Process, arguments: tuple[str, ...]) -> Program:
        try:
            yield from process.exec(arguments[0], arguments)
        except XnError as error:
            yield from process.write(2, f"{arguments[0]}: {error}\n".encode())
            return 1

    return (yield from process.run(main, arguments))
