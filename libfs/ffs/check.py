"""The checker of FFS: what the kernel's fsck can't know, because it knows pointers and no meaning.

    check(xn, cap, name, repair=True, report=print)

It walks the directories from the root and looks at each inode once (`check_inode`): names, where
they lie and that they are unique (`check_names`), link counts, parents, entry counts. Findings are
data (`findings`). With `repair` each is mended as it is found, by the same atomic changes that the
file system itself makes, so a cut in the middle leaves a file system with fewer findings; a second
run finds nothing. Without, nothing is changed.

Relies on: the kernel's fsck went before, so that every block can be read as its type; nobody has
the file system mounted. Guarantees: bounded by the number of blocks, no recursion on disk depth,
no byte believed."""

from __future__ import annotations

from libfs.common.checking import Finding, Log, Report, Summary
from libfs.ffs import format as f
from libfs.ffs import types as t
from libfs.ffs.check_inode import InodeChecker
from libfs.ffs.check_names import NameChecker
from libfs.ffs.directory import Directories
from libfs.ffs.extents import ExtentMap
from libfs.ffs.findings import PROBLEMS
from libfs.ffs.inode import Vnode
from libfs.ffs.place import Placer
from libfs.ffs.superblock import decode_super_untrusted
from libfs.ffs.volume import Batch, Volume
from xnfs import Caller, CorruptionError, Xn


def check(xn: Xn, cap: bytes, name: str, *, repair: bool, report: Report) -> Summary:
    """Check the FFS in the root `name`. Durable on return.

    Raises XnError: no such root, CorruptionError (the kernel's fsck has to go first), no space.
    """
    info = xn.mount_root(Caller(cap), name)
    if info.type != xn.type_number(t.SUPER):
        raise CorruptionError(info.block, "type", info.type, t.SUPER)
    vol = Volume(xn, info.cap, info.block, readonly=not repair)
    root = decode_super_untrusted(info.block, vol.block(info.block)).root
    vol.set_home(root, info.block, 0)
    log = Log(report, PROBLEMS, repair=repair)
    _Walk(vol, log).run(root)
    if repair:
        vol.sync_all()
    xn.unpin(vol.who, info.block)
    return log.summary


class _Walk:
    """One walk over all directories."""

    def __init__(self, vol: Volume, log: Log) -> None:
        place = Placer(vol)
        self._vol = vol
        self._log = log
        self._inodes = InodeChecker(vol, log, ExtentMap(vol, place))
        self._names = NameChecker(vol, log, Directories(vol, place))
        self._links: dict[int, int] = {}
        self._seen: set[int] = set()
        self._todo: list[tuple[int, int]] = []

    def run(self, root: int) -> None:
        """Everything below `root`."""
        self._seen.add(root)
        self._todo.append((root, root))
        while self._todo:
            self._directory(*self._todo.pop())
        for ino, links in self._links.items():
            v = self._vol.vnode(ino)
            if v.nlink != links and self._log("inode-links", ino, got=v.nlink, want=links):
                self._set(v, nlink=links)
        self._log.summary.inodes = len(self._links)

    def _set(self, v: Vnode, **fields: int) -> None:
        batch = Batch(self._vol, self._vol.who)
        batch.set(v, **fields)
        batch.commit()

    def _directory(self, ino: int, parent: int) -> None:
        self._log.summary.directories += 1
        v = self._inodes.header(ino, is_dir=True)
        extra = self._inodes.attributes(v)
        blocks, below = self._names.blocks(v)
        entries = subdirs = 0
        for block in blocks:
            count, dirs = self._entries(v, block)
            entries += count
            subdirs += dirs
        self._counts(v, parent, entries, subdirs, below + extra)

    def _counts(self, v: Vnode, parent: int, entries: int, subdirs: int, blocks: int) -> None:
        """What a directory says of itself, against what was seen. Mending names may have moved
        some, so counts go last."""
        log, ino = self._log, v.ino
        right: dict[str, int] = {}
        if v.parent != parent and log("dir-parent", ino, got=v.parent, want=parent):
            right["parent"] = parent
        if v.entries != entries and log("dir-entries", ino, got=v.entries, want=entries):
            right["entries"] = entries
        want = 2 + subdirs
        if v.nlink != want and log("inode-links", ino, got=v.nlink, want=want):
            right["nlink"] = want
        blocks += self._names.taken
        if v.blocks != blocks and log("inode-blocks", ino, got=v.blocks, want=blocks):
            right["blocks"] = blocks
        if right:
            self._set(v, **right)

    def _entries(self, v: Vnode, block: int) -> tuple[int, int]:
        """Follow the names of one block: how many, and how many are directories."""
        nb = self._names.block(v, block)
        count = dirs = 0
        for name, (slot, ino, kind, d_type) in list(nb.names.items()):
            if kind == f.P_DIR and ino in self._seen:
                if self._log("dir-twice", ino, name=name, parent=v.ino):
                    self._names.remove(v, nb, name)
                    continue
            elif kind == f.P_DIR:
                self._seen.add(ino)
                self._todo.append((ino, v.ino))
            count += 1
            dirs += kind == f.P_DIR
            self._vol.set_home(ino, nb.block, slot)
            real = self._child(ino, kind)
            if d_type != real and self._log(
                "name-type", nb.block, name=name, got=d_type, want=real
            ):
                self._names.retype(v, nb, name, real)
        return count, dirs

    def _child(self, ino: int, kind: int) -> int:
        """Check an inode at its first name; its type for d_type."""
        if kind == f.P_DIR:
            return self._inodes.header(ino, is_dir=True).mode >> 12
        if ino not in self._links:
            self._inodes.check(ino)
        self._links[ino] = self._links.get(ino, 0) + 1
        return self._vol.vnode(ino).mode >> 12


__all__ = ["Finding", "Log", "Summary", "check"]
