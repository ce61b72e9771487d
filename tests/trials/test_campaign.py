"""Campaigns: slices are pure and complete, results are kept, a timeline says what happened."""

from __future__ import annotations

from itertools import islice
from math import gcd, inf
from pathlib import Path

import pytest
from xnfs_trials.crash.campaign import Job, Planner, Slice, campaign, run_slice
from xnfs_trials.crash.executors import Serial
from xnfs_trials.crash.explore import Failure, Stats
from xnfs_trials.crash.families import FAMILIES, STRIDE, family
from xnfs_trials.crash.ops import KINDS, parse_name
from xnfs_trials.crash.page import page
from xnfs_trials.crash.results import Done, Results, ResultsError
from xnfs_trials.crash.states import Event, Flush, Write
from xnfs_trials.crash.timeline import (
    DURABLE,
    KEPT,
    LATER,
    LOST,
    TORN,
    Timeline,
    lines,
    plain,
    timeline,
)

JOB = Job("examples.notefs:NoteFs", seed=3, states=12)


# -- families and slices


@pytest.mark.parametrize("name", FAMILIES)
def test_campaign_members_are_the_same_for_ever(name: str) -> None:
    numbered = list(islice(family(name, 5).part(0, 6), 6))
    assert [number for number, _ in numbered] == list(range(6))
    for number, named in numbered:
        assert list(family(name, 5).part(number, 1)) == [(number, named)]
        assert parse_name(named[0]) == named[1]
    if name not in ("one", "two"):
        assert [n for _, n in family(name, 6).part(0, 6)] != [n for _, n in numbered]


@pytest.mark.parametrize("name", ["one", "two"])
def test_campaign_scattered_order_leaves_none_out(name: str) -> None:
    count = family(name, 0).count
    assert count is not None
    assert gcd(count, STRIDE) == 1


def test_campaign_a_slice_is_a_function_of_itself() -> None:
    work = Slice(JOB, "one", 40, 3)
    one, two = run_slice(work), run_slice(work)
    assert one.stats.checked > 0
    assert not one.stats.failures
    for done in (one, two):
        done.stats.seconds = 0.0
    assert one == two


def test_campaign_whatever_is_raised_is_a_failure() -> None:
    work = Slice(Job("tests.trials.test_campaign:Breaks"), "create foo; create bar", 0, 1)
    (failure,) = run_slice(work).stats.failures
    assert failure.workload == "create foo; create bar"
    assert failure.wrong[0].startswith("ZeroDivisionError: ")
    assert "test_campaign.py, line" in failure.wrong[0]


class Breaks:
    """No file system at all."""

    @staticmethod
    def mkfs(xn: object, cap: bytes, name: str) -> None:
        """Fails."""
        raise ZeroDivisionError("on purpose")

    mount = mkfs


# -- planning


def _planned(planner: Planner, seconds: float, most: int = 1000) -> list[tuple[str, int, int]]:
    """Run what it hands out in no time; each workload takes `seconds`."""
    out: list[tuple[str, int, int]] = []
    while len(out) < most and (work := planner.next()) is not None:
        out.append((work.workload, work.first, work.count))
        stats = Stats(seconds=seconds * work.count)
        planner.took(Done(work.workload, work.first, work.count, stats))
    return out


def test_campaign_hands_out_everything_once() -> None:
    results = Results(JOB.name())
    for first, count in ((3, 4), (10, 5)):
        results.add(Done("one", first, count, Stats()))
    planned = _planned(Planner(JOB, ["one"], results), 0.01)
    total = family("one", 0).count
    assert total is not None
    done = [n for _, at, size in planned for n in range(at, at + size)]
    assert sorted(done) == [*range(3), *range(7, 10), *range(15, total)]
    assert max(size for _, _, size in planned) == 50  # half a second each


def test_campaign_slices_of_slow_workloads_stay_small() -> None:
    planned = _planned(Planner(JOB, ["random"], Results(JOB.name())), 2.0, most=5)
    assert [size for _, _, size in planned] == [1] * 5


def test_campaign_what_ends_comes_first() -> None:
    planned = _planned(Planner(JOB, ["create foo", "random"], Results(JOB.name())), 0.1, most=3)
    assert [name for name, _, _ in planned] == ["create foo", "random", "random"]


def test_campaign_stops_at_the_first_failure_and_says_whether_it_is_done() -> None:
    job = Job("examples.notefs_buggy:Hasty")
    losing = "overwrite foo 0 4096; fdatasync foo"
    results = Results(job.name())
    assert not campaign(job, [losing, "random"], Serial(), 1, results, budget=inf)
    assert results.failed() == {losing: 1}
    results = Results(job.name())
    assert campaign(job, ["create foo"], Serial(), 1, results, budget=inf)
    assert not campaign(job, ["random"], Serial(), 1, results, budget=0.0)


# -- results


def test_campaign_results_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results"
    stats = Stats(generated=9, pruned=4, checked=5, seconds=0.25)
    stats.failures.append(_failure([Write(50, b"x" * 4096)], 1, lost=(0,)))
    results = Results(JOB.name(), path)
    results.add(Done("one", 0, 2, stats))
    results.add(Done("one", 2, 3, Stats(generated=1, checked=1, seconds=0.5)))
    results.close()

    results = Results(JOB.name(), path)
    assert results.ranges("one") == [(0, 2), (2, 5)]
    number, total = results.totals()["one"]
    assert (number, total.generated, total.pruned, total.checked) == (5, 10, 4, 6)
    assert total.seconds == 0.75
    assert results.failed() == {"one": 1}
    results.close()


def test_campaign_results_of_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results"
    Results(JOB.name(), path).close()
    with pytest.raises(ResultsError, match="another campaign"):
        Results(Job(JOB.fs, seed=4, states=12).name(), path)
    (tmp_path / "text").write_text("no database at all, but long enough to look at" * 100)
    with pytest.raises(ResultsError, match="text: file is not a database"):
        Results(JOB.name(), tmp_path / "text")


# -- timelines


def _failure(
    events: list[Event],
    cut: int,
    *,
    lost: tuple[int, ...] = (),
    torn: tuple[int, int] | None = None,
    before: Failure | None = None,
) -> Failure:
    return Failure(
        1, "create foo; fsync foo", ["v1 create foo", "v2 fsync foo"], cut, 2, "", ["O3: gone"],
        events, lost, torn, {}, before,
    )  # fmt: skip


def _write(block: int) -> Write:
    return Write(block, bytes([block]) * 4096)


EVENTS: list[Event] = [
    _write(60), Flush(), _write(61), _write(62), _write(63), Flush(), _write(64)
]  # fmt: skip


def _story(failure: Failure) -> Timeline:
    return timeline(failure, [0, 2], ["create the file foo", "fsync foo"], ["make the directory A"])


def test_timeline_says_what_became_of_each_write() -> None:
    story = _story(_failure(EVENTS, 5, lost=(2,), torn=(4, 0b00000111)))
    fates = [(m.block, m.fate) for s in story.steps for m in s.marks]
    assert fates == [
        (60, DURABLE), (None, DURABLE), (61, LOST), (62, KEPT), (63, TORN), (None, LATER),
        (64, LATER),
    ]  # fmt: skip
    assert [step.state for step in story.steps] == ["done", "cut"]
    assert story.lanes == [60, 61, 62, 63, 64]
    assert story.summary == (
        "of what no flush had followed: 1 on the disk all the same, 1 torn, 1 lost"
    )
    text = list(lines(story))
    cut = next(i for i, line in enumerate(text) if "power cut" in line)
    assert "TORN: sectors ###....." in text[cut - 1]
    assert "never happened" in text[cut + 1]
    assert text[:2] == ["There was, and durable:", "    make the directory A"]


def test_timeline_a_flush_covers_what_had_completed() -> None:
    events: list[Event] = [Write(60, bytes(4096), overlap=1), Flush(), _write(61)]
    story = _story(_failure(events, 3))
    assert [m.fate for s in story.steps for m in s.marks] == [KEPT, DURABLE, KEPT]


def test_timeline_page_shows_both_cuts() -> None:
    first = _failure(EVENTS, 5, lost=(2,))
    second = _failure([_write(61), Flush()], 1, lost=(0,), before=first)
    stories = [("First", _story(first)), ("Then <again>", timeline(second, [0], ["recovery"]))]
    text = page("It <fails>", "meta", ["a & b"], stories, "xnfs crash")
    assert "It &lt;fails&gt;" in text
    assert "a &amp; b" in text
    assert text.count('<tr class="power">') == 2
    assert text.index("First") < text.index("Then &lt;again&gt;")


def test_timeline_every_operation_has_words() -> None:
    fields = {"p": "foo", "q": "bar", "a": "16", "n": "32"}
    for kind, letters in KINDS.items():
        words = [kind, *(fields[letter] for letter in letters if letter in fields)]
        (op,) = parse_name(" ".join(words))
        said = plain(op)
        assert "{" not in said
        assert all(fields[letter] in said for letter in letters if letter in "pq")
