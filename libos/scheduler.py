"""A scheduler as an application: an environment that owns positions and gives its slices away.

    def program(me):
        scheduler = Scheduler(me, Stride())
        yield from scheduler.start()
        scheduler.join(child, 3)
        yield from scheduler.run()

Clients opt in: whoever spawns them joins them (`join`), or they ask themselves, by a call with the
registers (JOIN, first, second). Their own positions, if they have any, stay theirs. The kernel
knows nothing of it: a scheduler gives each of its slices away by directed yield and reads in the
exposed table how much of it was used; a client that could go on is charged all that it was given,
whoever it gave it to. While no client can run the scheduler waits for a predicate over their
exposed states.

Schedulers nest: a client may be a scheduler, and gives away what it is given.
"""

from __future__ import annotations

from typing import Any, Final

from libos.sharing import Sharing
from xnfs import READ, WRITE, Boot, Program, XnError, calls

#: Operations of the call interface.
JOIN: Final = 1
LEAVE: Final = 2
#: Clients of one scheduler: as many as its predicate looks at.
MAX_CLIENTS: Final = 48

#: Cycles until a scheduler that has found nobody looks again, where it can't be woken.
_PAUSE: Final = 50_000
#: The page where the scheduler keeps the list for its predicate; far from what a program uses.
_PAGE: Final = (1 << 36) - 2

#: True if one of the environments listed in `a` (offsets of their words, 0 ends) is ready.
_SOMEBODY: Final = """\
def ready(kernel, a, b, c, d, args):
    for i in range(48):
        at = u64(a, 8 * i)
        if at == 0 or at > len(kernel) - 8:
            return 0
        if u64(kernel, at) % 256 == 1:
            return 1
    return 0
"""


class Scheduler:
    """Shares the slices of one environment among clients."""

    def __init__(self, me: Boot, sharing: Sharing) -> None:
        self.me = me
        self.sharing = sharing
        self.clients: dict[int, None] = {}  # in order of joining
        self.given: dict[int, int] = {}  # cycles that were used out of our slices
        self._changed = True
        self._predicate = 0
        self._now = 0
        self._end = 0  # of our slice

    def start(self) -> Program:
        """Take a frame for the list of clients, and answer calls from now on."""
        me = self.me
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.PIN, _PAGE, frame, READ | WRITE, me.token)
        self._predicate = yield (calls.PREDICATE, _SOMEBODY, (frame,), me.token)
        yield (calls.HANDLER, calls.CALLED, self._called)
        yield (calls.HANDLER, calls.PROLOGUE, self._begun)
        self._now = yield (calls.CLOCK,)

    def join(self, id: int, first: int = 1, second: int = 0) -> bool:
        """Schedule a client from now on, if the policy takes it."""
        if id in self.clients or len(self.clients) >= MAX_CLIENTS:
            return False
        if not self.sharing.join(id, first, second, self._now):
            return False
        self.clients[id] = None
        self.given.setdefault(id, 0)
        self._changed = True
        return True

    def leave(self, id: int) -> bool:
        """Schedule it no longer."""
        if id not in self.clients:
            return False
        del self.clients[id]
        self.sharing.leave(id)
        self._changed = True
        return True

    def _begun(self, end: int) -> Program:
        """A slice begins."""
        self._end = end
        yield 1

    def _called(self, caller: int, what: int, first: int, second: int) -> Program:
        """The call interface: only for oneself, since the caller's number can't be forged."""
        yield 10
        if what == JOIN:
            return int(self.join(caller, first, second)), 0, 0
        return int(what == LEAVE and self.leave(caller)), 0, 0

    def run(self, until: int = 1 << 62) -> Program:
        """Give slices away until the time, or until no client is left."""
        while self.clients:
            self._now = yield (calls.CLOCK,)
            if self._now >= until:
                return
            ready, maybe = self._look()
            id = self.sharing.pick(ready + maybe, self._now)
            if id:
                yield from self._give(id)
            elif not self.clients:
                return
            else:
                yield from self._idle(bool(ready or maybe))

    def _look(self) -> tuple[list[int], list[int]]:
        """Clients that are ready, and those that may turn out to be; who has ended is forgotten."""
        ready, maybe = [], []
        for id in list(self.clients):
            state = self.me.tables.state(id)
            if state == calls.READY:
                ready.append(id)
            elif state in (calls.WAITING, calls.CALLING):
                maybe.append(id)
            elif state != calls.ASLEEP:
                self.leave(id)
        return ready, maybe

    def _give(self, id: int) -> Program:
        """One slice, or what is left of it."""
        tables = self.me.tables
        before = tables.cycles(id)
        given = self._end - self._now
        try:
            yield (calls.YIELD, id)
        except XnError:  # it can't run after all
            used = 0
        else:
            used = tables.cycles(id) - before
            if tables.state(id) == calls.READY:
                used = max(used, given)
        self._now = yield (calls.CLOCK,)
        if id in self.clients:
            preempted = used > 0 and tables.state(id) == calls.READY
            self.given[id] += used
            self.sharing.ran(id, used, preempted, self._now)
        if not used and not self._look()[0]:
            yield from self._idle(True)

    def _idle(self, soon: bool) -> Program:
        """Nobody to run: until a client is ready, or, where a policy or a client's own predicate
        may change its mind meanwhile, for a slice.
        """
        if self._changed:
            self._changed = False
            table = self.me.tables
            for i, id in enumerate([*self.clients, -1]):
                word = table.environments + 3 * (id % table.max_environments) if id >= 0 else 0
                if i < MAX_CLIENTS:
                    yield (calls.STORE, (_PAGE << 12) + 8 * i, 8 * word)
        if soon:
            yield (calls.SLEEP, self._now + _PAUSE)
        else:
            yield (calls.WAIT, self._predicate, (), 0)


def ask(me: Boot, scheduler: int, what: int, first: int = 1, second: int = 0) -> Program:
    """A client's side: JOIN or LEAVE. True if the scheduler agrees."""
    while True:
        try:
            answer: Any = yield (calls.CALL, scheduler, what, first, second)
        except XnError as error:
            if me.tables.state(scheduler) not in (calls.NONE, calls.ENDED):
                yield (calls.YIELD, 0)  # it has another call to end
                continue
            raise error
        return answer[0] == 1
