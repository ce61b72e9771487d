"""What is always true of the machine: every frame and every position has one state and one owner,
and every binding stands on a capability that is alive. Asked after every step of hostile programs.
"""

from __future__ import annotations

from collections import Counter

from xnfs import READ, WRITE, Machine, calls
from xnfs.cpu.environment import Environment
from xnfs.memory.tlb import DIRTY, PAGE_BITS, TAGS, WRITABLE
from xnfs.memory.translations import ENTRIES


class Violation(Exception):
    """Something that must never be true is."""


def must(holds: bool, what: str) -> None:
    """Raise Violation unless it holds."""
    if not holds:
        raise Violation(what)


def living(machine: Machine) -> list[Environment]:
    """All environments."""
    return [env for env in machine._environments if env is not None]


def check(machine: Machine, quotas: tuple[int, int, int] | None = None, minted: int = 0) -> None:
    """Raise Violation if the machine's tables contradict each other. `quotas`: what all quotas
    together must be. `minted`: capabilities that the host has made.
    """
    _frames(machine)
    _positions(machine)
    _holders(machine)
    _capabilities(machine, minted)
    check_instructions(machine)
    if quotas is not None:
        _quotas(machine, quotas)


def check_instructions(machine: Machine) -> None:
    """The part that can change without the kernel being called."""
    _translations(machine)
    _running(machine)


def _frames(machine: Machine) -> None:
    owned: Counter[int] = Counter()
    for frame in range(machine.frames.count):
        owner = machine.frames.owner(frame)
        word = machine.tables.words[machine.tables.frames + frame]
        resource = machine.memory.bindings.resources[frame]
        if type(owner) is int:
            env = machine.living(owner)
            must(env is not None, f"frame {frame} belongs to {owner}, which has ended")
            assert env is not None
            must(resource == (*env.resource, f"f{frame}"), f"frame {frame} is called {resource}")
            must(frame in machine.memory._owned[owner], f"frame {frame} is not in its owner's list")
            must(word == owner, f"frame {frame} of {owner} is shown as {word}'s")
            owned[owner] += 1
        else:
            must(resource is None, f"frame {frame} of {owner} is called {resource}")
            must(word == 0, f"free frame {frame} is shown as {word}'s")
            must(not machine.memory.bindings._holders[frame], f"free frame {frame} is held")
            must(not machine.translations._to[frame], f"free frame {frame} is translated to")
    for id, frames in machine.memory._owned.items():
        must(len(frames) == owned[id], f"{id} has {owned[id]} frames and lists {len(frames)}")


def _positions(machine: Machine) -> None:
    slots = machine.tables.slots
    for cpu in machine.processors:
        for position, owner in enumerate(cpu.vector):
            bit = 1 << cpu.id * slots + position
            shown = machine.tables.slot_owner(cpu.id, position)
            must(shown == (owner.id if owner else 0), f"position {position} is shown as {shown}'s")
            for env in living(machine):
                must(bool(env.positions & bit) == (env is owner), f"position {position}: {env.id}")
            must(owner is None or machine.living(owner.id) is owner, "a position of the dead")
            state = calls.ASLEEP if owner is None else owner.state
            ready = bool(machine.slices.ready & bit)
            if state in (
                calls.READY,
                calls.ASLEEP,
            ):  # other states wait for something at their turn
                must(ready == (state == calls.READY), f"position {position} ready: {ready}")


def _holders(machine: Machine) -> None:
    bindings = machine.memory.bindings
    for frame in range(machine.frames.count):
        holders = bindings._holders[frame] or {}
        for id, (rights, token) in holders.items():
            must(machine.living(id) is not None, f"frame {frame} is held by the dead {id}")
            must(machine.capabilities.alive(token), f"frame {frame}: {id}'s token is revoked")
            resource = bindings.resources[frame]
            have = 0 if resource is None else machine.capabilities.rights_for(token, resource)
            must(rights & ~have == 0, f"frame {frame}: {id} has {rights} and a token for {have}")
            must(frame in bindings._held[id], f"frame {frame}: {id} does not know")
            must((frame, id) in bindings._under[token], f"frame {frame}: token does not know")
        limits = bindings._limits.get(frame)
        if limits is not None:
            writers = sum(1 for rights, _ in holders.values() if rights & WRITE)
            must(writers <= limits[1], f"frame {frame} has {writers} writers of {limits[1]}")
            readers = len(holders) - writers
            must(readers <= limits[0], f"frame {frame} has {readers} readers of {limits[0]}")
    for env in living(machine):
        if env.area is not None:
            held = bindings.holds(env.id, env.area[0])
            must(held == READ | WRITE, f"{env.id}'s save area is held with {held}")
        pinned = env.pinned or {}
        must(len(pinned) <= 8, f"{env.id} has {len(pinned)} pinned")
        for entry in pinned.values():
            held = bindings.holds(env.id, entry >> 2)
            must(bool(held & (WRITE if entry & WRITABLE else READ)), f"{env.id}: pinned, not held")


def _translations(machine: Machine) -> None:
    known = machine.translations
    keys = [(key, frame) for frame, to in enumerate(known._to) for key in to or ()]
    must(ENTRIES - known._keys.count(-1) == len(keys), "keys by place and keys by frame differ")
    for key, frame in keys:
        entry = known.find(key)
        must(entry is not None and entry >> 2 == frame, f"frame {frame} is not where {key:#x} is")
        assert entry is not None
        held = machine.memory.bindings.holds(key >> PAGE_BITS, entry >> 2)
        wanted = READ | WRITE if entry & WRITABLE else READ
        must(wanted & ~held == 0, f"{key >> PAGE_BITS} reaches frame {entry >> 2} with {held}")
        must(not entry & DIRTY or bool(entry & WRITABLE), "dirty, and can't be written")
    for cpu in machine.processors:
        must(len(cpu.tlb.entries) <= 64 and len(cpu.tlb._tags) <= TAGS, "a TLB that is too large")
        for key, entry in cpu.tlb.entries.items():
            kept = known.find(key)
            must(kept is not None and kept | DIRTY == entry | DIRTY, f"TLB only: {key:#x}")


def _capabilities(machine: Machine, minted: int) -> None:
    made = {token for tokens in machine.members._made.values() for token in tokens}
    must(made == set(machine.members._maker), "makers and made differ")
    for env in living(machine):
        must(machine.capabilities.alive(env.token), f"{env.id}'s own capability is gone")
        must(len(machine.members._made.get(env.id, ())) <= 64, f"{env.id} made too many")
        most = 8 * machine.tables.max_environments
        must(len(env.inbox or ()) <= most, f"{env.id} was given too many")
    for token in made:
        must(machine.capabilities.alive(token), "a token that was made is gone, and remembered")
    known = len(living(machine)) + len(made) + minted
    must(len(machine.capabilities._entries) == known, "tokens that nobody made")


def _running(machine: Machine) -> None:
    for cpu in machine.processors:
        must(cpu.env is None or cpu.env.cpu is cpu, "a processor and its environment differ")
    for env in living(machine):
        must(env.cpu is None or env.cpu.env is env, "an environment and its processor differ")
        must(env.cpu is None or env.state == calls.READY, "a sleeper runs")
        must(machine.tables.state(env.id) == env.state, f"{env.id}'s state is shown wrongly")
        must(min(env.frames, env.slots, env.environments) >= 0, f"{env.id} has a negative quota")


def _quotas(machine: Machine, quotas: tuple[int, int, int]) -> None:
    envs = living(machine)
    frames = sum(env.frames + len(machine.memory.owned(env)) for env in envs)
    slots = sum(env.slots + env.positions.bit_count() for env in envs)
    environments = sum(env.environments for env in envs) + len(envs)
    must((frames, slots, environments) == quotas, f"quotas {frames, slots, environments}")
