"""Gang scheduling: the members of a gang run at the same time, each on its own processor.

After Ousterhout 1982 (co-scheduling). One conductor for each processor owns positions there and
gives its slices away; which gang's turn it is each finds out from the clock, so conductors need not
speak to each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from xnfs import Boot, Program, XnError, calls


def conductor(me: Boot) -> Program:
    """`me.args`: the member of each gang that runs on this processor, and the length of a turn."""
    members, turn = me.args
    for _ in itertools.repeat(None):
        now = yield (calls.CLOCK,)
        number = (now + turn // 8) // turn
        try:
            yield (calls.YIELD, members[number % len(members)])
        except XnError:  # nothing to do for it: the others of its gang have the time to themselves
            yield (calls.SLEEP, (number + 1) * turn)


def conduct(me: Boot, gangs: Sequence[Sequence[int]], turn: int) -> Program:
    """Spawn a conductor on each processor that the gangs need. Returns their ids. Raises XnError.

    `gangs[i][p]` is the member of gang i for processor p.
    """
    conductors = []
    for processor in range(len(gangs[0])):
        members = tuple(gang[processor] for gang in gangs)
        id = yield (calls.SPAWN, conductor, (members, turn), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
        yield (calls.SLOT_ALLOC, id, processor, calls.ANY, me.token)
        conductors.append(id)
    return conductors
