"""The timeline is a drawing of every stay on a processor."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from libos.timeline import timeline
from tests.machine.kit import frame_at
from xnfs import Boot, Machine, Program, calls

SVG = "{http://www.w3.org/2000/svg}"


def works(me: Boot) -> Program:
    yield from frame_at(me, 0)
    for _ in range(5):
        yield 100_000
        yield (calls.YIELD, 0)


def test_timeline_shows_every_stay() -> None:
    machine = Machine(processors=2, trace=1000)
    for _ in range(3):
        machine.boot(works, slots=1)
    machine.run()
    stays = sum(record.what == "run" for record in machine.trace.records)
    root = ElementTree.fromstring(timeline(machine.trace.records, machine.costs.hz, "a <test>"))
    assert stays >= 15
    assert len(root.findall(f"{SVG}rect")) == stays + 3
    assert root.findtext(f"{SVG}title") == "a <test>"


def test_timeline_of_nothing() -> None:
    ElementTree.fromstring(timeline([], 1))
