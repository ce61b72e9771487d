"""The machine runs: environments, slices, exceptions, memory, capabilities, all in one story."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time

from libos.space import Space
from xnfs import GRANT, READ, Boot, CapabilityError, Costs, Machine, Program, Wall, calls


def summing(me: Boot) -> Program:
    """Stores and loads over more pages than a TLB has."""
    yield from Space(me).start()
    for i in range(200):
        yield (calls.STORE, i << 12, i)
    total = 0
    for i in range(200):
        total += yield (calls.LOAD, i << 12)
    return total


def test_machine_memory_appears_when_touched() -> None:
    machine = Machine(frames=256)
    id = machine.boot(summing)
    assert machine.run()
    assert machine.ended[0][:3] == (id, "", 19900)
    assert machine.cycles(id) == machine.ended[0].cycles > 200
    assert machine.tables.status(id) == 19900
    counts = machine.counters()
    assert counts["exceptions"] == counts["resumed"] == counts["bind"] == 200
    assert counts["stlb_hits"] >= 136  # the second round misses in the TLB, not in the STLB
    assert machine.frames.free_frames == 256


def test_machine_runs_are_equal() -> None:
    def run() -> tuple[int, dict[str, int]]:
        machine = Machine(processors=2, frames=512, seed=5)
        for _ in range(3):
            machine.boot(summing, slots=2)
        machine.run()
        return machine.now, machine.counters()

    assert run() == run()


def test_machine_time_is_shared_by_slices() -> None:
    def spin(me: Boot) -> Program:
        for _ in itertools.repeat(None):
            yield 1000

    machine = Machine()
    one, two = machine.boot(spin, slots=1), machine.boot(spin, slots=3)
    machine.run(until=400 * machine.costs.quantum)
    share = machine.cycles(two) / machine.cycles(one)
    assert 2.95 < share < 3.05


def test_machine_idle_time_is_skipped() -> None:
    def sleeper(me: Boot) -> Program:
        now = yield (calls.CLOCK,)
        yield (calls.SLEEP, now + 60 * 12_500_000)
        return (yield (calls.CLOCK,)) - now

    machine = Machine()
    machine.boot(sleeper)
    machine.run()
    assert 60 * 12_500_000 <= machine.ended[0][2] < 60 * 12_500_000 + 1000
    assert machine.events == 1


def test_machine_runs_are_equal_whatever_bytes_hash_to() -> None:
    """In another process, where Python hashes capabilities differently."""
    story = (
        "from tests.machine.hostile import *\n"
        "scripts = [random_script(i, Hostile(Machine(frames=1)).numbers, 60) for i in range(3)]\n"
        "machine = attack(scripts, 2)\n"
        "print(machine.now, machine.counters(), list(machine.ended))"
    )
    said = set()
    for seed in "12":
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", story], env=env, capture_output=True, check=True
        )
        said.add(run.stdout)
    assert len(said) == 1


def test_machine_processors_run_at_once_and_nobody_runs_twice() -> None:
    def work(me: Boot) -> Program:
        for _ in range(100):
            yield 50_000

    def run(processors: int, programs: int) -> int:
        machine = Machine(processors=processors, trace=10_000)
        for _ in range(programs):
            id = machine.boot(work, slots=2)
            env = machine.environment(id)
            for other in range(1, processors):
                machine.slices.slot_alloc(machine.processors[0], env, id, other, -1, env.token)
        machine.run()
        stays = [
            (r.detail, r.time, r.environment) for r in machine.trace.records if r.what == "run"
        ]
        for began, ended, id in stays:
            for later, _, other in stays:
                assert not (id == other and began < later < ended), "in two places at once"
        return machine.now

    alone = run(1, 1)
    assert 0.9 < run(2, 1) / alone < 1.1
    assert 0.9 < run(2, 2) / alone < 1.2
    assert 1.8 < run(1, 2) / alone < 2.2
    assert 0.9 < run(4, 4) / alone < 1.3


def test_machine_child_shares_a_frame_until_revoked() -> None:
    seen: list[object] = []

    def child(me: Boot) -> Program:
        (frame,) = me.args
        tokens: tuple[bytes, ...] = ()
        while not tokens:
            tokens = yield (calls.ACCEPT,)
            yield (calls.YIELD, 0)
        yield (calls.BIND, 5, frame, READ, tokens[0])
        seen.append((yield (calls.LOAD, 5 << 12)))
        try:
            yield (calls.BIND, 6, frame, 3, tokens[0])
        except CapabilityError:
            seen.append("read only")
        yield (calls.SLEEP, 0)
        yield (calls.LOAD, 5 << 12)  # the binding is broken: an exception, and no handler

    def parent(me: Boot) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.BIND, 0, frame, 3, me.token)
        yield (calls.STORE, 0, 77)
        id = yield (calls.SPAWN, child, (frame,), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
        yield (calls.SLOT_ALLOC, id, 0, calls.ANY, me.token)
        token = yield (calls.NARROW, me.token, (f"f{frame}",), READ | GRANT)
        yield (calls.GRANT, token, id)
        while me.tables.state(id) != calls.ASLEEP:
            yield (calls.YIELD, 0)
        yield (calls.REVOKE, token)
        yield (calls.WAKE, id, me.token)
        while me.tables.state(id) != calls.ENDED:
            yield (calls.YIELD, 0)
        seen.append((yield (calls.LOAD, 0)))

    machine = Machine()
    machine.boot(parent)
    machine.run()
    assert seen == [77, "read only", 77]
    assert [ending.why for ending in machine.ended] == ["exception 1 at 0x5000 and no handler", ""]


def test_machine_meets_the_outside_in_real_time() -> None:
    wall = Wall()
    machine = Machine(wall=wall)

    def waiter(me: Boot) -> Program:
        yield (calls.SLEEP, 0)
        return 5

    id = machine.boot(waiter)

    def wake() -> None:
        wall.post(lambda time, _: machine.slices.wake(machine.environment(id), time))
        wall.stop()

    timer = threading.Timer(0.02, wake)
    timer.start()
    machine.run()
    timer.join()
    assert machine.ended[0][:3] == (id, "", 5)
    assert machine.now >= 0.02 * Costs().hz


def test_machine_real_time_passes_while_it_sleeps() -> None:
    def sleeper(me: Boot) -> Program:
        for _ in range(3):
            now = yield (calls.CLOCK,)
            yield (calls.SLEEP, now + 125_000)  # 10 ms

    wall = Wall()
    machine = Machine(wall=wall)
    wall.stop()
    machine.boot(sleeper)
    began = time.monotonic()
    machine.run()
    assert 0.03 <= time.monotonic() - began < 20
