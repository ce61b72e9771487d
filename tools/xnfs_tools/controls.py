"""What root, or who mounted, may ask of a server: `xnfs mv` from one of its file systems to
another, and `xnfs snapshot`.

A request is words, the first of which says what is wanted (`libfs.kernel.controls` brings them); it
is carried out by a thread of the mount that was asked. Whatever was written to a mount before has
been handed over by whoever asks (`write_back`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from libfs.formats import Snapshotting
from libfs.kernel.group import Group
from libfs.kernel.mounting import MountFailed
from libfs.kernel.session import Mount
from libfs.posix import FsError, Posix
from xnfs import READ, Caller, Xn, XnError
from xnfs_tools.command import Failed
from xnfs_tools.mountopts import MountOptions
from xnfs_tools.session import ROOT, Session
from xnfs_tools.transfer import Side, Transfer


class _Served(NamedTuple):
    side: Side
    mount: Mount


class Controls:
    """See the module. Of one image."""

    def __init__(self, xn: Xn, image: str, options: MountOptions, group: Group) -> None:
        self._xn = xn
        self._image = image
        self._options = options
        self._group = group
        self._all: list[_Served] = []

    def serve(self, side: Side, mount: Mount) -> None:
        """Requests may come through this mount."""
        self._all.append(_Served(side, mount))
        mount.controlled_by(partial(self._do, side))

    def _do(self, side: Side, words: Sequence[bytes]) -> bytes:
        """Raises: FsError: EINVAL (no such request), and what the request does."""
        known = _REQUESTS.get((words[0], len(words)))
        if known is None:
            raise FsError(errno.EINVAL)
        return known(self, side, *(os.fsdecode(word) for word in words[1:]))

    # -- moving

    def _move(self, src: Side, path: str, root: str, to_path: str) -> bytes:
        """A path, a root and a path there.

        Raises: FsError: ENXIO (no such root here), EBUSY (it is in use; what the host kernel only
        remembers, it is asked to forget, so asking again may help), EXDEV, EISDIR, EMLINK, …
        """
        dst = next((each.side for each in self._all if each.side.root == root), None)
        if dst is None or dst.root == src.root:
            raise FsError(errno.ENXIO)
        try:
            parent, name = Session(self._image, self._xn, src.posix).parent(path)
            sink, new_name = Session(self._image, self._xn, dst.posix).target(to_path, name)
        except Failed:
            raise FsError(errno.ENOENT) from None
        moved = False
        try:
            Transfer(Caller(self._xn.admin), src, dst).quick(parent, name, sink, new_name)
            moved = True
        finally:
            for side, mount in self._all:
                if side.root == src.root:
                    mount.notices.name_changed(parent, name)
                    mount.notices.data_changed(parent)
                elif side.root == dst.root and moved:
                    mount.notices.name_changed(sink, new_name)
                    mount.notices.data_changed(sink)
        return b""

    # -- snapshots

    def _live(self, asked: Side, root: str) -> Side:
        """The side of a root; of none, the one that is meant then. Raises: ENXIO."""
        sides = {each.side.root: each.side for each in self._all}
        side = sides.get(root or ROOT, None if root else asked)
        if side is None:
            raise FsError(errno.ENXIO, f"its file system '{root}' is not mounted")
        return side

    @contextlib.contextmanager
    def _still(self, side: Side) -> Iterator[Snapshotting]:
        """The file system, which stands still meanwhile. Raises: EOPNOTSUPP."""
        if side.kind is None or not side.kind.snapshots or not isinstance(side.fs, Snapshotting):
            kind = "this kind of file system" if side.kind is None else side.kind.name
            raise FsError(errno.EOPNOTSUPP, f"{kind} has no snapshots")
        with side.posix.locked():
            yield side.fs

    def _create(self, asked: Side, root: str, name: str) -> bytes:
        """Raises: FsError, as `Snapshotting.snapshot`."""
        side = self._live(asked, root)
        with self._still(side) as fs:
            side.posix.core.check_writable()
            fs.snapshot(name)
        return b""

    def _delete(self, asked: Side, root: str, name: str) -> bytes:
        """Raises: FsError, as `Snapshotting.delete_snapshot`; EBUSY: it is mounted."""
        side = self._live(asked, root)
        with self._still(side) as fs:
            side.posix.core.check_writable()
            for each in self._all:
                if each.side.root == f"{side.root}@{name}" and self._group.serves(each.mount):
                    raise FsError(errno.EBUSY, f"it is mounted on {each.mount.directory}")
            fs.delete_snapshot(name)
        return b""

    def _list(self, asked: Side, root: str) -> bytes:
        """Time and name of each, with NULs between."""
        with self._still(self._live(asked, root)) as fs:
            told = [word for name, taken in fs.snapshots() for word in (str(taken), name)]
        return "\0".join(told).encode()

    def _mount(self, asked: Side, root: str, name: str, directory: str) -> bytes:
        """Serve a snapshot as well, for whom the file system itself is served.

        Raises: FsError: ENOENT (no such snapshot), ENOTDIR, EIO (it can't be mounted).
        """
        live = self._live(asked, root)
        if not stat.S_ISDIR(os.stat(directory).st_mode):
            raise FsError(errno.ENOTDIR)
        with self._still(live):
            assert live.kind is not None  # it has snapshots
            try:
                cap = self._xn.narrow(Caller(self._xn.admin), live.root, READ)
                fs = live.kind.mount(self._xn, cap, live.root, readonly=True, snapshot=name)
            except XnError as error:
                raise FsError(errno.EIO, str(error)) from None
        side = Side(f"{live.root}@{name}", fs, Posix(fs, options=self._options.posix()), live.kind)
        words = dict.fromkeys([*self._options.words(), "ro"])
        source = f"{self._image}:{side.root}"
        mount = Mount(side.posix, directory, source=source, options=list(words))
        self._all = [each for each in self._all if self._group.serves(each.mount)]
        self.serve(side, mount)
        try:
            self._group.add(mount)
        except MountFailed as error:
            raise FsError(errno.EIO, str(error)) from None
        return b""


def _refuse_rollback(_self: Controls, _asked: Side, _root: str, _name: str) -> bytes:
    """Whoever has a file open would go on in one that is no more."""
    raise FsError(errno.EBUSY, "it is mounted: unmount it first")


_Request = Callable[..., bytes]
#: (first words, how many in all) -> what it does
_REQUESTS: Final[Mapping[tuple[bytes, int], _Request]] = {
    (b"mv", 4): Controls._move,
    (b"snapshot create", 3): Controls._create,
    (b"snapshot delete", 3): Controls._delete,
    (b"snapshot rollback", 3): _refuse_rollback,
    (b"snapshot list", 2): Controls._list,
    (b"snapshot mount", 4): Controls._mount,
}
