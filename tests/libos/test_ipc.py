"""Rings in shared memory, and remote procedure calls."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.pipe import SIZE, BrokenPipe, Pipe, make
from libos.rpc import Client, RemoteError, Server, pack, unpack
from xnfs import Boot, Costs, Machine, Program, XnError, calls

Q = Costs().quantum
PAGE = 1 << 20


def child(me: Boot, program: object, *args: object) -> Program:
    """Spawn a program with one position."""
    id = yield (calls.SPAWN, program, args, me.id, me.token)
    yield (calls.GIVE_QUOTA, me.id, id, 4, 1, 0, me.token)
    yield (calls.SLOT_ALLOC, id, calls.ANY, calls.ANY, me.token)
    return id


@pytest.mark.parametrize(("chunk", "processors"), [(1, 1), (1000, 1), (9000, 2), (SIZE, 2)])
def test_pipe_carries_bytes_in_order(chunk: int, processors: int) -> None:
    data = b"".join(i.to_bytes(4, "big") for i in range(500 if chunk == 1 else 9000))
    seen: list[bytes] = []

    def reader(me: Boot) -> Program:
        frame, token = me.args
        pipe = Pipe(me, frame, token, PAGE)
        yield from pipe.attach()
        yield from pipe.count(1, 0)
        while True:
            piece = yield from pipe.read(chunk + 7)
            if not piece:
                return
            seen.append(piece)
            yield 100

    def writer(me: Boot) -> Program:
        frame = yield from make(me, me.id, me.token)
        pipe = Pipe(me, frame, me.token, PAGE)
        yield from pipe.attach()
        yield from pipe.count(1, 1)  # readers are there until the reader has begun
        yield from child(me, reader, frame, me.token)
        for at in range(0, len(data), chunk):
            yield from pipe.write(data[at : at + chunk])
        yield from pipe.count(0, -1)
        yield (calls.SLEEP, 0)

    machine = Machine(processors=processors)
    machine.boot(writer)
    assert machine.run()
    assert b"".join(seen) == data


def test_pipe_without_readers_is_broken() -> None:
    def writer(me: Boot) -> Program:
        frame = yield from make(me, me.id, me.token)
        pipe = Pipe(me, frame, me.token, PAGE)
        yield from pipe.attach()
        try:
            yield from pipe.write(b"x")
        except BrokenPipe:
            return 1

    machine = Machine()
    machine.boot(writer)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 1)


def test_pipe_waiting_reader_takes_no_time() -> None:
    """It looks at its turns, and computes nothing."""

    def reader(me: Boot) -> Program:
        frame = yield from make(me, me.id, me.token)
        pipe = Pipe(me, frame, me.token, PAGE)
        yield from pipe.attach()
        yield from pipe.count(1, 1)
        yield from pipe.read(1)

    def spin(me: Boot) -> Program:
        for _ in itertools.repeat(None):
            yield 1000

    machine = Machine()
    id = machine.boot(reader)
    machine.boot(spin)
    machine.run(until=3 * Q)
    before = machine.cycles(id)
    machine.run(until=200 * Q)
    assert machine.cycles(id) - before < 200 * 50


def adding(me: Boot) -> Program:
    """A server: adds, hashes, fails."""

    def add(caller: int, *numbers: int) -> Program:
        yield len(numbers)
        return (sum(numbers),)

    def digest(caller: int, data: bytes) -> Program:
        yield len(data)
        return hashlib.sha256(data).digest(), caller

    def fail(caller: int) -> Program:
        yield 1
        raise ZeroDivisionError

    yield from Server(me, {1: add, 2: digest, 3: fail}).start()
    yield (calls.SLEEP, 0)


def test_rpc_calls_and_answers() -> None:
    def client(me: Boot) -> Program:
        (server,) = me.args
        far = Client(me, server, PAGE)
        yield from far.connect()
        assert (yield from far.call(1, 2, 3, 4)) == (9,)
        data = b"x" * 3000
        assert (yield from far.call(2, data)) == (hashlib.sha256(data).digest(), me.id)
        for number in (3, 4):
            with pytest.raises(RemoteError):
                yield from far.call(number)
        with pytest.raises(RemoteError):
            yield from far.call(1, b"no number")
        with pytest.raises(ValueError, match="one frame"):
            yield from far.call(2, b"x" * 5000)
        return sum((yield from far.call(1, 20, 22)))

    machine = Machine()
    server = machine.boot(adding)
    machine.run()
    for _ in range(3):
        machine.boot(client, server, slots=2)
    assert machine.run()
    assert [status for _, _, status, *_ in machine.ended] == [42, 42, 42]


def test_rpc_strangers_get_nothing() -> None:
    """Who has not connected, or names a frame that it can't share, is told so."""

    def stranger(me: Boot) -> Program:
        (server,) = me.args
        state, *_ = yield (calls.CALL, server, 1, 8, 0)
        assert state == 1
        state, *_ = yield (calls.CALL, server, 0, 0, 0)
        return state

    machine = Machine()
    server = machine.boot(adding)
    machine.run()
    machine.boot(stranger, server)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 1)


def test_rpc_server_that_ends_is_an_error() -> None:
    def client(me: Boot) -> Program:
        server, token = me.args
        far = Client(me, server, PAGE)
        yield from far.connect()
        yield (calls.END, server, token)
        with pytest.raises(XnError):
            yield from far.call(1, 1)
        return 1

    machine = Machine()
    server = machine.boot(adding)
    machine.run()
    machine.boot(client, server, machine.environment(server).token)
    assert machine.run()
    assert machine.ended[-1][1:3] == ("", 1)


values = st.lists(st.integers(0, 2**64 - 1) | st.binary(max_size=200), max_size=12).map(tuple)


@given(values)
def test_rpc_marshalling_is_exact(some: tuple[int | bytes, ...]) -> None:
    assert unpack(pack(some)) == some


@given(st.binary(max_size=64))
def test_rpc_unmarshalling_takes_anything(raw: bytes) -> None:
    try:
        again = pack(unpack(raw))
    except ValueError:
        return
    assert len(again) == len(raw)
