"""dumpfs.xnfs: print what an image says of itself, as text."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Final

from xnfs import BLOCK, T_UNREADABLE, XnError, read_superblock_untrusted
from xnfs.disk.device import FileDevice
from xnfs.disk.layout import CLEAN, DAMAGED, VERSION, Superblock
from xnfs_tools.command import Codes, Parser, about, human, parser, run, words
from xnfs_tools.session import open_kernel

PROG: Final = "dumpfs.xnfs"
CODES: Final = Codes(failed=1, usage=2)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Print superblock, areas, types and file systems of an xnfs image.")
    made.add_argument("image", metavar="IMAGE", help="file or block device")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    path = arguments().parse_args(words(argv)).image
    try:
        device = FileDevice(path, readonly=True)
        try:
            superblock = read_superblock_untrusted(device)
        finally:
            device.close()
    except XnError as error:
        raise about(path, error) from None
    _superblock(superblock)
    # Damage behind the superblock should not hide what could be read: it comes last.
    with open_kernel(path, readonly=True) as xn:
        free = xn.free_blocks()
        _row("free", f"{free} blocks ({human(free * BLOCK)})")
        print("\ntypes")
        for number, spec in xn.types():
            kind = "unreadable" if spec.flags & T_UNREADABLE else "data"
            if spec.stamp is not None:
                parts = sum(group[3] for group in spec.parts)
                kind = f"{parts} partitions, raw range {spec.raw[0]}..{spec.raw[1]}"
            refs = f", points at {', '.join(spec.refs)}" if spec.refs else ""
            print(f"  {number:<5} {spec.name:<16} {kind}{refs}")
        print("\nroots")
        names = {number: spec.name for number, spec in xn.types()}
        for root in xn.roots():
            print(f"  {root.name:<22} block {root.block}, type {names.get(root.type, root.type)}")
    return 0


def _row(name: str, value: object) -> None:
    print(f"{name:<16}{value}")


def _superblock(sb: Superblock) -> None:
    g = sb.geometry
    state = [word for bit, word in ((CLEAN, "clean"), (DAMAGED, "damaged")) if sb.state & bit]
    made = datetime.datetime.fromtimestamp(sb.created / 1e9, datetime.UTC)
    _row("label", sb.label or "-")
    _row("UUID", uuid.UUID(bytes=sb.uuid))
    _row("format", f"version {VERSION}")
    _row(
        "features", f"compat {sb.compat:#x}, ro_compat {sb.ro_compat:#x}, incompat {sb.incompat:#x}"
    )
    _row("state", ", ".join(state) or "not unmounted cleanly")
    _row("created", f"{made:%Y-%m-%d %H:%M:%S} UTC")
    _row("generation", sb.generation)
    _row("transaction", f"none up to {sb.seq} is used again")
    _row("size", f"{g.blocks} blocks of {BLOCK} ({human(g.blocks * BLOCK)})")
    areas = (
        ("log", g.log_start, g.log_blocks),
        ("free map", g.map_start, g.map_blocks),
        ("counts, versions", g.refs_start, g.refs_blocks),
        ("types", g.types_start, g.types_blocks),
        ("roots", g.roots_start, g.roots_blocks),
        ("data", g.data_start, g.data_end - g.data_start),
    )
    for name, start, count in areas:
        _row(name, f"{start} .. {start + count - 1} ({count} blocks)")
