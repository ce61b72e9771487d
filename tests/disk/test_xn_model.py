"""The system calls against the model: random calls, compared after each one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.disk.xn_actor import Actor
from tests.disk.xn_kit import DATA, HIDDEN, NODE, Kit, image
from xnfs import BLOCK


def live(seed: int, steps: int, *, frames: int = 256, log_blocks: int = 16) -> Actor:
    """A life without failures, every step checked, and then the same tree after a remount."""
    kit = Kit(image(96 + seed % 2 * 32, log_blocks=log_blocks), frames=frames)
    actor = Actor(kit, seed)
    for _ in range(steps):
        actor.step()
        actor.check()
    remount(actor)
    return actor


def remount(actor: Actor) -> None:
    """Close, open, and find the model's tree and not one leak."""
    kit, model = actor.kit, actor.model
    held = bool(model.held)
    kit.xn.close()
    assert kit.frames_used() == 0
    kit = Kit(kit.device)
    assert held or not kit.xn.leaky
    kit.load(kit.root)
    seen = {kit.root}
    for block in sorted(model.below(kit.root)):
        assert kit.slots(block) == model.nodes[block].slots
        for kind, start, count in model.nodes[block].slots.values():
            seen.update(range(start, start + count))
            for data in range(start, start + count if kind == DATA else start):
                text = model.texts[data, model.born[data]][-1]
                assert kit.xn.read(kit.me, data, 0, BLOCK) == text
    while not (status := kit.xn.collect(kit.admin, 10)).done:
        pass
    assert held or status.freed == 0
    lo, hi = kit.xn.data_area
    assert kit.xn.free_blocks() == hi - lo - len(seen)
    assert {DATA, NODE, HIDDEN}


@pytest.mark.parametrize("seed", range(40))
def test_model_agrees(seed: int) -> None:
    live(seed, 70, log_blocks=(16, 8, 6, 4)[seed % 4])


@pytest.mark.parametrize("seed", range(40, 60))
def test_model_agrees_with_few_frames(seed: int) -> None:
    live(seed, 70, frames=14, log_blocks=(16, 8, 6, 4)[seed % 4])


@given(st.integers(1000, 10**9), st.integers(10, 60), st.sampled_from([12, 20, 256]))
@settings(suppress_health_check=list(HealthCheck))
def test_model_agrees_for_any_seed(seed: int, steps: int, frames: int) -> None:
    live(seed, steps, frames=frames, log_blocks=4 + seed % 7 * 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_model_agrees_long(seed: int) -> None:
    live(seed, 3000, frames=(256, 20)[seed % 2], log_blocks=(16, 8, 6, 4)[seed % 4])


def test_model_the_workload_does_everything() -> None:
    """Calls that are refused or do nothing would test nothing."""
    done: set[str] = set()
    refused = 0
    for seed in range(30):
        actor = live(seed, 60)
        refused += actor.refused
        for before, after in zip(actor.states, actor.states[1:], strict=False):
            done |= {"born"} if after.nodes.keys() - before.nodes.keys() else set()
            done |= {"dead"} if before.nodes.keys() - after.nodes.keys() else set()
            done |= {"data"} if after.born.keys() - before.born.keys() else set()
        owners = actor.model.owners()
        done |= {"shared"} if max(owners.values()) > 1 else set()
        done |= {"held"} if any(not owners[b] for b in actor.model.held) else set()
    assert done == {"born", "dead", "data", "shared", "held"}
    assert refused > 10
