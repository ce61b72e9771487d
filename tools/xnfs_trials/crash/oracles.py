"""Who judges a disk after a power cut. Each oracle has an id and can be switched off by it.

    O1  rules R1, R2, R4, R5 on the raw bytes, for any file system      kernelwalk.py
    O2  nobody shows bytes that are not his own                          here
    O3  what a sync acknowledged is there, and no older                  model.py
    O4  the tree is one that the model allows, and well formed           model.py, the raw walk
    O5  recovery ends and repeats itself; a mount shows what the bytes
        show; `fsck` finds nothing; deleted and collected, nothing is
        left                                                             afterwards.py
    O6  other file systems on the image are untouched                    neighbour.py

What they find are texts that begin with the id. O1 to O4 and O6 share no code with XN, except that
the tree of a file system without a raw reader is read through a mount.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache

from libfs.posix import FsError
from xnfs import MemoryDevice, XnError
from xnfs_trials.crash.afterwards import afterwards, fsck
from xnfs_trials.crash.base import Base, Shape, open_subject
from xnfs_trials.crash.kernelwalk import KernelWalk
from xnfs_trials.crash.model import TAG_XATTR, Cut, Model
from xnfs_trials.crash.mounting import CANARY
from xnfs_trials.crash.neighbour import OWNER
from xnfs_trials.crash.prune import View
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.rawwalk import TAG
from xnfs_trials.crash.recovery import Bench
from xnfs_trials.crash.subject import Subject
from xnfs_trials.crash.trees import Tree, read_tree

ORACLES: Mapping[str, str] = {
    "O1": "rules R1-R5 on the raw bytes",
    "O2": "confidentiality",
    "O3": "what was synced is there",
    "O4": "the tree is one that the model allows",
    "O5": "recovery ends, repeats itself, and leaves nothing behind",
    "O6": "other file systems are untouched",
}
#: What the reader of a format finds that is a rule of the kernel, and O1's.
_KERNEL = frozenset("R1 R2 R4 R5 super map refs roots types log".split())


@lru_cache(maxsize=1 << 13)
def cells(data: bytes) -> frozenset[tuple[int, int]]:
    """Whose bytes lie in a block: (what for, owner) of its cells of 16 bytes, without zeros."""
    data += bytes(-len(data) % 16)
    words = struct.unpack(f"<{len(data) // 4}I", data)
    return frozenset(zip(words[::4], words[1::4], strict=True)) - {(0, 0)}


class Oracles:
    """All of them, for one trial. `without`: the ids that are switched off."""

    def __init__(
        self,
        subject: Subject,
        model: Model,
        base: Base,
        shape: Shape,
        without: Collection[str] = (),
    ) -> None:
        unknown = set(without) - ORACLES.keys()
        if unknown:
            raise ValueError(f"no oracle {', '.join(sorted(unknown))}")
        self.subject, self.model, self.base, self.shape = subject, model, base, shape
        self.without = frozenset(without)

    def _on(self, oracle: str) -> bool:
        return oracle not in self.without

    # -- what does not depend on the cut

    def inspect(self, disk: RawDisk) -> tuple[list[str], Tree | None]:
        """(what is wrong with the bytes, the tree that they show; None: it can't be read)."""
        walk = KernelWalk(disk)
        walk.run()
        out = list(self._of_disk(disk, raw=False))
        tree, wrong = self._tree(disk)
        out += wrong
        if self._on("O2"):
            out += self._plain(disk, walk)
            out += self._confidential(tree) if tree is not None else ()
        if self._on("O6"):
            harmed = self.base.neighbour.harmed(disk.image)
            out += [f"O6: block {block} of the neighbour is not as it was" for block in harmed]
        return out, tree

    def _of_disk(self, disk: RawDisk, *, raw: bool) -> Iterator[str]:
        """What was found on the disk so far; then it is forgotten."""
        for finding in disk.findings:
            oracle = "O1" if finding.rule in _KERNEL or not raw else "O4"
            if self._on(oracle):
                yield f"{oracle} {finding.rule}: block {finding.block}: {finding.text}"
        disk.findings.clear()

    def _tree(self, disk: RawDisk) -> tuple[Tree | None, list[str]]:
        if self.subject.raw_walk is not None:
            tree = self.subject.raw_walk(disk)
            return tree, list(self._of_disk(disk, raw=True))
        device = Bench(View(disk.image), self.shape.blocks)  # so that what is read is noted
        try:
            _, posix = open_subject(self.subject, device, self.shape.frames, readonly=True)
            return read_tree(posix), []
        except (FsError, XnError) as error:
            wrong = f"O4: can't be mounted and read: {type(error).__name__}: {error}"
            return None, [wrong] if self._on("O4") else []

    def _plain(self, disk: RawDisk, walk: KernelWalk) -> Iterator[str]:
        """O2: blocks that a file system may hand out as bytes."""
        for block in walk.plain():
            data = disk.block(block)
            mine = block in self.base.neighbour.holds
            if CANARY in data:
                yield f"O2: block {block} is reached, and holds what lay there before"
            elif not mine and (TAG, OWNER) in cells(data):
                yield f"O2: block {block} holds bytes of the neighbour"

    def _confidential(self, tree: Tree) -> Iterator[str]:
        """O2: each file shows the bytes of one file, and no two show those of the same."""
        shown_by: dict[int, int] = {}
        for inode in tree.inodes.values():
            found = {cell for data in inode.data.values() for cell in cells(data)}
            owners = {fid for _, fid in found}
            strange = any(tag != TAG for tag, _ in found) or len(owners) > 1
            if strange or any(shown_by.setdefault(fid, inode.ino) != inode.ino for fid in owners):
                yield f"O2: file {inode.ino} shows bytes {sorted(found)[:4]} of another"
            for name, value in inode.xattrs.items():
                if name.startswith(b"user.x") and any(tag != TAG_XATTR for tag, _ in cells(value)):
                    yield f"O2: the attribute {name!r} of {inode.ino} shows other bytes"

    # -- what does

    def promise(self, tree: Tree | None, cut: Cut) -> list[str]:
        """O3 and O4; and O2 again: whose bytes are they?"""
        if tree is None:
            return []
        out = list(self.model.explain(tree, cut, self.without))
        if self._on("O2"):
            out += self._owned(tree)
        return out

    def _owned(self, tree: Tree) -> Iterator[str]:
        for inode in tree.inodes.values():
            owners = {f for data in inode.data.values() for _, f in cells(data)}
            if not owners <= {n.number for n in self.model.by_ino.get(inode.ino, [])}:
                yield f"O2: file {inode.ino} shows bytes of {sorted(owners)}, which it never was"

    # -- with the real code

    def left(self, disk: MemoryDevice) -> list[str]:
        """O5 of a disk on which every write has arrived: its own checker has nothing to say."""
        if not self._on("O5"):
            return []
        try:
            return [f"O5: {text}" for text in fsck(self.subject, disk, "at the end")]
        except (FsError, XnError) as error:
            return [f"O5: checked at the end: {type(error).__name__}: {error}"]

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], tree: Tree | None
    ) -> list[str]:
        """O5, and what O1 and O6 say of the disk when it is over."""
        if not self._on("O5") or tree is None:
            return []
        disk = MemoryDevice(self.shape.blocks, image)
        try:
            wrong = afterwards(self.subject, self.shape, self.base, disk, tree, recovered)
            out = [f"O5: {text}" for text in wrong]
        except (FsError, XnError) as error:
            return [f"O5: mounted and used: {type(error).__name__}: {error}"]
        if self._on("O6"):
            harmed = self.base.neighbour.harmed(disk._contents)
            out += [f"O6: mounted and used: block {b} of the neighbour changed" for b in harmed]
        return out
