"""The small Unix: scripts, pipes, signals, shared offsets, copy-on-write; and nothing left over."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from libfs.posix import FsError
from libos.experiments.rig import ROOT, Rig
from libos.unix import Process, World, boot, install
from libos.unix.process import SIGKILL, SIGTERM
from xnfs import Program, calls


class Unix:
    """A machine with this Unix on a real file system."""

    def __init__(self, processors: int = 1) -> None:
        self.rig = Rig(frames=512, cache=128, processors=processors)
        install(self.rig.posix, self.rig.fs.root)
        self.world = World(self.rig.posix, self.rig.fs.root, self.rig.disk)

    def put(self, name: str, text: str) -> None:
        _, handle = self.rig.posix.create(ROOT, self.world.root, name.encode(), 0o755, os.O_RDWR)
        self.rig.posix.write(handle, 0, text.encode())
        self.rig.posix.release(handle)

    def get(self, path: str) -> str:
        return self.world.content(ROOT, self.world.resolve(ROOT, path, self.world.root)).decode()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a program to its end: its status and what it said."""
        free = self.rig.pool.free_frames
        self.world.console.clear()
        id = boot(self.rig.machine, self.world, *arguments)
        assert self.rig.machine.run()
        (status,) = [end.status for end in self.rig.machine.ended if end.id == id]
        assert self.rig.pool.free_frames - free <= 128  # the file system's cache may grow
        assert not self.world.processes
        return status, b"".join(self.world.console).decode()

    def sh(self, commands: str) -> tuple[int, str]:
        return self.run("sh", "-c", commands)

    def main(self, program: Callable[[Process, tuple[str, ...]], Program]) -> tuple[int, str]:
        """Run a function as a program."""
        self.world._compiled[b"test"] = program
        self.put("test", "test")
        return self.run("/test")


SCRIPT = """\
# a script, as somebody would write it
mkdir work
cd work
seq 100 > numbers
cat numbers | grep 7 | sort -n | head -3
WHAT='total of them:'
echo "$WHAT" > result ; cat numbers | grep 7 | sum >> result
cat result
grep 1000 < numbers || echo nothing found, status $?
false && echo never
true && echo always
sleep 1000000 & echo started
wait
ls
cp result copy ; mv copy moved ; rm numbers ; ls .
wc < moved
exit 7
"""


@pytest.mark.parametrize("processors", [1, 2])
def test_unix_runs_a_script(processors: int) -> None:
    unix = Unix(processors)
    unix.put("script", SCRIPT)
    status, output = unix.run("sh", "script")
    with_seven = [n for n in range(1, 101) if "7" in str(n)]
    assert output.splitlines() == [
        *map(str, with_seven[:3]),
        "total of them:",
        str(sum(with_seven)),
        "nothing found, status 1",
        "always",
        "started",
        "numbers",
        "result",
        "moved",
        "result",
        f"2 4 {len('total of them:') + 2 + len(str(sum(with_seven)))}",
    ]
    assert status == 7
    assert unix.get("/work/moved").startswith("total of them:")


def test_unix_pipes_wait_in_both_directions() -> None:
    """More than a pipe holds, to a reader that stops early: the writer ends by itself."""
    unix = Unix()
    assert unix.sh("seq 5000 | cat | cat | wc") == (0, f"5000 5000 {len(numbers(5000))}\n")
    assert unix.sh("seq 100000 | head -2") == (0, "1\n2\nseq: Broken pipe\n")


def numbers(last: int) -> str:
    return "".join(f"{n}\n" for n in range(1, last + 1))


def test_unix_errors_are_one_line() -> None:
    unix = Unix()
    assert unix.sh("nothing") == (1, "child: No such file or directory\n")
    assert unix.sh("cat nothing") == (1, "cat: No such file or directory\n")
    unix.put("text", "no program")
    assert unix.sh("/text") == (1, "child: Exec format error\n")
    assert unix.sh("kill 4711") == (1, "kill: No such process\n")


def test_unix_fork_shares_offsets() -> None:
    """POSIX: parent and child move one offset."""

    def child(process: Process, number: int) -> Program:
        yield from process.write(number, b"child ")

    def main(process: Process, arguments: tuple[str, ...]) -> Program:
        number = yield from process.open("/out", os.O_RDWR | os.O_CREAT)
        yield from process.write(number, b"parent ")
        pid = yield from process.fork(child, number)
        yield from process.wait(pid)
        yield from process.write(number, b"parent")

    unix = Unix()
    assert unix.main(main)[0] == 0
    assert unix.get("/out") == "parent child parent"


def test_unix_fork_copies_memory_on_write() -> None:
    def child(process: Process, address: int) -> Program:
        before = yield (calls.LOAD, address)
        yield (calls.STORE, address, 2)
        after = yield (calls.LOAD, address)
        return before * 10 + after

    def main(process: Process, arguments: tuple[str, ...]) -> Program:
        for page in range(16):
            yield (calls.STORE, page << 12, 1)
        pid = yield from process.fork(child, 3 << 12)
        _, status = yield from process.wait(pid)
        value = yield (calls.LOAD, 3 << 12)
        yield from process.write(1, f"{status} {value} {process.space.copies}\n".encode())

    assert Unix().main(main) == (0, "12 1 0\n")


def test_unix_signals() -> None:
    """A handler runs and the program goes on; without one it ends; KILL asks nobody."""

    def on_term(process: Process, number: int) -> Program:
        yield from process.write(1, b"caught ")

    def stubborn(process: Process) -> Program:
        process.signal(SIGTERM, on_term)
        yield from process.sleep(20_000_000)
        return 5

    def plain(process: Process) -> Program:
        yield from process.sleep(10**10)

    def main(process: Process, arguments: tuple[str, ...]) -> Program:
        first = yield from process.fork(stubborn)
        second = yield from process.fork(plain)
        third = yield from process.fork(plain)
        yield from process.sleep(1_000_000)
        for pid, number in ((first, SIGTERM), (second, SIGTERM), (third, SIGKILL)):
            yield from process.kill(pid, number)
        for pid in (first, second, third):
            _, status = yield from process.wait(pid)
            yield from process.write(1, b"%d " % status)
        with pytest.raises(FsError):
            yield from process.kill(first, SIGTERM)
        with pytest.raises(FsError):
            yield from process.wait()

    assert Unix().main(main) == (0, f"caught 5 {128 + SIGTERM} {128 + SIGKILL} ")


def test_unix_strangers_can_not_signal() -> None:
    """Another environment of the machine sends; the process does not listen."""
    unix = Unix()

    def stranger(me: object) -> Program:
        yield (calls.SLEEP, 1_000_000)
        for id in list(unix.world.processes):
            yield (calls.SEND, id, SIGTERM, 0, 0)

    unix.rig.machine.boot(stranger)
    assert unix.sh("sleep 5000000 && echo alive") == (0, "alive\n")


def test_unix_wait_takes_more_children_than_a_predicate_watches() -> None:
    def child(process: Process, i: int) -> Program:
        yield from process.sleep(100_000 * (20 - i))
        return i

    def main(process: Process, arguments: tuple[str, ...]) -> Program:
        for i in range(12):
            yield from process.fork(child, i)
        order = []
        for _ in range(12):
            _, status = yield from process.wait()
            order.append(status)
        yield from process.write(1, repr(sorted(order) == list(range(12))).encode())

    assert Unix().main(main) == (0, "True")
