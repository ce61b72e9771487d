"""Random operations, made on a real file system and on the model alike.

An operation is a tuple of small integers (kind, a, b, c): the operands choose among what is alive,
so that any sequence is valid, and hypothesis can shrink it. What does not fit (rmdir of a full
directory, ...) is skipped.
"""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Callable, Sequence

from libfs.posix.interface import (
    Change,
    FileSystem,
    FsError,
    Ino,
    New,
    User,
)
from xnfs_trials.crash.model import BLOCK, Model, Node, Record, tagged

Op = tuple[str, int, int, int]

#: kind -> weight in a random sequence
KINDS = {
    "create": 10,
    "mkdir": 4,
    "symlink": 1,
    "link": 4,
    "unlink": 6,
    "rmdir": 2,
    "rename": 8,
    "exchange": 2,
    "write": 14,
    "append": 6,
    "truncate": 4,
    "allocate": 2,
    "punch": 2,
    "zero": 2,
    "chmod": 3,
    "setxattr": 3,
    "removexattr": 1,
    "fsync": 10,
    "fdatasync": 3,
    "sync": 3,
    "evict": 3,
    "writeback": 2,
    "idle": 1,
    "fill": 2,
}
#: What is done more often, by mode: each brings up other histories.
MODES: tuple[tuple[str, ...], ...] = (
    (),
    ("create", "link", "unlink", "rename", "rename", "exchange", "mkdir", "rmdir", "fsync"),
    ("write", "append", "truncate", "allocate", "punch", "zero", "writeback", "fsync"),
    ("allocate", "allocate", "write", "write", "rename", "fsync", "sync", "writeback"),
    ("write", "unlink", "create", "writeback", "fsync", "truncate"),
    ("fill", "fill", "unlink", "unlink", "unlink", "rename", "fsync"),
)
MAX_FILE = 12 * BLOCK
ROOT = User(0, 0)
_SKIP = {errno.ENOSPC, errno.EDQUOT, errno.EMLINK, errno.EFBIG, errno.ENOMEM}


def random_ops(rng: random.Random, count: int) -> list[Op]:
    """A seeded sequence."""
    more = rng.choice(MODES)
    kinds = list(KINDS)
    weights = [weight + 12 * more.count(kind) for kind, weight in KINDS.items()]
    return [
        (kind, rng.randrange(256), rng.randrange(256), rng.randrange(256))
        for kind in rng.choices(kinds, weights, k=count)
    ]


class Workload:
    """Applies operations. `events` tells how many events the recording device has seen."""

    def __init__(
        self,
        fs: FileSystem,
        events: Callable[[], int],
        *,
        evict: Callable[[int], None] = lambda n: None,
        writeback: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.fs = fs
        self.events = events
        self.model = Model(int(fs.root), fs.getattr(fs.root).mode)
        self.marks: list[int] = []  # marks[v]: events before version v+1 began
        self.log: list[str] = []
        self._fid = 0
        self._evict, self._writeback = evict, writeback
        self.ack_all()

    def ack_all(self) -> None:
        """Everything is durable now."""
        self.model.ack(self.model.live(), self.events())

    def run(self, ops: Sequence[Op]) -> None:
        """All of them."""
        for op in ops:
            self.apply(op)

    def apply(self, op: Op) -> None:
        """One operation: on the file system, then on the model."""
        self.marks.append(self.events())
        self.model.version += 1
        kind, a, b, c = op
        try:
            text = getattr(self, "_op_" + kind)(a, b, c)
        except FsError as error:
            if error.errno not in _SKIP:
                raise
            text = f"{kind}: {errno.errorcode[error.errno or 0]}"
            self._reread()
        self.log.append(f"v{self.model.version} {text or kind + ': skipped'}")

    # -- choosing

    def _pick(self, index: int, kind: int) -> Node | None:
        found = [n for n in self.model.live() if stat.S_IFMT(n.now.mode) == kind]
        return found[index % len(found)] if found else None

    def _dir(self, index: int) -> Node:
        node = self._pick(index, stat.S_IFDIR)
        assert node is not None
        return node

    def _name(self, index: int) -> bytes:
        """A few short names that collide, and some long ones that fill directories."""
        return b"f%d" % (index % 12) if index < 200 else (b"long-%d-" % index).ljust(180, b"x")

    def _entry(self, a: int, b: int) -> tuple[Node, bytes, Node] | None:
        found = [
            (d, name, child)
            for d in self.model.live()
            if d.is_dir
            for name, child in sorted(self.model.entries(d).items())
        ]
        return found[(a * 256 + b) % len(found)] if found else None

    # -- names

    def _make(self, a: int, b: int, mode: int, target: bytes = b"") -> str | None:
        parent, name = self._dir(a), self._name(b)
        if name in self.model.entries(parent):
            return None
        new = New(mode, 0, 0, target=target)
        ino = self.fs.create(ROOT, Ino(parent.ino), name, new)
        is_dir = stat.S_ISDIR(mode)
        record = Record(mode, nlink=2 if is_dir else 0, target=target, size=len(target))
        node = self.model.add(int(ino), record)
        self.model.bind(parent, name, node)
        return f"create {mode:o} {parent.ino}/{name!r} = {ino}"

    def _op_create(self, a: int, b: int, c: int) -> str | None:
        return self._make(a, b, stat.S_IFREG | 0o644)

    def _op_mkdir(self, a: int, b: int, c: int) -> str | None:
        return self._make(a, b, stat.S_IFDIR | 0o755)

    def _op_symlink(self, a: int, b: int, c: int) -> str | None:
        return self._make(a, b, stat.S_IFLNK | 0o777, b"t" * (1 + c))

    def _op_fill(self, a: int, b: int, c: int) -> str | None:
        """Many names of one file in one directory: makes it split."""
        parent, node = self._dir(a), self._pick(b, stat.S_IFREG)
        if node is None:
            return None
        for i in range(c % 24):
            name = (b"fill-%d-%d" % (self.model.version, i)).ljust(200, b"y")
            self.fs.link(ROOT, Ino(node.ino), Ino(parent.ino), name)
            self.model.bind(parent, name, node)
            self._next_version()
        return f"fill {parent.ino} with {c % 24} names of {node.ino}"

    def _next_version(self) -> None:
        """One operation of the workload is several of the file system."""
        self.marks.append(self.events())
        self.model.version += 1

    def _op_link(self, a: int, b: int, c: int) -> str | None:
        parent, name, node = self._dir(a), self._name(b), self._pick(c, stat.S_IFREG)
        if node is None or name in self.model.entries(parent):
            return None
        self.fs.link(ROOT, Ino(node.ino), Ino(parent.ino), name)
        self.model.bind(parent, name, node)
        return f"link {node.ino} {parent.ino}/{name!r}"

    def _drop(self, parent: Node, name: bytes, child: Node) -> None:
        self.model.unbind(parent, name, child)
        if not child.now.names:
            self.model.bury(child)

    def _remove(self, a: int, b: int, *, directory: bool) -> str | None:
        entry = self._entry(a, b)
        if entry is None or entry[2].is_dir != directory or self.model.entries(entry[2]):
            return None
        parent, name, child = entry
        self.fs.unlink(ROOT, Ino(parent.ino), name, keep=False)
        self._drop(parent, name, child)
        return f"remove {parent.ino}/{name!r} = {child.ino}"

    def _op_unlink(self, a: int, b: int, c: int) -> str | None:
        return self._remove(a, b, directory=False)

    def _op_rmdir(self, a: int, b: int, c: int) -> str | None:
        return self._remove(a, b, directory=True)

    def _inside(self, node: Node, directory: Node) -> bool:
        """Is `node` the directory or one of its ancestors?"""
        while directory is not node and directory.now.names:
            parent = next(iter(directory.now.names))[0]
            directory = next(n for n in self.model.by_ino[parent] if not n.dead)
        return directory is node

    def _op_rename(self, a: int, b: int, c: int) -> str | None:
        entry, parent, new_name = self._entry(a, b), self._dir(c), self._name(a ^ c)
        if entry is None:
            return None
        src, name, child = entry
        old = self.model.entries(parent).get(new_name)
        if old is child or (child.is_dir and self._inside(child, parent)):
            return None
        if old and (old.is_dir != child.is_dir or self.model.entries(old)):
            return None
        self.fs.rename(ROOT, Ino(src.ino), name, Ino(parent.ino), new_name, keep=False)
        if old:
            self._drop(parent, new_name, old)
        self.model.unbind(src, name, child)
        self.model.bind(parent, new_name, child)
        return f"rename {src.ino}/{name!r} = {child.ino} to {parent.ino}/{new_name!r}"

    def _op_exchange(self, a: int, b: int, c: int) -> str | None:
        one, two = self._entry(a, b), self._entry(b, c)
        if one is None or two is None or one[2] is two[2]:
            return None
        (d, n, x), (e, m, y) = one, two
        if (x.is_dir and self._inside(x, e)) or (y.is_dir and self._inside(y, d)):
            return None
        self.fs.exchange(ROOT, Ino(d.ino), n, Ino(e.ino), m)
        self.model.unbind(d, n, x)
        self.model.unbind(e, m, y)
        self.model.bind(d, n, y)
        self.model.bind(e, m, x)
        return f"exchange {d.ino}/{n!r} and {e.ino}/{m!r}"

    # -- bytes

    def _write(self, node: Node, offset: int, size: int) -> str:
        data = tagged(node.number, offset, size, self.model.stamp)
        done = self.fs.write(ROOT, Ino(node.ino), offset, data, kill_suid=False)
        old = node.data.ljust(offset, b"\0")
        self.model.set_data(node, old[:offset] + data[:done] + old[offset + done :])
        return f"write {node.ino} {offset}+{size} ({done})"

    def _op_write(self, a: int, b: int, c: int) -> str | None:
        node = self._pick(a, stat.S_IFREG)
        sizes = (16, 512, 2560, BLOCK, 3 * BLOCK, BLOCK + 512)
        offset = (0, BLOCK, 512 * (b // 4), 16 * b)[b % 4]
        return self._write(node, offset, sizes[c % len(sizes)]) if node else None

    def _op_append(self, a: int, b: int, c: int) -> str | None:
        node = self._pick(a, stat.S_IFREG)
        if node is None or len(node.data) > MAX_FILE:
            return None
        return self._write(node, len(node.data) // 16 * 16, 16 * (1 + b * c % 512))

    def _op_truncate(self, a: int, b: int, c: int) -> str | None:
        node = self._pick(a, stat.S_IFREG)
        if node is None:
            return None
        size = (0, 512 * b % MAX_FILE, 16 * b * c % MAX_FILE, len(node.data) // 32 * 16)[c % 4]
        self.fs.truncate(ROOT, Ino(node.ino), size, kill_suid=False)
        self.model.set_data(node, node.data[:size].ljust(size, b"\0"))
        return f"truncate {node.ino} to {size}"

    def _range(self, a: int, b: int, c: int) -> tuple[Node, int, int] | None:
        node = self._pick(a, stat.S_IFREG)
        return (node, 512 * (b % 40), 512 * (1 + c % 40)) if node else None

    def _op_allocate(self, a: int, b: int, c: int) -> str | None:
        if (r := self._range(a, b, c)) is None:
            return None
        node, offset, length = r
        keep = bool(c & 1)
        self.fs.allocate(ROOT, Ino(node.ino), offset, length, keep_size=keep)
        if not keep:
            self.model.set_data(node, node.data.ljust(offset + length, b"\0"))
        return f"allocate {node.ino} {offset}+{length} keep={keep}"

    def _zeroed(self, node: Node, offset: int, length: int) -> bytes:
        end = min(len(node.data), offset + length)
        hole = bytes(max(0, end - offset))
        return node.data[:offset] + hole + node.data[max(offset, end) :]

    def _op_punch(self, a: int, b: int, c: int) -> str | None:
        if (r := self._range(a, b, c)) is None:
            return None
        node, offset, length = r
        self.fs.punch(ROOT, Ino(node.ino), offset, length)
        self.model.set_data(node, self._zeroed(node, offset, length))
        return f"punch {node.ino} {offset}+{length}"

    def _op_zero(self, a: int, b: int, c: int) -> str | None:
        if (r := self._range(a, b, c)) is None:
            return None
        node, offset, length = r
        keep = bool(c & 1)
        self.fs.zero_range(ROOT, Ino(node.ino), offset, length, keep_size=keep)
        data = self._zeroed(node, offset, length)
        self.model.set_data(node, data if keep else data.ljust(offset + length, b"\0"))
        return f"zero {node.ino} {offset}+{length} keep={keep}"

    # -- attributes

    def _op_chmod(self, a: int, b: int, c: int) -> str | None:
        live = self.model.live()
        node = live[a % len(live)]
        mode = stat.S_IFMT(node.now.mode) | 0o700 | (b & 0o77)
        self.fs.setattr(ROOT, Ino(node.ino), Change(mode=mode, uid=c))
        self.model.set(node, mode=mode, uid=c)
        return f"chmod {node.ino} {mode:o} uid {c}"

    def _op_setxattr(self, a: int, b: int, c: int) -> str | None:
        live = [n for n in self.model.live() if not stat.S_ISLNK(n.now.mode)]
        node = live[a % len(live)]
        name = b"user.x%d" % (b % 3)
        value = bytes([c]) * (c * 8)
        self.fs.setxattr(ROOT, Ino(node.ino), name, value, 0)
        left = frozenset(x for x in node.now.xattrs if x[0] != name)
        self.model.set(node, xattrs=left | {(name, value)})
        return f"setxattr {node.ino} {name!r} {len(value)} bytes"

    def _op_removexattr(self, a: int, b: int, c: int) -> str | None:
        live = [n for n in self.model.live() if n.now.xattrs]
        if not live:
            return None
        node = live[a % len(live)]
        name = sorted(node.now.xattrs)[b % len(node.now.xattrs)][0]
        self.fs.removexattr(ROOT, Ino(node.ino), name)
        self.model.set(node, xattrs=frozenset(x for x in node.now.xattrs if x[0] != name))
        return f"removexattr {node.ino} {name!r}"

    # -- durability

    def _op_fsync(self, a: int, b: int, c: int) -> str:
        live = self.model.live()
        node = live[a % len(live)]
        self.fs.sync([Ino(node.ino)])
        self.model.ack([node], self.events())
        return f"fsync {node.ino}"

    def _op_fdatasync(self, a: int, b: int, c: int) -> str | None:
        node = self._pick(a, stat.S_IFREG)
        if node is None:
            return None
        self.fs.sync([Ino(node.ino)], data_only=True)
        self.model.ack([node], self.events(), data_only=True)
        return f"fdatasync {node.ino}"

    def _op_sync(self, a: int, b: int, c: int) -> str:
        self.fs.sync(None)
        self.ack_all()
        return "sync"

    def _op_evict(self, a: int, b: int, c: int) -> str:
        self._evict(a)
        return "evict"

    def _op_writeback(self, a: int, b: int, c: int) -> str:
        self._writeback(a)
        return "writeback"

    def _op_idle(self, a: int, b: int, c: int) -> str:
        self.fs.idle()
        return "idle"

    # -- after an error

    def _reread(self) -> None:
        """A call failed for want of room: what it did before is learnt from the file system."""
        for node in self.model.live():
            attr = self.fs.getattr(Ino(node.ino))
            if stat.S_ISREG(node.now.mode) and attr.size < 1 << 20:
                data = bytes(self.fs.read(Ino(node.ino), 0, attr.size))
                if data != node.data:
                    self.model.set_data(node, data)
