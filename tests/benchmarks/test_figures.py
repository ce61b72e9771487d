"""The tables of `compare.py`: what is ahead of whom, of each of our file systems by itself."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
#: By peer: files made a second, and seconds for a tree.
FIGURES = {"xnfs": (50, 4.0), "xnfs-lfs": (300, 1.0), "fuse2fs": (100, 2.0)}


def test_benchmarks_each_of_our_file_systems_is_compared_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    figures = importlib.import_module("figures")  # the scripts are no package

    for name, (rate, seconds) in FIGURES.items():
        results = {
            "mkdir": {"unit": "ops/s", "value": rate},
            "untar": {"unit": "s", "value": seconds},
        }
        path = tmp_path / f"{name}.1.json"
        path.write_text(json.dumps({"meta": {}, "results": results, "errors": {}}))
    ffs, lfs = figures.load(tmp_path, {name: name.upper() for name in FIGURES}).views()
    assert ffs.peers() == lfs.peers() == ["fuse2fs"]
    assert [ffs.ratio("fuse2fs", phase) for phase in ("mkdir", "untar")] == [0.5, 0.5]
    assert [lfs.ratio("fuse2fs", phase) for phase in ("mkdir", "untar")] == [3.0, 2.0]
    page = figures.markdown(ffs, "head")
    first, second = page.split("## XNFS-LFS")
    assert "0 of 2; missed on mkdir (0.50), untar (0.50)" in first
    assert "2 of 2; reached" in second
    sys.modules.pop("figures")
