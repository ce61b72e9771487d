"""docs/network.md: its code runs, and its numbers are the code's."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from libos.net.base import ip
from libos.net.filters import to_port
from tests.libos_net.namespace import HOST_IP, Namespace
from tests.net.test_meaning import understood
from xnfs.net import Action
from xnfs.net.cube import WINDOW
from xnfs.net.fragments import MAX_HELD
from xnfs.net.handler import BUDGET, MAX_ACTIONS, STATE, STEPS_PER_SECOND
from xnfs.net.meaning import MAX_PARTS

TEXT = (Path(__file__).parents[2] / "docs" / "network.md").read_text()


def test_document_example_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    stop = threading.Event()
    with Namespace() as space:
        thread = threading.Thread(target=scope["echo"], args=(space.tap, stop.is_set))
        thread.start()
        try:
            done = space.run("ping", "-c", "1", "-s", "7000", HOST_IP)
            said = space.sh(f"echo hello | nc -N {HOST_IP} 7")
        finally:
            stop.set()
            thread.join()
    assert "1 packets transmitted, 1 received" in done.stdout
    assert said == "hello\n"


def test_document_filter_is_the_one_for_ports() -> None:
    (code,) = re.findall(r"^```\n(def accept.*?)^```$", TEXT, re.M | re.S)
    assert understood(code)[1] == understood(to_port(ip("10.0.0.1"), 17, 53))[1]


def test_document_numbers() -> None:
    table = dict(re.findall(r"^\| (\d) ([A-Z_]+) \|", TEXT, re.M))
    assert {int(n): name for n, name in table.items()} == {a.value: a.name for a in Action}
    for said in (
        f"beyond byte {WINDOW - 1}",
        f"{MAX_PARTS} parts",
        f"{MAX_HELD} of them at most",
        f"at most {MAX_ACTIONS}. They",
        f"first {STATE} bytes",
        f"at most {BUDGET} steps",
        f"{STEPS_PER_SECOND:,} steps a second",
    ):
        assert said in re.sub(r"\s+", " ", TEXT), said
