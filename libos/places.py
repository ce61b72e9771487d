"""Which positions to ask for: the policy behind `SLOT_ALLOC`, from the exposed table.

The vector is visited in order, so where its positions lie is an application's choice between
throughput and latency: neighbours are one long slice, without a switch in between (a batch job);
positions at equal distances are served at equal intervals (something with deadlines).
"""

from __future__ import annotations

from xnfs import Boot, Exposed, Program, XnError, calls


def run(tables: Exposed, processor: int, count: int) -> list[int]:
    """So many free neighbours; empty if there are none."""
    length = 0
    for position in range(tables.slots):
        length = length + 1 if tables.slot_owner(processor, position) == 0 else 0
        if length == count:
            return list(range(position - count + 1, position + 1))
    return []


def spread(tables: Exposed, processor: int, count: int) -> list[int]:
    """So many free positions, as evenly as can be; empty if fewer are free."""
    free = [p for p in range(tables.slots) if tables.slot_owner(processor, p) == 0]
    if len(free) < count:
        return []
    chosen: list[int] = []
    for i in range(count):
        wanted = i * tables.slots // count
        chosen.append(min(free, key=lambda p: (abs(p - wanted), p)))
        free.remove(chosen[-1])
    return sorted(chosen)


def take(me: Boot, account: int, processor: int, positions: list[int]) -> Program:
    """Allocate all of these or none. Returns True if it has them; somebody may have been faster."""
    taken: list[int] = []
    try:
        for position in positions:
            yield (calls.SLOT_ALLOC, account, processor, position, me.token)
            taken.append(position)
    except XnError:
        for position in taken:
            yield (calls.SLOT_FREE, processor, position, me.token)
        return False
    return bool(positions)
