"""Operations made on a mounted file system, through the POSIX layer, and on the model alike.

What does not fit the tree as it stands is skipped, and so is what a file system does not have. An
answer that no file system should give is noted as trouble. After a failure of the device (EIO)
nothing is assumed of the call that met it; after a lack of room, how much of it was done is asked
of the file system.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from libfs.posix import RENAME_EXCHANGE, Fh, FsError, Ino, Posix
from libfs.posix.data import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE
from xnfs_trials.crash.model import TAG_XATTR, Model, Node, Record, tagged
from xnfs_trials.crash.ops import KINDS, Op
from xnfs_trials.crash.trees import ROOT, read_file

#: What a file system may answer for want of room, or because it does not have the call.
LIMITS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMLINK, errno.EFBIG, errno.ENOMEM, errno.EOPNOTSUPP}
)


class Runner:
    """Makes operations on a file system and on the model. `events` says how many writes and flushes
    the device has seen; `writeback`, `evict` and `collect` make the calls of the kernel."""

    def __init__(
        self,
        posix: Posix,
        model: Model,
        events: Callable[[], int],
        *,
        writeback: Callable[[int], None] = lambda n: None,
        evict: Callable[[int], None] = lambda n: None,
        collect: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.posix, self.model, self.events = posix, model, events
        self.marks: list[int] = []  # marks[v]: events before version v+1 began
        self.log: list[str] = []
        self.trouble: list[str] = []  # answers that no file system should give
        self._held: dict[int, Fh] = {}  # number of a node -> an open handle
        self._kernel = {"writeback": writeback, "evict": evict, "collect": collect}
        self._calls: dict[str, Callable[[Op], bool]] = {
            kind: self._to_kernel if kind in self._kernel else getattr(self, "_" + kind)
            for kind in KINDS
        }

    def run(self, ops: Sequence[Op]) -> None:
        """All of them."""
        for op in ops:
            self.apply(op)

    def apply(self, op: Op) -> None:
        """One: a new version of the model."""
        self.marks.append(self.events())
        self.model.version += 1
        note = ""
        try:
            if not self._calls[op.kind](op):
                note = " (skipped)"
        except FsError as error:
            note = f" ({errno.errorcode.get(error.errno or 0, '?')})"
            if error.errno == errno.EIO:
                pass  # the device failed, and it says so: nothing was promised
            elif error.errno in LIMITS:
                self._learn()
            else:
                self.trouble.append(f"O4: {op} is answered with {error}")
        self.log.append(f"v{self.model.version} {op}{note}")

    # -- finding

    def _node(self, path: str) -> Node | None:
        """What the model has under a path; the file system must find the same."""
        node = self.model.nodes[1]
        for name in [n.encode() for n in path.split("/") if n]:
            if not node.is_dir:
                return None
            found = self.model.entries(node).get(name)
            if found is None:
                return None
            self._look_up(node, name, found)
            node = found
        return node

    def _look_up(self, directory: Node, name: bytes, want: Node) -> None:
        got = self.posix.lookup(ROOT, Ino(directory.ino), name).ino
        if int(got) != want.ino:
            self.trouble.append(f"O4: {name!r} is inode {got}, not {want.ino}")

    def _place(self, path: str) -> tuple[Node, bytes, Node | None] | None:
        """The directory of a path, the last name, and what is there."""
        above, _, name = path.rpartition("/")
        parent = self._node(above)
        if parent is None or not parent.is_dir or not name:
            return None
        found = self.model.entries(parent).get(name.encode())
        if found is not None:
            self._look_up(parent, name.encode(), found)
        return parent, name.encode(), found

    def _file(self, path: str) -> Node | None:
        node = self._node(path)
        return node if node is not None and stat.S_ISREG(node.now.mode) else None

    # -- names

    def _make(self, op: Op, mode: int) -> bool:
        place = self._place(op.path)
        if place is None or place[2] is not None:
            return False
        parent, name, _ = place
        target = b""
        number = self.model.last + 1
        if stat.S_ISDIR(mode):
            attr = self.posix.mkdir(ROOT, Ino(parent.ino), name, mode & 0o777)
        elif stat.S_ISLNK(mode):
            target = b"to-%d-%d" % (number, self.model.stamp)
            attr = self.posix.symlink(ROOT, Ino(parent.ino), name, target)
        else:
            attr = self.posix.mknod(ROOT, Ino(parent.ino), name, mode)
        nlink = 2 if stat.S_ISDIR(mode) else 0
        record = Record(mode, nlink=nlink, target=target, size=len(target))
        self.model.bind(parent, name, self.model.add(int(attr.ino), record))
        return True

    def _create(self, op: Op) -> bool:
        return self._make(op, stat.S_IFREG | 0o644)

    def _mkdir(self, op: Op) -> bool:
        return self._make(op, stat.S_IFDIR | 0o755)

    def _symlink(self, op: Op) -> bool:
        return self._make(op, stat.S_IFLNK | 0o777)

    def _link(self, op: Op) -> bool:
        node, place = self._node(op.path), self._place(op.to)
        if node is None or node.is_dir or place is None or place[2] is not None:
            return False
        parent, name, _ = place
        self.posix.link(ROOT, Ino(node.ino), Ino(parent.ino), name)
        self.model.bind(parent, name, node)
        return True

    def _drop(self, parent: Node, name: bytes, child: Node) -> None:
        self.model.unbind(parent, name, child)
        if not child.now.names and child.number not in self._held:
            self.model.bury(child)

    def _unlink(self, op: Op) -> bool:
        place = self._place(op.path)
        if place is None or place[2] is None or place[2].is_dir:
            return False
        self.posix.unlink(ROOT, Ino(place[0].ino), place[1])
        self._drop(place[0], place[1], place[2])
        return True

    def _rmdir(self, op: Op) -> bool:
        place = self._place(op.path)
        if place is None or place[2] is None or not place[2].is_dir:
            return False
        if self.model.entries(place[2]):
            return False
        self.posix.rmdir(ROOT, Ino(place[0].ino), place[1])
        self._drop(place[0], place[1], place[2])
        return True

    def _inside(self, node: Node, directory: Node) -> bool:
        """Is `node` the directory, or above it?"""
        while directory is not node and directory.now.names:
            parent = next(iter(directory.now.names))[0]
            directory = next(n for n in self.model.by_ino[parent] if not n.dead)
        return directory is node

    def _rename(self, op: Op) -> bool:
        source, target = self._place(op.path), self._place(op.to)
        if source is None or target is None or (child := source[2]) is None:
            return False
        (src, name, _), (dst, new, old) = source, target
        if old is child:
            self.posix.rename(ROOT, Ino(src.ino), name, Ino(dst.ino), new)
            return True  # two names of one file: nothing happens
        if child.is_dir and self._inside(child, dst):
            return False
        if old is not None and (old.is_dir != child.is_dir or self.model.entries(old)):
            return False
        self.posix.rename(ROOT, Ino(src.ino), name, Ino(dst.ino), new)
        if old is not None:
            self._drop(dst, new, old)
        self.model.unbind(src, name, child)
        self.model.bind(dst, new, child)
        return True

    _replace = _rename

    def _exchange(self, op: Op) -> bool:
        one, two = self._place(op.path), self._place(op.to)
        if one is None or two is None or one[2] is None or two[2] is None:
            return False
        (d, n, _), (e, m, _), x, y = one, two, one[2], two[2]
        if x is y:
            self.posix.rename(ROOT, Ino(d.ino), n, Ino(e.ino), m, RENAME_EXCHANGE)
            return True
        if (x.is_dir and self._inside(x, e)) or (y.is_dir and self._inside(y, d)):
            return False
        self.posix.rename(ROOT, Ino(d.ino), n, Ino(e.ino), m, RENAME_EXCHANGE)
        self.model.unbind(d, n, x)
        self.model.unbind(e, m, y)
        self.model.bind(d, n, y)
        self.model.bind(e, m, x)
        return True

    def _hold(self, op: Op) -> bool:
        node = self._file(op.path)
        if node is None or node.number in self._held:
            return False
        self._held[node.number] = self.posix.open(ROOT, Ino(node.ino), os.O_RDWR)
        return True

    def _release(self, op: Op) -> bool:
        held, self._held = self._held, {}
        for number, fh in held.items():
            self.posix.release(fh)
            if not self.model.nodes[number].now.names:
                self.model.bury(self.model.nodes[number])
        return bool(held)

    # -- bytes

    def _with(self, node: Node, act: Callable[[Fh], int | None]) -> int:
        fh = self.posix.open(ROOT, Ino(node.ino), os.O_RDWR)
        try:
            return act(fh) or 0
        finally:
            self.posix.release(fh)

    def _put(self, node: Node, offset: int, size: int) -> bool:
        data = tagged(node.number, offset, size, self.model.stamp)
        done = self._with(node, lambda fh: self.posix.write(fh, offset, data))
        old = node.data.ljust(offset, b"\0")
        self.model.set_data(node, old[:offset] + data[:done] + old[offset + done :])
        return True

    def _write(self, op: Op) -> bool:
        node = self._file(op.path)
        return node is not None and self._put(node, op.at, op.size)

    _overwrite = _write

    def _append(self, op: Op) -> bool:
        node = self._file(op.path)
        return node is not None and self._put(node, len(node.data) // 16 * 16, op.size)

    def _mwrite(self, op: Op) -> bool:
        done = self._write(op)
        self._kernel["writeback"](op.at + op.size)
        return done

    def _truncate(self, op: Op) -> bool:
        node = self._file(op.path)
        if node is None:
            return False
        self.posix.truncate(ROOT, Ino(node.ino), op.size)
        self.model.set_data(node, node.data[: op.size].ljust(op.size, b"\0"))
        return True

    def _range(self, op: Op, mode: int, *, zero: bool) -> bool:
        node = self._file(op.path)
        if node is None:
            return False
        keep = bool(mode & FALLOC_FL_KEEP_SIZE)
        self._with(node, lambda fh: self.posix.fallocate(fh, mode, op.at, op.size))
        data, end = node.data, op.at + op.size
        if zero and op.at < len(data):
            hole = min(len(data), end) - op.at
            data = data[: op.at] + bytes(hole) + data[op.at + hole :]
        self.model.set_data(node, data if keep else data.ljust(end, b"\0"))
        return True

    def _allocate(self, op: Op) -> bool:
        return self._range(op, FALLOC_FL_KEEP_SIZE if op.keep else 0, zero=False)

    def _punch(self, op: Op) -> bool:
        return self._range(op, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, zero=True)

    def _zero(self, op: Op) -> bool:
        keep = FALLOC_FL_KEEP_SIZE if op.keep else 0
        return self._range(op, FALLOC_FL_ZERO_RANGE | keep, zero=True)

    # -- attributes

    def _chmod(self, op: Op) -> bool:
        node = self._node(op.path)
        if node is None:
            return False
        mode = 0o700 | op.size & 0o77
        self.posix.setattr(ROOT, Ino(node.ino), mode=mode)
        self.model.set(node, mode=stat.S_IFMT(node.now.mode) | mode)
        return True

    def _setxattr(self, op: Op) -> bool:
        node = self._node(op.path)
        if node is None or stat.S_ISLNK(node.now.mode):
            return False
        name = b"user.x%d" % op.at
        value = tagged(node.number, 16 * op.at, op.size, self.model.stamp, TAG_XATTR)
        self.posix.setxattr(ROOT, Ino(node.ino), name, value)
        left = frozenset(x for x in node.now.xattrs if x[0] != name)
        self.model.set(node, xattrs=left | {(name, value)})
        return True

    def _removexattr(self, op: Op) -> bool:
        node = self._node(op.path)
        name = b"user.x%d" % op.at
        if node is None or all(x[0] != name for x in node.now.xattrs):
            return False
        self.posix.removexattr(ROOT, Ino(node.ino), name)
        self.model.set(node, xattrs=frozenset(x for x in node.now.xattrs if x[0] != name))
        return True

    # -- durability

    def _fsync(self, op: Op) -> bool:
        return self._sync_one(op, data_only=False)

    def _fdatasync(self, op: Op) -> bool:
        return self._sync_one(op, data_only=True)

    def _sync_one(self, op: Op, *, data_only: bool) -> bool:
        node = self._node(op.path)
        if node is None:
            return False
        self.posix.fsync_inodes([Ino(node.ino)], datasync=data_only)
        self.model.ack([node], self.events(), data_only=data_only)
        return True

    def _sync(self, op: Op) -> bool:
        self.posix.sync()
        self.model.ack(self.model.live(), self.events())
        return True

    def _to_kernel(self, op: Op) -> bool:
        self._kernel[op.kind](op.size)
        return True

    def _idle(self, op: Op) -> bool:
        self.posix.idle()
        return True

    # -- after an error

    def _learn(self) -> None:
        """A call failed for want of room: how much of it was done is asked of the file system."""
        todo = [self.model.nodes[1]]
        seen: set[int] = set()
        while todo:
            directory = todo.pop()
            for name, node in self.model.entries(directory).items():
                self._look_up(directory, name, node)
                if node.is_dir:
                    todo.append(node)
                elif stat.S_ISREG(node.now.mode) and node.number not in seen:
                    seen.add(node.number)
                    self._learn_file(node)

    def _learn_file(self, node: Node) -> None:
        size = self.posix.getattr(ROOT, Ino(node.ino)).size
        data = read_file(self.posix, Ino(node.ino), size)
        if data != node.data:
            self.model.set_data(node, data)
