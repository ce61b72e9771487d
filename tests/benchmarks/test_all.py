"""The table of all figures: what it makes of the reports that the benchmarks print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "all.py"
REPORTS = {
    "compare": "Goals:\n\n- ahead of a peer on every line: 19 of 37; missed on x (0.86)\n",
    "xcp": "| tree | | xnfs cp, s | cp, s | cp / xnfs cp |\n|---|---|---:|---:|---:|\n"
    "| small | cold | 2.0 (2.2) | 9.9 (9.9) | 4.9 (4.4) |\n",
    "cffs": "| size | phase | ratio |\n|---:|---|---:|\n| 1024 | read | 0.5 |\n"
    "| 1024 | all | 0.3 |\n",
    "web": "\nKept connections:\n\n"
    "| bytes | server | requests/s | MB/s | µs of CPU a request | packets a request |\n"
    "|---|---|---|---|---|---|\n| 0 | general | 10 | 0 | 90 | 2 |\n"
    "| 0 | and fast path: this server | 100 | 0 | 10 | 2 |\n| 0 | http.server | 50 | 0 | 9 | 2 |\n",
    "machine": "| what | unit | figure | goal |\n|---|---|---:|---:|\n"
    "| a mix | operations/s | 802,023 | 300,000 |\n| idle | bytes | 2,000 | 1,024 |\n",
    "lfs": "| for each operation | FFS | LFS | FFS / LFS |\n|---|---:|---:|---:|\n"
    "| **create** (10) | | | |\n| device writes | 0.01 | 0.003 | 3.12 |\n",
}
TABLE = """\
| what | figure | goal | reached |
|---|---:|---:|---|
| ahead of a peer on every line, lines | 19 | ≥ 37 | no |
| `cp` / `xnfs cp`, small, cold | 4.9 | ≥ 3 | yes |
| requests with C-FFS / without, 1024 bytes | 0.3 | ≤ 0.25 | no |
| network.py | not measured | | |
| general server's CPU / ours, 0 bytes, kept connections | 9 | ≥ 8 | yes |
| our requests a second / `http.server`'s, 0 bytes, kept connections | 2 | ≥ 1 | yes |
| a mix, operations/s | 8.02e+05 | ≥ 300000 | yes |
| idle, bytes | 2000 | ≤ 1024 | no |
| device writes, FFS / LFS: create | 3.12 | ≥ 1 | yes |
"""


def test_table_of_all_figures(tmp_path: Path) -> None:
    for name, text in REPORTS.items():
        (tmp_path / f"{name}.md").write_text(text)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--from", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.partition("\nAll tables")[0] == TABLE
