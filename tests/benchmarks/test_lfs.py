"""The benchmark of LFS runs, and counts: at toy size, so its times mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "lfs.py"
#: All but the one through a mount, which needs the commands installed.
SECTIONS = ("small", "cost", "recovery", "snapshot")


def test_benchmarks_lfs_measures_every_section_and_draws_it(tmp_path: Path) -> None:
    where = "--where", tmp_path, "--out", tmp_path
    done = subprocess.run(
        [sys.executable, SCRIPT, *SECTIONS, "--toy", "--runs", "1", *where],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text())["figures"] for path in tmp_path.glob("*.json")}
    assert len(found) == 6 + 8 + 2 + 2
    # What the figures must say whatever the size.
    ffs, lfs = (found[f"small.overwrite.{kind}.0"]["counts"] for kind in ("FFS", "LFS"))
    assert lfs["writes"] < ffs["writes"]
    assert ffs["flushes"] == lfs["flushes"]
    for name in (key for key in found if key.startswith("cost.")):
        assert found[name]["written"] > 1
        assert found[name]["segments"]
        assert abs(found[name]["utilisation"] - int(name.split(".")[-1]) / 100) < 0.02
    assert found["recovery.1.0"]["inodes"] > found["recovery.0.0"]["inodes"] == 0
    assert found["snapshot.10"]["blocks"] == found["snapshot.20"]["blocks"]
    pictures = sorted(tmp_path.glob("lfs-*.svg"))
    assert len(pictures) == 6
    for picture in pictures:
        ElementTree.fromstring(picture.read_text())
        assert f"]({picture.name})" in (tmp_path / "lfs.md").read_text()
