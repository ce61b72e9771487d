"""Trees to copy, and what the tests compare of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from libfs.common.checking import Finding
from libfs.ffs import Ffs, Summary, check
from libfs.posix import Attr, FsError, Ino, Posix, User
from libfs.posix.copying import How
from tests.conformance.support import content, names_in
from tests.ffs.support import ROOT, UUID, _Shared
from xnfs import BlockDevice, FramePool, MemoryDevice, Xn, format_image

R, A = How(recursive=True), How(archive=True)


class Lab:
    """An FFS with its POSIX layer, on a disk in memory or on another."""

    def __init__(
        self,
        device: BlockDevice | None = None,
        *,
        blocks: int = 8192,
        frames: int = 4096,
        flags: int = 0,
        log_blocks: int | None = None,
    ) -> None:
        self.frames = frames
        self.device: BlockDevice = MemoryDevice(blocks) if device is None else device
        if device is None:
            format_image(self.device, uuid=UUID, label="test", log_blocks=log_blocks)
            xn = self._open()
            Ffs.mkfs(xn, xn.admin, "home", flags=flags)
            xn.close()
        self.mount()

    def _open(self) -> Xn:
        return Xn(_Shared(self.device), frames=FramePool(self.frames))  # type: ignore[arg-type]

    def mount(self) -> None:
        self.xn = self._open()
        self.fs = Ffs.mount(self.xn, self.xn.admin, "home")
        self.posix = Posix(self.fs)
        self.root = self.posix.root

    def close(self) -> None:
        self.posix.close()
        self.xn.close()

    def remount(self) -> None:
        self.close()
        self.mount()

    def findings(self) -> list[Finding]:
        """What the checker says of the image, which is closed for it and opened again."""
        self.close()
        xn = self._open()
        found: list[Finding] = []
        summary: Summary = check(xn, xn.admin, "home", repair=False, report=found.append)
        assert summary.inodes
        xn.close()
        self.mount()
        return found

    def at(self, path: str) -> Ino:
        ino = self.root
        for name in path.encode().split(b"/"):
            if name:
                ino = self.posix.lookup(ROOT, ino, name).ino
        return ino

    def copy(
        self,
        source: str,
        target: str,
        how: How = R,
        user: User = ROOT,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy to a new name."""
        head, _, name = target.rpartition("/")
        self.posix.copy_tree(user, self.at(source), self.at(head), name.encode(), how, pause=pause)

    def file(self, path: str, data: bytes = b"", *, mode: int = 0o644, user: User = ROOT) -> Ino:
        """A new file."""
        head, _, name = path.rpartition("/")
        attr, fh = self.posix.create(
            user, self.at(head), name.encode(), mode, os.O_RDWR | os.O_EXCL
        )
        for at in range(0, len(data), 4096):
            piece = data[at : at + 4096]
            if piece.strip(b"\0"):
                assert self.posix.write(fh, at, piece) == len(piece)
        self.posix.truncate(ROOT, attr.ino, len(data), fh)
        self.posix.release(fh)
        return attr.ino

    def directory(self, path: str, *, mode: int = 0o755, user: User = ROOT) -> Ino:
        """A new directory."""
        head, _, name = path.rpartition("/")
        return self.posix.mkdir(user, self.at(head), name.encode(), mode).ino

    def show(self, path: str, *, archive: bool = False) -> dict[str, tuple[object, ...]]:
        """All below a path: what a copy must have the same."""
        out: dict[str, tuple[object, ...]] = {}
        links: dict[Ino, str] = {}
        todo = [("", self.at(path))]
        while todo:
            name, ino = todo.pop()
            attr = self.posix.getattr(ROOT, ino)
            out[name] = self._shape(attr, archive=archive)
            if archive and not stat.S_ISDIR(attr.mode):
                out[name] += (links.setdefault(ino, name), attr.nlink)
            if stat.S_ISDIR(attr.mode):
                found = sorted(names_in(self.posix, ino), reverse=True)
                lookup = self.posix.lookup
                todo += [(f"{name}/{n.decode()}", lookup(ROOT, ino, n).ino) for n in found]
        return out

    def _shape(self, attr: Attr, *, archive: bool) -> tuple[object, ...]:
        kind, posix = stat.S_IFMT(attr.mode), self.posix
        shape: tuple[object, ...] = (kind, attr.mode & 0o777)
        if kind == stat.S_IFREG:
            shape += (attr.size, content(posix, attr.ino), self.holes(attr))
        elif kind == stat.S_IFLNK:
            shape += (posix.readlink(ROOT, attr.ino),)
        else:
            shape += (attr.rdev,)
        if archive:
            values = {n: posix.getxattr(ROOT, attr.ino, n) for n in posix.listxattr(ROOT, attr.ino)}
            shape += (attr.mode, attr.uid, attr.gid, attr.mtime, sorted(values.items()))
        return shape

    def holes(self, attr: Attr) -> list[int]:
        """Where data and holes begin, by turns."""
        fh = self.posix.open(ROOT, attr.ino, os.O_RDONLY)
        out, at = [], 0
        try:
            while at < attr.size:
                for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                    at = self.posix.lseek(fh, at, whence)
                    out.append(at)
        except FsError:
            pass
        self.posix.release(fh)
        return out


def fill_with_everything(lab: Lab, path: str, many: int = 300) -> None:
    """One of each kind of thing that a directory can hold."""
    posix = lab.posix
    root = lab.directory(path)
    lab.directory(f"{path}/empty", mode=0o711)
    for size in (0, 1, 2560, 2561, 4096, 4097, 50_000):
        lab.file(f"{path}/size-{size}", bytes(i * 7 % 251 for i in range(size)), mode=0o640)
    lab.file(f"{path}/large", os.urandom(1 << 12) * 100 + b"end")
    sparse = bytearray(1_000_000)
    for at in (5, 40_000, 400_000, 400_001, 900_000):
        sparse[at : at + 5000] = b"x" * 5000
    lab.file(f"{path}/sparse", bytes(sparse))
    lab.file(f"{path}/hole", bytes(100_000))
    reserved = lab.file(f"{path}/reserved", b"r" * 5000)
    fh = posix.open(ROOT, reserved, os.O_RDWR)
    posix.fallocate(fh, 0, 20_000, 40_000)
    posix.release(fh)
    posix.symlink(ROOT, root, b"short", b"size-1")
    posix.symlink(ROOT, root, b"long", b"t" * 3000)
    posix.mknod(ROOT, root, b"fifo", stat.S_IFIFO | 0o600)
    posix.mknod(ROOT, root, b"device", stat.S_IFCHR | 0o600, 0x103)
    script = lab.file(f"{path}/script", b"#!", mode=0o755)
    posix.setattr(ROOT, script, mode=0o4755)
    posix.setattr(ROOT, lab.at(f"{path}/size-1"), uid=1000, gid=1001, mtime=12345, atime=678)
    posix.setxattr(ROOT, script, b"user.small", b"value")
    posix.setxattr(ROOT, script, b"user.large", b"v" * 1500)
    posix.setxattr(ROOT, script, b"trusted.t", b"t")
    posix.link(ROOT, script, root, b"script-2")
    deep = f"{path}/sub"
    for level in range(3):
        lab.directory(deep, mode=0o555 if level else 0o755)
        lab.file(f"{deep}/file", b"%d" % level)
        deep += "/sub"
    posix.link(ROOT, script, lab.at(f"{path}/sub/sub"), b"script-3")
    lab.directory(f"{path}/many")
    for number in range(many):
        lab.file(f"{path}/many/name-{number}", b"%d" % number)
    for ino in (lab.at(f"{path}/sub"), lab.at(f"{path}/many"), root):
        posix.setattr(ROOT, ino, mtime=1_000_000_007, atime=999)
