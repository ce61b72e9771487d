"""`xnfs roots` and `xnfs rmroot`: the file systems that share one image.

They share the free blocks, too: there are no quotas, the first to ask gets a block, and a full disk
is full for all of them.
"""

from __future__ import annotations

import uuid
from typing import Final

from libfs.formats import of_type
from libfs.posix.interface import FsError
from xnfs import BLOCK, Caller, CorruptionError, RootEntry, Xn, XnError
from xnfs_tools.command import Failed, Progress, Usage, about, ask, human, split_image
from xnfs_tools.inspect import open_inspector
from xnfs_tools.session import choose_root, mount_root, open_kernel

#: Blocks looked at between two signs of life.
_STEP: Final = 4096


def show(image: str) -> int:
    """`xnfs roots IMAGE`: name, type, blocks, owner and UUID of each file system."""
    with open_kernel(image, readonly=True) as xn:
        entries = sorted(xn.roots(), key=lambda entry: entry.name)
        told = [(entry, *_look(xn, image, entry)) for entry in entries]
        free = xn.free_blocks()
        types = {number: spec.name for number, spec in xn.types()}
        kinds = {entry.name: of_type(xn, entry.type) for entry in entries}
    print(f"{'NAME':<16} {'TYPE':<12} {'BLOCKS':>10} {'SIZE':>12} {'OWNER':>13}  UUID")
    with open_inspector(image) as inspector:
        for entry, owner, ident in told:
            known = kinds[entry.name]
            kind = known.name if known else types.get(entry.type, str(entry.type))
            blocks = inspector.count(entry.block, entry.type)
            size = human(blocks * BLOCK)
            print(f"{entry.name:<16} {kind:<12} {blocks:>10} {size:>12} {owner:>13}  {ident}")
    print(f"free for all of them: {free} blocks ({human(free * BLOCK)})")
    return 0


def _look(xn: Xn, image: str, entry: RootEntry) -> tuple[str, str]:
    """Owner of the root directory and UUID; what can't be told is a dash."""
    known = of_type(xn, entry.type)
    if known is None:
        return "-", "-"
    ident = "-"
    try:
        if known.uuid is not None:
            info = xn.mount_root(Caller(xn.admin), entry.name)
            raw = xn.read(Caller(info.cap), entry.block, 0, BLOCK)
            ident = str(uuid.UUID(bytes=known.uuid(entry.block, raw)))
        fs = mount_root(xn, image, entry, readonly=True)
        attr = fs.getattr(fs.root)
        fs.close()
    except CorruptionError:
        return "damaged", ident
    except (Failed, FsError, XnError):
        return "-", ident
    return f"{attr.uid}:{attr.gid}", ident


def remove(text: str, *, force: bool) -> int:
    """`xnfs rmroot IMAGE:ROOT`: forget a file system, and give back what it had.

    After a power cut in between the file system is gone, and its blocks are leaks, which the next
    mount collects.
    """
    path, name = split_image(text)
    if name is None:
        raise Usage("which one? IMAGE:ROOT; 'xnfs roots IMAGE' lists them")
    with open_kernel(path, readonly=True) as xn:
        choose_root(xn, path, name)
    if not force:
        question = f"{path}: everything in '{name}' will be lost"
        if not ask(f"{question}. Remove it?", f"{question}; use -F to remove it"):
            raise Failed("nothing was changed")
    progress = Progress()
    with open_kernel(path, readonly=False) as xn:
        before = xn.free_blocks()
        try:
            xn.remove_root(Caller(xn.admin), name)
            looked = 0
            while not xn.collect(Caller(xn.admin), _STEP).done:
                looked += _STEP
                progress("blocks looked at", looked)
        except XnError as error:
            raise about(path, error) from None
        finally:
            progress.end()
        freed = xn.free_blocks() - before
    print(f"{path}: '{name}' is removed, {freed} blocks ({human(freed * BLOCK)}) are free again")
    return 0
