"""xnfs against its peers: `fsbench.py` on each of them in turns, and the ratios.

    python benchmarks/compare.py [--runs N] [--quick] [--peers NAME,...] [--only REGEX] [--publish]

Each run takes the peers (`peers.py`) one after the other, each on a fresh image, alone on the
machine, in an order that rotates from run to run. "Cold" is a remount and dropped kernel caches.
Prints the tables as Markdown; keeps each JSON, the tables and the chart in the folder of `--out`.
`--from FOLDER` makes tables and chart of such a folder again, without measuring.
Ctrl-C leaves nothing mounted behind, and tables of what there is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import figures
from chart import draw
from peers import BY_NAME, HERE, KINDS, Peer, end_like_ctrl_c

YARDSTICK = HERE / "fsbench.py"
ABOUT = "about.json"
#: The chart of each of ours.
PICTURES = {"xnfs": "fsbench.svg", "xnfs-lfs": "fsbench-lfs.svg"}


def arguments() -> argparse.Namespace:
    """The command line."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("--runs", type=int, default=3, help="for each peer (3)")
    ap.add_argument("--quick", action="store_true", help="a tenth of the work, rough figures")
    ap.add_argument("--peers", default="", help=f"some of {', '.join(BY_NAME)} (all)")
    ap.add_argument("--only", help="only phases of fsbench that match this expression")
    ap.add_argument("--skip", help="no phases of fsbench that match this expression")
    ap.add_argument("--mib", type=int, default=2048, help="size of each image (2048)")
    ap.add_argument("--cap", type=float, help="limit of one loop phase, s (fsbench: 60, quick 15)")
    ap.add_argument("--limit", type=float, default=3600, help="limit of one peer's run, s (3600)")
    ap.add_argument("--where", help="folder for the images: the disk to measure on (/var/tmp)")
    ap.add_argument("--out", type=Path, help="folder for JSON, tables and chart (new in /var/tmp)")
    ap.add_argument("--from", dest="saved", type=Path, help="such a folder: no measuring")
    ap.add_argument("--publish", action="store_true", help="write benchmarks/fsbench.{md,svg}")
    return ap.parse_args()


def say(text: str) -> None:
    """To the terminal, not among the tables."""
    print(text, file=sys.stderr, flush=True)


def choose(names: str) -> list[type[Peer]]:
    """The peers that can run here; one line for each that can't."""
    wanted = names.split(",") if names else list(BY_NAME)
    if unknown := set(wanted) - set(BY_NAME):
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}")
    chosen = []
    for kind in KINDS:
        if kind.name in wanted:
            if lacks := kind.missing():
                say(f"{kind.name}: left out: {lacks}")
            else:
                chosen.append(kind)
    return chosen


def measure(kind: type[Peer], args: argparse.Namespace, out: Path) -> None:
    """One run of one peer, from a fresh image to nothing."""
    with tempfile.TemporaryDirectory(prefix="xnfs-bench-", dir=args.where or "/var/tmp") as folder:
        peer = kind(Path(folder))
        bench = None
        try:
            peer.create(args.mib)
            remount = [sys.executable, str(HERE / "peers.py"), "remount", peer.name, folder]
            words = [sys.executable, str(YARDSTICK), str(peer.dir), "-o", str(out)]
            words += ["--remount", shlex.join(remount)]
            words += ["--quick"] if args.quick else []
            for option in ("only", "skip", "cap"):
                if getattr(args, option) is not None:
                    words += [f"--{option}", str(getattr(args, option))]
            # A session of its own: Ctrl-C is for us, who then end all that belongs to it.
            bench = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                bench.wait(args.limit)
            except subprocess.TimeoutExpired:
                say(f"{peer.name}: not done after {args.limit:.0f} s, given up")
        finally:
            if bench is not None and bench.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(bench.pid, signal.SIGKILL)
            peer.destroy()
            if bench is not None:
                bench.wait()


def run_all(kinds: list[type[Peer]], args: argparse.Namespace, out: Path) -> None:
    """All runs of all peers."""
    for i in range(args.runs):
        first = i % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            say(f"run {i + 1} of {args.runs}: {kind.title}")
            start = time.monotonic()
            try:
                measure(kind, args, out / f"{kind.name}.{i + 1}.json")
            except SystemExit as failed:
                say(f"{kind.name}: {failed}")
            say(f"{kind.name}: {time.monotonic() - start:.0f} s")


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What the head of the tables says of the machine."""
    cpu = ""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(ln for ln in lines if ln.startswith("model name")).partition(": ")[2]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%d"),
        "image_mib": args.mib,
        "quick": args.quick,
    }


def head(known: dict[str, Any], results: figures.Figures) -> str:
    """The lines above the tables."""
    runs = len(results.metas) // max(1, len(results.titles))
    spins = [m["spin_median_ms"] / m["spin_best_ms"] for m in results.metas]
    lines = [
        f"{known['when']}: {known['cpu']}, {known['cpus']} CPUs, {known['memory_gib']} GiB, "
        f"Linux {known['kernel']}, Python {known['python']}. "
        f"{runs} run{'s' * (runs != 1)} of each in turns, on fresh images of "
        f"{known['image_mib']} MiB (sparse files on the machine's own disk).",
    ]
    if spins:
        lines[0] += (
            f" Noise: a fixed piece of work took {max(spins):.2f} times its best at the median of"
            " the noisiest run."
        )
    if known["quick"]:
        lines.append("\n**Quick runs: a tenth of the work, the figures are rough.**")
    return "\n".join(lines)


def report(folder: Path, publish: bool) -> None:
    """Tables and chart of a folder."""
    known = json.loads((folder / ABOUT).read_text())
    results = figures.load(folder, {kind.name: kind.title for kind in KINDS})
    if not results.titles:
        raise SystemExit(f"{folder}: no results")
    table = figures.markdown(results, head(known, results))
    print(table)
    pictures = {PICTURES[view.subject]: draw(view) for view in results.views()}
    for where in [folder, *([HERE] if publish else [])]:
        (where / "fsbench.md").write_text("# fsbench: xnfs and its peers\n\n" + table)
        drawn = {name: picture for name, picture in pictures.items() if picture}
        for name, picture in drawn.items():
            (where / name).write_text(picture)
        say(f"written: {where}/" + ", ".join(["fsbench.md", *drawn]))


def main() -> int:
    """Measure and report."""
    args = arguments()
    if args.saved:
        report(args.saved, args.publish)
        return 0
    end_like_ctrl_c()
    kinds = choose(args.peers)
    if not kinds:
        return 1
    if os.geteuid():
        say("not root: the kernel's caches can't be dropped, so cold is a remount only")
    out = args.out or Path("/var/tmp") / time.strftime("xnfs-fsbench-%Y%m%d-%H%M%S")
    out = out.resolve()  # fsbench changes its directory
    out.mkdir(parents=True, exist_ok=True)
    (out / ABOUT).write_text(json.dumps(about(args), indent=1) + "\n")
    status = 0
    try:
        run_all(kinds, args, out)
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    report(out, args.publish and not status)
    return status


if __name__ == "__main__":
    sys.exit(main())
