"""The enumeration: counted, named, sliced; and every one-operation workload, on every change."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from xnfs_trials.crash import ace, soak
from xnfs_trials.crash.choices import Plan
from xnfs_trials.crash.explore import Stats, explore
from xnfs_trials.crash.memo import Memo
from xnfs_trials.crash.ops import KINDS, SYNCS, Op, name_of, parse, parse_name
from xnfs_trials.crash.prepare import prepare
from xnfs_trials.crash.trial import PosixTrial

BUDGET = Plan(exhaustive=2, near=1, samples=1, torn=1, depth=1, states=8)


def test_ace_counts() -> None:
    assert len(ace.operations()) == 302
    assert ace.one().count == 1028
    assert ace.two().count == 462_600
    assert len({name for name, _ in ace.one()}) == 1028


def test_ace_names_are_the_operations() -> None:
    two = ace.two()
    for index in range(0, two.count, 9973):
        name, ops = two[index]
        assert ace.workload(name) == ops
        assert ops[-1].kind in SYNCS


def test_ace_slices_are_the_whole() -> None:
    two = ace.two()
    parts = [two.slice(i, 7) for i in range(7)]
    assert sum(part.count for part in parts) == two.count
    assert [two[i] for i in range(70)] == [parts[i % 7][i // 7] for i in range(70)]
    assert two.slice(3, 7).slice(1, 5)[2] == two[3 + 7 * (1 + 5 * 2)]
    assert list(islice(two.slice(0, 7), 2)) == [two[0], two[7]]
    with pytest.raises(ValueError, match="slice 7 of 7"):
        two.slice(7, 7)
    with pytest.raises(IndexError):
        two[two.count]


def test_ace_mirror_images_are_left_out() -> None:
    firsts = {name_of(step) for step in ace.first_steps()}
    assert {"create bar", "create A/bar"} <= firsts
    assert not {"create foo", "create A/foo", "create B/bar"} & firsts


def test_ace_three_is_drawn_by_the_seed() -> None:
    drawn = [ace.three(random.Random(seed)) for seed in range(200)]
    assert drawn == [ace.three(random.Random(seed)) for seed in range(200)]
    kinds = [op.kind for ops in drawn for op in ops if op.kind not in SYNCS]
    moved = sum(kinds.count(kind) for kind in ("rename", "replace", "link", "unlink"))
    assert len(kinds) == 600
    assert moved > 300


@pytest.mark.parametrize("text", ["fly foo", "create", "rename foo", "write foo 0", "sync foo"])
def test_ops_bad_text(text: str) -> None:
    with pytest.raises(ValueError, match=text.split()[0]):
        parse(text)


def test_ops_text_is_read_back() -> None:
    rng = random.Random(1)
    for kind in KINDS:
        for _ in range(20):
            op = soak.one(rng, kind, ("", "A/"), ("foo", "bar"))
            assert parse(str(op)) == op
    assert parse("rename /foo A/bar/") == Op("rename", "foo", "A/bar")
    assert parse("fsync /") == Op("fsync", "/")
    assert parse("allocate foo 0 4096 keep") == Op("allocate", "foo", at=0, size=4096, keep=True)


def test_prepare_sets_up_what_is_needed() -> None:
    setting, ops = prepare(parse_name("replace A/foo bar; unlink bar; unlink bar; rmdir A"))
    assert name_of(setting) == "mkdir A; create A/foo; create bar"
    assert name_of(ops) == "replace A/foo bar; unlink bar; create bar; unlink bar; rmdir A"
    setting, ops = prepare(parse_name("removexattr / 1; chmod / 7; fsync /"))
    assert name_of(setting) == "setxattr / 1 64"


@pytest.mark.parametrize("text", ["rename A A/B", "link foo foo", "exchange A/foo A", "unlink /"])
def test_prepare_what_can_not_fit(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        prepare([parse(text)])


def test_prepare_leaves_nothing_to_skip() -> None:
    """Whatever is enumerated runs as it stands."""
    two = ace.two()
    for index in range(0, two.count, 4799):
        trial = PosixTrial("ffs", two[index][1])
        assert not trial.trouble
        assert not [line for line in trial.describe() if "(" in line], two[index][0]


def test_ace_every_one_operation_workload() -> None:
    memo, total = Memo(), Stats()
    for number, (name, ops) in enumerate(ace.one()):
        trial = PosixTrial("ffs", ops)
        total.add(explore(trial, number, plan=BUDGET, mount_every=10, memo=memo, workload=name))
        assert not total.failures, total.failures[0]
    print(total)
    assert total.checked > 1000
    assert total.mounted > total.checked // 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ace_two_operations_sampled() -> None:
    memo, total = Memo(), Stats()
    plan = Plan(exhaustive=4, near=1, samples=4, torn=2, depth=1)
    for name, ops in ace.two().slice(5, 499):
        trial = PosixTrial("ffs", ops)
        total.add(explore(trial, 1, plan=plan, mount_every=8, memo=memo, workload=name))
        assert not total.failures, total.failures[0]
    print(total)
