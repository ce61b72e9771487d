"""Copying within a file system: who may copy what, and what the copies start with.

As `cp -r`, or with `archive` as `cp -a`: modes (less the umask, without set-id bits; or as they
are), owners (the caller; or where allowed the same), times, extended attributes and ACLs, hard
links. Symbolic links are copied, not followed; holes stay holes. Access times of sources do not
move. The bytes are the file system's business (`interface.Copier`): nothing here reads any.

The copy is made below a passing directory (`passing.py`), open to its maker only, and gets its name
when it is whole, in one atomic step: what has the name is never half a copy, after an error or a
power cut either. `undo` takes away what was made; after a cut the next mount does.

Each step is short; others may change anything between two. What they change below the source is
copied as it is found; what they change in the unfinished copy is an error.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from libfs.posix import acl, names, passing, perms, rename, xattrs
from libfs.posix.core import READ, SEARCH, Core
from libfs.posix.interface import (
    ACL_ACCESS,
    ACL_DEFAULT,
    Attr,
    Change,
    Copier,
    Dirent,
    Entry,
    Filling,
    FsError,
    Ino,
    New,
    User,
)

#: What a directory has until it is complete, so that its owner can fill it.
_FILLING: Final = 0o700
_SUPERUSER: Final = User(0, 0)


class How(NamedTuple):
    """Directories too (`cp -r`); everything the same (`cp -a`); the caller's umask."""

    recursive: bool = False
    archive: bool = False
    umask: int = 0o022


class _Directory(NamedTuple):
    """A directory to be copied: its attributes, the entry of the copy, the mode that this will
    have, and its path for errors."""

    source: Attr
    entry: Entry
    mode: int
    path: bytes


class Copying:
    """One copy under way. Relies on being called with the lock of `Posix` held."""

    def __init__(
        self, core: Core, user: User, source: Ino, parent: Ino, name: bytes, how: How
    ) -> None:
        """Check, and make the passing directory.

        Raises: EOPNOTSUPP (the file system can't copy), EISDIR (a directory, and not `recursive`; a
        file over a directory), EEXIST (a directory over anything; a file over itself), EINVAL (a
        directory into itself), and as `names.make`.
        """
        fs = core.fs
        if not isinstance(fs, Copier):
            raise FsError(errno.EOPNOTSUPP)
        self._core, self._user, self._how = core, user, how
        self._copier: Copier = fs
        self._parent, self._name = parent, name
        self._filling: Filling | None = None
        self._current: _Directory | None = None
        self._todo: list[_Directory] = []
        self._below: list[_Directory] = []  # of the directory that is being filled
        self._links: dict[Ino, Entry] = {}  # sources with several names -> the first copy
        self._later: list[tuple[bytes, Ino]] = []  # further names for these
        attr = fs.getattr(source)
        self._is_directory = stat.S_ISDIR(attr.mode)
        self._check(attr)
        self._doomed = [passing.make(core, user, parent)]
        _root, self._passing, self._place = self._doomed[0]
        self._found: list[Dirent] | None = [Dirent(name, source, attr.mode >> 12, 0)]
        #: files that the next step will read
        self.sources: list[Ino] = []
        self._note_sources(self._found)
        #: the passing directory could not be removed
        self.left = False

    def _check(self, attr: Attr) -> None:
        core, user = self._core, self._user
        if self._is_directory and not (self._how.recursive or self._how.archive):
            raise FsError(errno.EISDIR)
        names.check_may_make(core, user, self._parent, self._name)
        self._check_target(attr.ino)
        at = self._parent
        for _level in range(rename.DEPTH_MAX):
            if at == attr.ino:
                raise FsError(errno.EINVAL)
            if at == core.fs.root:
                return
            at = core.fs.parent(at)
        raise FsError(errno.ELOOP)

    def _check_target(self, source: Ino) -> None:
        """What has the name may be a file, and then `user` must be allowed to remove it."""
        fs = self._core.fs
        there = fs.lookup(self._parent, self._name)
        if there is None:
            return
        if there == source or self._is_directory:
            raise FsError(errno.EEXIST)
        victim = fs.getattr(there)
        if stat.S_ISDIR(victim.mode):
            raise FsError(errno.EISDIR)
        names.check_may_remove(self._core, self._user, self._parent, victim)

    # -- steps

    def step(self) -> bool:
        """Do a little more; whether the copy is there, under its name.

        Raises: FsError, with a path below the source as its file name where it is about one.
        """
        if self._found is not None:
            found, self._found = self._found, None
            if self._current is None:
                self._fill(found, self._place, b"")
            else:
                self._fill(found, self._current.entry.ino, self._current.path)
        elif self._filling is not None:
            with _naming(self._current.path if self._current else b""):
                if self._filling.step():
                    self._filling = None
                    self._complete()
        elif self._todo:
            self._current = self._todo.pop()
            with _naming(self._current.path):
                self._begin(self._current)
        else:
            self._publish()
            return True
        return False

    def _begin(self, directory: _Directory) -> None:
        """Look at all that is in a directory."""
        fs, source = self._core.fs, directory.source.ino
        fs.access(self._user, source, READ | SEARCH)
        self._found = list(fs.readdir(source, 0))
        self._note_sources(self._found)
        self._copier.will_read([entry.ino for entry in self._found])

    def _note_sources(self, found: Iterable[Dirent]) -> None:
        self.sources = [entry.ino for entry in found if entry.d_type == stat.S_IFREG >> 12]

    def _fill(self, found: Iterable[Dirent], made: Ino, path: bytes) -> None:
        """Begin to fill the copy of a directory."""
        core = self._core
        target, default = core.fs.getattr(made), core.default_acl(made)
        entries = []
        for each in found:
            below = path + b"/" + each.name if path else each.name
            if self._current is None:
                below = b""  # the source itself
            with _naming(below):
                attr = core.fs.getattr(each.ino)
                entry = self._entry(each.name, attr, target, default)
            if stat.S_ISDIR(attr.mode):
                mode, entry.new.mode = entry.new.mode, entry.new.mode | _FILLING
                self._below.append(_Directory(attr, entry, mode, below))
            elif attr.nlink > 1 and self._how.archive:
                if attr.ino in self._links:
                    self._later.append((each.name, attr.ino))
                    continue
                self._links[attr.ino] = entry
            entries.append(entry)
        self._filling = self._copier.fill(self._user, made, entries)

    def _complete(self) -> None:
        """All of a directory is there but further names of files, and its own attributes. What lies
        nearest on the disk is copied next."""
        core, current = self._core, self._current
        for name, source in self._later:
            assert current is not None  # the passing directory has one entry
            core.fs.link(self._user, self._links[source].ino, current.entry.ino, name)
        self._later.clear()
        if current is not None:
            self._set_attributes(current)
        self._todo += sorted(self._below, key=lambda d: d.source.ino, reverse=True)
        self._below.clear()

    def _set_attributes(self, directory: _Directory) -> None:
        source, entry, mode, _path = directory
        if self._how.archive:
            now = self._core.fs.now()
            change = Change(mode=mode, atime=source.atime, mtime=source.mtime, ctime=now)
        elif mode != entry.new.mode:
            change = Change(mode=mode, ctime=self._core.fs.now())
        else:
            return
        self._core.fs.setattr(self._user, entry.ino, change)

    def _publish(self) -> None:
        """The copy is whole: give it its name. A directory's mode may be such that its owner could
        not move it; whether he may have it here is asked, not that."""
        core, name = self._core, self._name
        if core.options.sync or core.sync_names:
            core.fs.sync(None)
        names.check_may_make(core, self._user, self._parent, name)
        self._check_target(Ino(0))
        flags = rename.RENAME_NOREPLACE if self._is_directory else 0
        rename.rename(core, _SUPERUSER, self._place, name, self._parent, name, flags)
        # Commit point in memory.
        names.rmdir(core, _SUPERUSER, core.fs.root, self._passing)

    def undo(self) -> bool:
        """Take away a little of what was made; whether no more can be done."""
        try:
            return passing.remove_some(self._core, self._doomed)
        except FsError:
            self.left = True
            return True

    # -- what a copy starts with

    def _entry(self, name: bytes, attr: Attr, target: Attr, default: acl.Acl | None) -> Entry:
        """The copy of one inode, in the directory `target`. Raises: EACCES, EPERM (a device)."""
        kind = stat.S_IFMT(attr.mode)
        if kind == stat.S_IFREG:
            self._core.fs.access(self._user, attr.ino, READ)
        if kind in (stat.S_IFBLK, stat.S_IFCHR) and self._user.uid:
            raise FsError(errno.EPERM)
        new = self._same(attr) if self._how.archive else self._alike(attr, target, default)
        if kind == stat.S_IFLNK:
            new.target = self._core.fs.readlink(attr.ino)
        return Entry(
            name,
            new,
            attr.ino if kind == stat.S_IFREG else None,
            (attr.atime, attr.mtime) if self._how.archive else None,
        )

    def _alike(self, attr: Attr, target: Attr, default: acl.Acl | None) -> New:
        """As if made by the caller, with the same permissions."""
        if stat.S_ISLNK(attr.mode):
            return perms.new_inode(self._user, target, None, stat.S_IFLNK | 0o777, 0)
        mode = stat.S_IFMT(attr.mode) | attr.mode & 0o777
        return perms.new_inode(self._user, target, default, mode, self._how.umask, attr.rdev)

    def _same(self, attr: Attr) -> New:
        """The same, as far as the caller may give it away."""
        user, mode = self._user, attr.mode
        uid = attr.uid if user.uid == 0 else user.uid
        gid = attr.gid if perms.in_group(user, attr.gid) else user.gid
        if (uid, gid) != (attr.uid, attr.gid):
            mode = perms.without_setid(mode)
        return New(mode, uid, gid, attr.rdev, b"", tuple(self._attributes(attr)))

    def _attributes(self, attr: Attr) -> Iterator[tuple[bytes, bytes]]:
        core, user = self._core, self._user
        for name in xattrs.names(core, user, attr.ino):
            if user.uid == 0 or name in (ACL_ACCESS, ACL_DEFAULT) or name.startswith(b"user."):
                yield name, xattrs.get(core, user, attr.ino, name)


@contextmanager
def _naming(path: bytes) -> Iterator[None]:
    """An error in here is about this path, unless it says otherwise."""
    try:
        yield
    except FsError as error:
        if error.filename is None and path:
            error.filename = path
        raise
