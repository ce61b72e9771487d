"""The published effects, as the experiments show them, the same every time."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import pytest
from xnfs_tools import run

from libos.experiments import EXPERIMENTS, Result


@cache
def result(name: str) -> Result:
    return EXPERIMENTS[name]()


def number(name: str, first: int | str, column: str) -> float:
    return float(result(name).cell(first, column))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_tables_and_plots(name: str) -> None:
    made = result(name)
    assert all(len(row) == len(made.columns) for row in made.rows)
    assert set(made.plot) <= set(made.columns)
    ElementTree.fromstring(made.svg())


@pytest.mark.parametrize("name", ["signals", "revocation", "shares", "gang"])
def test_experiments_are_the_same_every_time(name: str) -> None:
    assert EXPERIMENTS[name]() == result(name)


def test_experiment_signals_cost_an_order_of_magnitude_more() -> None:
    assert number("signals", "exokernel", "cycles") == 26
    assert number("signals", "exokernel", "crossings") == 1
    assert number("signals", "monolithic", "crossings") == 3
    assert number("signals", "monolithic", "cycles") > 14 * 26


def test_experiment_tlb_levels_reach_as_far_as_they_are_large() -> None:
    assert number("tlb", 64, "TLB %") == 100
    assert 40 < number("tlb", 128, "TLB %") < 55
    assert number("tlb", 4096, "application %") == 0
    assert 45 < number("tlb", 8192, "application %") < 55
    costs = [float(cost) for cost in result("tlb").column("cycles a load")]
    assert costs == sorted(costs)


def test_experiment_page_tables_each_have_their_address_space() -> None:
    looks, words = "words looked at", "words of memory"
    for space in ("dense", "segments", "sparse"):
        assert number("page-tables", f"{space}/linear", looks) == 1
        assert number("page-tables", f"{space}/hierarchical", looks) == 4
        assert number("page-tables", f"{space}/hashed", looks) < 4
    # An array suits a dense space; nothing of fixed shape suits a sparse one.
    assert number("page-tables", "dense/linear", words) == 500
    assert number("page-tables", "sparse/linear", words) > 4_000_000
    assert number("page-tables", "segments/hierarchical", words) < 10_000
    assert number("page-tables", "sparse/hierarchical", words) > 200_000
    inverted = [number("page-tables", f"{s}/inverted", words) for s in ("dense", "sparse")]
    assert inverted[0] == inverted[1] == 3 * 1024


def test_experiment_scan_mru_is_near_the_lower_bound() -> None:
    for pages in (36, 40, 48, 64):
        least = number("scan", pages, "lower bound")
        assert number("scan", pages, "LRU") == number("scan", pages, "FIFO") == 9 * pages
        assert least <= number("scan", pages, "MRU") <= least + 9
    assert number("scan", 32, "LRU") == 0


def test_experiment_victim_is_best_chosen_by_who_knows() -> None:
    own = number("victim", "application", "page-ins")
    assert own < 0.8 * min(number("victim", p, "page-ins") for p in ("FIFO", "clock", "LRU"))
    assert own <= number("victim", "MRU", "page-ins")


def test_experiment_garbage_is_not_written() -> None:
    assert number("garbage", "application says", "pages written") == 0
    assert number("garbage", "kernel's view", "pages written") == 5 * 64 - 32


def test_experiment_revocation_that_asks_loses_nothing() -> None:
    for style in ("transparent", "notify"):
        assert number("revocation", style, "taken by force") == 24
        assert number("revocation", style, "pages lost") == 24
    assert number("revocation", "cooperative", "taken by force") == 0
    assert number("revocation", "cooperative", "pages lost") == 0
    asked = number("revocation", "cooperative", "page-ins")
    assert asked < 0.9 * number("revocation", "notify", "page-ins")


def test_experiment_shares_are_exact_under_stride() -> None:
    for slices in (6, 48, 384):
        for tickets in (3, 2, 1):
            error = number("shares", slices, f"stride {tickets}") - slices * tickets / 6
            assert abs(error) < 1
    assert 0.45 < number("shares", 384, "lottery 3") / 384 < 0.55


def test_experiment_feedback_answers_sooner_at_no_cost() -> None:
    for column in ("median answer, slices", "95 %"):
        assert 3 * number("feedback", "feedback", column) < number(
            "feedback", "round robin", column
        )
    batch = [number("feedback", policy, "batch gets %") for policy in ("feedback", "round robin")]
    assert abs(batch[0] - batch[1]) < 1


def test_experiment_latency_stays_flat_with_the_next_free_slot() -> None:
    for way in ("polling", "predicate", "woken"):
        assert number("latency", 32, way) > 12
    assert all(float(late) < 0.7 for late in result("latency").column("next free slot"))


def test_experiment_gangs_pass_more_barriers() -> None:
    together, apart = (number("gang", g, "barriers a slice") for g in ("gang", "independent"))
    assert together > 10 * apart


def test_experiment_transfers_wait_for_nobody() -> None:
    alone, crowded = "alone", "4 others compute"
    for way in ("control transfer", "procedure call"):
        assert number("transfer", way, crowded) == number("transfer", way, alone)
    assert number("transfer", "pipes", crowded) > 1000 * number("transfer", "pipes", alone)
    costs = [float(cost) for cost in result("transfer").column(alone)]
    assert costs == sorted(costs)


def test_experiment_tenants_do_not_disturb_each_other() -> None:
    shares = [float(share) for share in result("tenants").column("% of the processor")]
    assert all(abs(share - 20) < 0.5 for share in shares)
    assert (
        2.9
        < number("tenants", "stride 3:1", "first client")
        / number("tenants", "stride 3:1", "second client")
        < 3.1
    )


def test_run_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert capsys.readouterr().out.split() == list(EXPERIMENTS)
    plot = tmp_path / "plot.svg"
    assert run.main(["signals", "--svg", str(plot)]) == 0
    assert "monolithic" in capsys.readouterr().out
    ElementTree.fromstring(plot.read_text())
    assert run.main(["nonsense"]) == 2
    assert run.main(["--svg", str(plot)]) == 2
    assert run.main(["signals", "--svg", str(tmp_path / "no" / "such")]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_experiments_document_shows_what_they_print() -> None:
    text = (Path(__file__).parents[2] / "docs" / "machine.md").read_text()
    for name in EXPERIMENTS:
        shown = "".join(f"    {line}".rstrip() + "\n" for line in result(name).text().splitlines())
        assert f"    $ xnfs run {name}\n{shown}" in text, f"{name}:\n{shown}"


def test_experiment_handlers_wait_for_nobody() -> None:
    for way in ("handler", "kernel's reply"):  # what is done on arrival
        trips = [float(t) for t in result("handlers").column(way)]
        assert max(trips) == min(trips) < 0.4
    trip = number("handlers", 0, "handler")
    assert trip < number("handlers", 0, "woken") < 0.4
    # Everybody else waits for his turn: half a round, so twice as long for twice as many.
    for way in ("woken", "kernel's sockets"):
        assert number("handlers", 1, way) > 20 * trip
        for others in (4, 8, 16):
            grown = number("handlers", 2 * others, way) / number("handlers", others, way)
            assert 1.3 < grown < 3
        assert 12 < number("handlers", 32, way) / number("handlers", 2, way) < 24
    assert all(float(t) < 16 for t in result("handlers").column("next free slot"))
