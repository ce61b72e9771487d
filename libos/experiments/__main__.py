"""python -m libos.experiments FILE: put what the experiments print now into a document, behind each
line `$ xnfs run NAME`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from libos.experiments import EXPERIMENTS


def main(path: Path) -> None:
    """Rewrite the tables of one document."""
    text = path.read_text()
    for name, experiment in EXPERIMENTS.items():
        shown = "".join(f"    {line}".rstrip() + "\n" for line in experiment().text().splitlines())
        head = f"    $ xnfs run {name}\n"
        place = re.compile(re.escape(head) + r"(?:    .*\n|\n(?=    ))*")
        text = place.sub((head + shown).replace("\\", r"\\"), text)
    path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
