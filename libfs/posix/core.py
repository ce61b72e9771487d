"""What all parts of the POSIX layer share: the file system, the tables, and the checks that come
first in nearly every call. Not locked: `Posix` holds the lock around each call."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence

from libfs.posix import acl
from libfs.posix.handles import Handle, Handles
from libfs.posix.interface import (
    ACL_DEFAULT,
    Attr,
    Change,
    FileSystem,
    FsError,
    Ino,
    Lender,
    Syncing,
    User,
)
from libfs.posix.locks import LockTable
from libfs.posix.options import Options
from libfs.posix.timestamps import atime_due

READ, WRITE, SEARCH = 4, 2, 1

# Default ACLs are asked for at each create. 4096 directories are a few hundred kilobytes.
_ACL_CACHE = 4096


class Changes:
    """What calls have changed, for those who keep copies (`shared`): names, and inodes with whether
    their bytes are concerned."""

    def __init__(self) -> None:
        self.names: list[tuple[Ino, bytes]] = []
        self.inodes: dict[Ino, bool] = {}

    def take(self) -> tuple[list[tuple[Ino, bytes]], dict[Ino, bool]]:
        """Everything, once."""
        taken = self.names, self.inodes
        self.names, self.inodes = [], {}
        return taken


class Core:
    """One mounted file system."""

    def __init__(self, fs: FileSystem, options: Options) -> None:
        self.fs = fs
        self.lender = fs if isinstance(fs, Lender) else None
        self.options = options
        self.mounted_readonly = options.readonly
        self.sync_names = options.sync or options.dirsync
        self.handles = Handles(fs)
        self.locks = LockTable()
        #: passing directories that a power cut has left (`passing`): where, which name, what
        self.left: list[tuple[Ino, bytes, Ino]] = []
        #: None: nobody else keeps copies
        self.changes: Changes | None = None
        self._default_acls: dict[Ino, acl.Acl | None] = {}

    @property
    def readonly(self) -> bool:
        """Whether changes are refused. A file system may decide so at any time (damage seen)."""
        return self.mounted_readonly or self.fs.readonly

    def check_writable(self) -> None:
        """Raises: EROFS."""
        if self.readonly:
            raise FsError(errno.EROFS)

    def remount(self, *, readonly: bool) -> None:
        """See `Posix.remount`."""
        if not readonly and self.fs.readonly:
            raise FsError(errno.EROFS)
        if readonly and not self.readonly:
            self.fs.sync(None)
        self.mounted_readonly = readonly

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """See `FileSystem`. A mount that was made read-only has nothing to wait for; what a file
        system that turned read-only by itself can't write, it must say."""
        if self.mounted_readonly:
            return None
        return self.fs.begin_sync(inos, data_only=data_only)

    def search(self, user: User, directory: Ino) -> None:
        """Ask for search permission. Raises: EACCES, or ENOTDIR before it."""
        try:
            self.fs.access(user, directory, SEARCH)
        except FsError:
            if not stat.S_ISDIR(self.fs.getattr(directory).mode):
                raise FsError(errno.ENOTDIR) from None
            raise

    def default_acl(self, directory: Ino) -> acl.Acl | None:
        """The list that new inodes in `directory` inherit.

        Cached: only `forget_acl` callers (changes of the attribute, removal of the directory) can
        make the answer another, and the layer is the file system's only caller.
        """
        try:
            return self._default_acls[directory]
        except KeyError:
            pass
        try:
            value = self.fs.getxattr(directory, ACL_DEFAULT)
        except FsError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            value = b""
        found = acl.parse_stored_untrusted(value)
        if len(self._default_acls) >= _ACL_CACHE:
            self._default_acls.clear()
        self._default_acls[directory] = found
        return found

    def forget_acl(self, directory: Ino) -> None:
        """The default list of `directory` may have changed, or its number may be reused."""
        self._default_acls.pop(directory, None)

    def changing_name(self, parent: Ino, name: bytes) -> None:
        """A name comes, goes, or changes its meaning. Noted before, lest a failure hides it."""
        if self.changes is not None:
            self.changes.names.append((parent, name))
            self.changes.inodes[parent] = True

    def changing(self, ino: Ino, *, data: bool = False) -> None:
        """Attributes change, or bytes as well. Noted before, as a name."""
        if self.changes is not None:
            inodes = self.changes.inodes
            inodes[ino] = data or inodes.get(ino, False)

    def names_changed(self, inos: Iterable[Ino]) -> None:
        """Make a change of names durable if the mount asks for it."""
        if self.sync_names:
            self.fs.sync(list(dict.fromkeys(inos)))

    def data_changed(self, ino: Ino, handle: Handle | None = None) -> None:
        """Make a change of bytes or attributes durable if the mount or the handle asks for it."""
        if self.options.sync or (handle is not None and handle.sync):
            self.fs.sync([ino])

    def touch(self, user: User, attr: Attr) -> None:
        """Move the access time after a read, as the mount's policy says.

        A read does not fail because there is no room to note that it happened.
        """
        if self.readonly:
            return
        now = self.fs.now()
        if not atime_due(self.options.atime, attr, now):
            return
        self.changing(attr.ino)
        try:
            self.fs.setattr(user, attr.ino, Change(atime=now))
        except FsError as error:
            if error.errno not in (errno.ENOSPC, errno.EROFS):
                raise

    def removed(self, victim: Attr) -> None:
        """A name of `victim` was removed: note whether it lives on without one."""
        directory = stat.S_ISDIR(victim.mode)
        if directory:
            self.forget_acl(victim.ino)
        if (directory or victim.nlink == 1) and self.handles.held(victim.ino):
            self.handles.orphaned(victim.ino)
