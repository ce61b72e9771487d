"""Protected control transfer: calls from one environment into another (Engler et al. 1995, 5.1.3).

    r0, r1, r2 = yield (calls.CALL, server, 1, 2, 3)

enters the other at the place that it has named for calls (`HANDLER`, CALLED), with the caller's
number, which can't be forged, and three registers. The kernel copies nothing else and keeps
nothing: longer messages lie in frames that both hold.

`CALL` is synchronous: the rest of the slice, and every slice of the caller's until the handler
returns, are the callee's, so a server needs no time of its own. `SEND` is asynchronous: the other
is entered for SENT when it runs next, and gets the rest of this slice if it can run now.

An environment carries out one call at a time, and none while it waits for its own to return, so
calls can't go in circles; who comes too early is told, and decides what to do. If the callee ends,
so does the call, with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import ASLEEP, CALL, CALLED, CALLING, READY, SEND, SENT, WAITING
from xnfs.cpu.processor import Processor
from xnfs.errors import InUse, NoSuchEnvironment, Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine

_WORD: Final = 1 << 64


class Transfers:
    """The part of the kernel that carries calls over."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.calls = 0
        self.sends = 0

    # --- operations -------------------------------------------------------------------------

    @operation(CALL, "transfer")
    def call(
        self, cpu: Processor, env: Environment, id: int, r0: int, r1: int, r2: int
    ) -> tuple[int, int, int]:
        """Enter another, and get the three registers that its handler returns.

        Raises NoSuchEnvironment: there is none, or it ended during the call; Refused: it takes no
        calls, or returned something else; InUse: it runs elsewhere or has a call to end.
        """
        callee = self._target(env, id, CALLED, r0, r1, r2)
        if callee.caller is not None or callee.state == CALLING or callee.cpu is not None:
            raise InUse(f"environment {id} can't take a call now")
        machine = self._machine
        doze = callee.alarm if callee.state == ASLEEP else None
        if callee.state in (ASLEEP, WAITING):
            machine.slices.rise(callee, cpu.now)
            if doze is not None:
                callee.doze = doze
        env.callee, callee.caller = callee, env
        self.calls += 1
        machine.slices.suspend(env, CALLING)
        machine.turns.hand_over(cpu, callee)
        assert callee.handlers is not None
        machine.exceptions.enter(cpu, callee, CALLED, callee.handlers[CALLED], (env.id, r0, r1, r2))
        cpu.until = 0
        if env.error is not None:  # the handler did not even begin
            failure, env.error = env.error, None
            raise failure
        return 0, 0, 0  # not seen: what the handler returns takes its place

    @operation(SEND, "transfer")
    def send(self, cpu: Processor, env: Environment, id: int, r0: int, r1: int, r2: int) -> None:
        """Have another entered when it runs next, which is now if it can.

        Raises NoSuchEnvironment; Refused: it takes no messages; InUse: too many are waiting.
        """
        other = self._target(env, id, SENT, r0, r1, r2)
        machine = self._machine
        if not machine.exceptions.post(other, SENT, env.id, r0, r1, r2):
            raise InUse(f"environment {id} has too many messages waiting")
        self.sends += 1
        if other.state == READY and other.cpu is None:
            machine.turns.hand_over(cpu, other)
            cpu.until = 0

    def _target(
        self, env: Environment, id: int, kind: int, r0: int, r1: int, r2: int
    ) -> Environment:
        if not (0 <= r0 < _WORD and 0 <= r1 < _WORD and 0 <= r2 < _WORD):
            raise Refused("a register has 64 bits")
        other = self._machine.environment(id)
        if other is env or other.handlers is None or kind not in other.handlers:
            raise Refused(f"environment {id} can't be entered that way")
        return other

    # --- back -------------------------------------------------------------------------------

    def finished(self, cpu: Processor, env: Environment, result: Any) -> None:
        """The handler of a call has returned: its caller goes on, here and now."""
        caller = env.caller
        assert caller is not None
        env.caller = caller.callee = None
        self._machine.slices.resume(caller, cpu.now)
        cpu.now += self._machine.costs.transfer
        if result is None:
            caller.value = (0, 0, 0)
        elif _registers(result):
            caller.value = result
        else:
            caller.value, caller.error = None, Refused("the call returned no three registers")
        self._machine.turns.hand_over(cpu, caller)
        cpu.until = 0

    def drop(self, env: Environment) -> None:
        """An environment ends: who has called it is told; whom it has called goes on alone."""
        caller = env.caller
        if caller is not None:
            env.caller = caller.callee = None
            caller.value, caller.error = None, NoSuchEnvironment(f"{env.id} ended during the call")
            self._machine.slices.resume(caller, self._machine.time)
        callee = env.callee
        if callee is not None:
            callee.caller = env.callee = None


def _registers(result: Any) -> bool:
    return (
        type(result) is tuple
        and len(result) == 3
        and all(type(n) is int and 0 <= n < _WORD for n in result)
    )
