"""The checker of LFS: what the kernel's fsck can't know, because it knows pointers that own, and no
meaning.

    check(xn, cap, name, repair=True, report=print)

It takes the log up as a mount does, or reads all summaries if that can't be done (`rebuild`); looks
at each inode (`check_inodes`), walks the directories, and counts what is live. All is mended in
memory, as it is found, and written by one checkpoint at the end: a cut before leaves everything as
it was. Without `repair` nothing is written.

Relies on: the kernel's fsck went before; nobody has the file system mounted. Guarantees: bounded by
the number of blocks, no recursion on disk depth, no byte believed.
"""

from __future__ import annotations

import stat

from libfs.common.checking import Log, Report, Summary
from libfs.lfs import format as f
from libfs.lfs import types as t
from libfs.lfs.check_inodes import InodeChecker
from libfs.lfs.checkpoint import make_durable
from libfs.lfs.findings import PROBLEMS
from libfs.lfs.flushing import flush
from libfs.lfs.inode import DT_DIR, Vnode
from libfs.lfs.mounting import bare_volume, take_region
from libfs.lfs.names import Leaf
from libfs.lfs.namespace import Namespace
from libfs.lfs.rebuild import rebuild
from libfs.lfs.rollforward import roll_forward
from libfs.lfs.snapshots import live_bytes, load_untrusted
from libfs.lfs.volume import Volume
from libfs.posix.interface import New
from xnfs import Caller, CorruptionError, Xn


def check(xn: Xn, cap: bytes, name: str, *, repair: bool, report: Report) -> Summary:
    """Check the LFS in the root `name`. Durable on return.

    Raises XnError: no such root, CorruptionError (the kernel's fsck has to go first, or nothing can
    be done), no space.
    """
    info = xn.mount_root(Caller(cap), name)
    if info.type != xn.type_number(t.SUPER):
        raise CorruptionError(info.block, "type", info.type, t.SUPER)
    vol = bare_volume(xn, info, readonly=not repair)
    log = Log(report, PROBLEMS, repair=repair)
    _Check(vol, log).run()
    return log.summary


class _Check:
    """One look at everything."""

    def __init__(self, vol: Volume, log: Log) -> None:
        self._vol = vol
        self._log = log
        self._inodes = InodeChecker(vol, log)
        self._rebuilt = False
        self._links: dict[int, int] = {}
        self._seen: set[int] = set()

    def run(self) -> None:
        """Look, mend, write."""
        vol, log = self._vol, self._log
        raw = vol.xn.read(vol.who, vol.super, 0, f.BLOCK)
        try:
            vol.segments.load_untrusted(raw[f.SUPER_TABLE :])
        except CorruptionError as error:
            log("table", error.block, repairable=False, why=error)
            return
        self._take_up()
        self._snapshots()
        if not self._inodes.map(vol.imap):
            self._rebuilt = True
            rebuild(vol, log)
        self._all_inodes()
        self._names()
        if self._rebuilt:  # no checkpoint says it, and what has no name is left out
            there = (ino for ino, _at in vol.imap.items())
            vol.next_ino = max(f.ROOT_INO, *vol.dirty, *there) + 1
        if not log.repair:
            if not log.summary.findings:
                self._usage()
            return
        if log.summary.findings:
            flush(vol)
            self._inodes.write_slots()
        self._usage()
        if log.summary.findings:
            for _region in range(2):
                make_durable(vol, checkpoint=True)
        make_durable(vol)

    # -- the log

    def _take_up(self) -> None:
        vol, log = self._vol, self._log
        try:
            regions = vol.checkpoint.load()
            for block in vol.checkpoint.bad:
                log("region", block, why="its checksum is wrong")
            take_region(vol, regions)
            self._load_snapshots()
            roll_forward(vol, regions[0])
        except CorruptionError as error:
            log("log", error.block, why=error)
            self._rebuilt = True
            rebuild(vol, log)

    def _load_snapshots(self) -> None:
        vol = self._vol
        for address in vol.checkpoint.snapshots:
            try:
                vol.snapshots.add_untrusted(load_untrusted(vol, address))
            except CorruptionError as error:
                self._log("snapshot", address & f.AT_MASK, why=error)
        vol.snapshots.changed()

    def _snapshots(self) -> None:
        """One that is damaged can't be mended, for it must not change: it stays, with what is
        left of it, until somebody deletes it."""
        vol = self._vol
        for snapshot in vol.snapshots.all:
            bad: list[CorruptionError] = []
            for _each in live_bytes(vol, [vol.snapshots.tree(snapshot)], bad.append):
                pass
            if bad:
                where = snapshot.address & f.AT_MASK
                self._log(
                    "snapshot-damaged", where, repairable=False, name=snapshot.name, why=bad[0]
                )

    def _usage(self) -> None:
        vol = self._vol
        live = vol.snapshots.live()
        for segment, usage in vol.segments.usage.items():
            if usage.live != live[segment]:
                got, want = usage.live, live[segment]
                if self._log("usage", usage.summary, segment=segment, got=got, want=want):
                    vol.segments.count(usage.summary, want - got)

    # -- inodes

    def _all_inodes(self) -> None:
        vol = self._vol
        for ino, at in list(vol.imap.items()):
            if self._inodes.inode(ino, at) is not None:
                self._links[ino] = 0
        self._log.summary.inodes = len(self._links)
        vol.next_ino = max(vol.next_ino, max(self._links, default=f.ROOT_INO) + 1)
        root = vol.vnodes.get(f.ROOT_INO)
        if root is None or not root.is_dir:
            self._log("root-lost", vol.super)
            if root is not None:
                self._rename_root(root)
            self._new_root()

    def _rename_root(self, impostor: Vnode) -> None:
        """Another kind of inode has the root's number: it gets one of its own."""
        vol = self._vol
        vol.vnodes.pop(impostor.ino)
        vol.dirty.pop(impostor.ino, None)
        impostor.ino = impostor.tree.ino = vol.new_ino()
        vol.vnodes[impostor.ino] = impostor
        for level, index, _at in list(impostor.tree.nodes()):
            impostor.tree.touch(level, index)
        vol.changed(impostor)
        self._links[impostor.ino] = 0

    def _new_root(self) -> None:
        vol = self._vol
        vol.free_inos.append(f.ROOT_INO)
        root = Namespace(vol).new(New(stat.S_IFDIR | 0o755, 0, 0), f.ROOT_INO)
        root.nlink = 2
        self._links[f.ROOT_INO] = 0

    # -- names

    def _names(self) -> None:
        self._walk(f.ROOT_INO, f.ROOT_INO)
        for ino in sorted(self._links.keys() - self._seen):
            if ino not in self._seen:
                self._unnamed(ino)
        for ino, links in self._links.items():
            v = self._vol.vnodes.get(ino)
            if v is not None and not v.is_dir and v.nlink != links:
                self._log("inode-links", ino, ino=ino, got=v.nlink, want=links)
                self._set(v, nlink=links)

    def _set(self, v: Vnode, **fields: int) -> None:
        for name, value in fields.items():
            setattr(v, name, value)
        self._vol.changed(v)

    def _walk(self, ino: int, parent: int) -> None:
        """All directories from one on."""
        self._seen.add(ino)
        todo = [(ino, parent)]
        while todo:
            here, above = todo.pop()
            todo += [(below, here) for below in self._directory(self._vol.vnodes[here], above)]

    def _directory(self, v: Vnode, parent: int) -> list[int]:
        """Check the names of a directory; the directories in it."""
        log, below, entries = self._log, [], 0
        log.summary.directories += 1
        for leaf in list(v.leaves.values()):
            for name, (ino, d_type) in list(leaf.names.items()):
                child = self._vol.vnodes.get(ino)
                if child is None or ino not in self._links:
                    log("name-dead", v.ino, name=name, ino=v.ino)
                    self._forget(v, leaf, name)
                    continue
                if child.is_dir and ino in self._seen:
                    log("dir-twice", v.ino, name=name, ino=ino)
                    self._forget(v, leaf, name)
                    continue
                if d_type != child.mode >> 12:
                    log("name-type", v.ino, name=name, ino=v.ino, got=d_type, want=child.mode >> 12)
                    leaf.put(name, (ino, child.mode >> 12))
                    self._vol.changed(v)
                self._seen.add(ino)
                self._links[ino] += 1
                entries += 1
                if child.is_dir:
                    below.append(ino)
        self._counts(v, parent, entries, len(below))
        return below

    def _forget(self, v: Vnode, leaf: Leaf, name: bytes) -> None:
        leaf.remove(name)
        self._vol.changed(v)

    def _counts(self, v: Vnode, parent: int, entries: int, subdirs: int) -> None:
        log, ino = self._log, v.ino
        if v.entries != entries:
            log("dir-entries", ino, ino=ino, got=v.entries, want=entries)
            self._set(v, entries=entries)
        if v.nlink != 2 + subdirs:
            log("inode-links", ino, ino=ino, got=v.nlink, want=2 + subdirs)
            self._set(v, nlink=2 + subdirs)
        if v.parent != parent:
            log("dir-parent", ino, ino=ino, got=v.parent, want=parent)
            self._set(v, parent=parent)

    def _unnamed(self, ino: int) -> None:
        """It gets a name in the root: `#` and its number. What a rebuilt map brought back, and
        nothing names, is left out, unless names were lost as well."""
        vol = self._vol
        v = vol.vnodes[ino]
        if self._rebuilt and not self._inodes.names_lost:
            vol.imap.set(ino, 0)
            vol.vnodes.pop(ino)
            vol.dirty.pop(ino, None)
            self._seen.add(ino)
            return
        self._log("inode-unnamed", ino, ino=ino)
        root = vol.vnodes[f.ROOT_INO]
        Namespace(vol).attach(root, b"#%d" % ino, v)
        self._links[ino] = 1
        if v.mode >> 12 == DT_DIR:
            root.nlink += 1
            self._walk(ino, f.ROOT_INO)
        else:
            self._seen.add(ino)
