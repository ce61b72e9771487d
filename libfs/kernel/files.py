"""Requests about the bytes of files.

Opening. OPEN, CREATE, OPENDIR and FLUSH are answered "not implemented", once each: after that the
host kernel opens and closes without asking, and makes files with MKNOD, which saves two to three of
the five round trips of open, read and close. What they would have been needed for is done
elsewhere:

- permission: the host kernel decides, from the attributes and access lists given to it
  (`default_permissions`, which FUSE_POSIX_ACL implies). Without it nobody would: not at open, and
  not on the way along a path either, since names that the kernel has cached are not looked up
  again, so a directory closed to somebody would stop only whoever comes first. Everything that
  changes the file system still arrives here and is decided by its own acl. A mount by root without
  `allow_other` lets nobody in but root, so there it is off (`mounting.Wanted`).
- O_TRUNC: arrives as a SETATTR of the size (ATOMIC_O_TRUNC is not asked for).
- O_APPEND: the host kernel keeps the size of a file (write-back cache) and is its only writer.
- unlinked open files: the kernel's lookup of the inode holds it; FORGET comes after the last close.
- locks: the host kernel keeps them; it sees every process that could want one.
- O_SYNC: the host kernel follows the write with an FSYNC.
- the access time: moved by reads that arrive here, so not by those that the page cache answers.
  With `strictatime` that would be wrong, so there opening is announced, and empties the cache.

Failed writes. With a write-back cache write(2) has long returned when the disk turns out to be
full; close and fsync report it. A program that looks at neither would write for ever into nothing.
So after a failure the kernel is told that it no longer knows the file's attributes; it then asks
before the next write to that file, and that question is answered with the error.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import Final

from libfs.kernel import abi
from libfs.kernel.attributes import Attributes
from libfs.kernel.nodes import Nodes
from libfs.kernel.notices import Notices
from libfs.kernel.replies import Durable, Lent, WrittenBack
from libfs.posix import Fh, FsError, Posix, User

#: From this size on bytes are sent from where they lie; fewer are copied sooner than lent.
LENT_MIN: Final = 1 << 16


class Files:
    """See the module. Each method is one opcode: node, user, fixed fields, then the tail."""

    def __init__(
        self,
        posix: Posix,
        nodes: Nodes,
        attributes: Attributes,
        notices: Notices,
    ) -> None:
        self._posix = posix
        self._nodes = nodes
        self._attributes = attributes
        self._notices = notices

    def _handle(self, node: int) -> Fh:
        return self._nodes.handle(self._nodes.ino(node))

    def read(self, node: int, user: User, fh: int, offset: int, size: int) -> bytes | Lent:
        """Bytes for the page cache, or for a read that goes around it."""
        handle = self._handle(node)
        if size < LENT_MIN:
            return self._posix.read(handle, offset, size)
        return Lent(partial(self._posix.lend, handle, offset, size))

    def write(
        self,
        node: int,
        user: User,
        fh: int,
        offset: int,
        size: int,
        flags: int,
        tail: memoryview,
    ) -> bytes:
        """Bytes from the page cache, or from a write that goes around it. All or an error: the
        kernel takes no notice of a short write of its cache."""
        if len(tail) != size:
            raise FsError(errno.EINVAL)
        ino = self._nodes.ino(node)
        if flags & abi.WRITE_KILL_SUIDGID:
            self._attributes.drop_setid(ino)
        try:
            handle = self._nodes.handle(ino)
            done = 0
            while done < size:
                done += self._posix.write(handle, offset + done, tail[done:] if done else tail)
        except FsError as error:
            self._nodes.failed[ino] = error.errno or errno.EIO
            self._notices.attributes_changed(ino)
            raise
        if self._nodes.failed:
            self._nodes.failed.pop(ino, None)
        return abi.WRITE.pack(size)

    def open(self, node: int, user: User, flags: int, open_flags: int) -> bytes:
        """open(2) and opendir(3) with `strictatime`: nothing is to stay in the page cache."""
        return abi.OPEN.pack(0, 0)

    def release(self, node: int, user: User, fh: int) -> bytes:
        """The last close, of a file that O_TMPFILE opened or with `strictatime`. The handle behind
        the inode stays until FORGET."""
        return b""

    def tmpfile(
        self, parent: int, user: User, flags: int, mode: int, umask: int, tail: bytes
    ) -> bytes:
        """open(2) with O_TMPFILE."""
        nodes = self._nodes
        attr, fh = self._posix.tmpfile(user, nodes.ino(parent), mode, flags, umask)
        made = nodes.entry(attr)  # counted before the handle goes, which alone holds the inode
        self._posix.release(fh)
        return made + abi.OPEN.pack(0, abi.FOPEN_KEEP_CACHE)

    def create(
        self, parent: int, user: User, flags: int, mode: int, umask: int, tail: bytes
    ) -> bytes:
        """open(2) with O_CREAT of a name that the kernel believes is not there. Where another mount
        may just have made it, MKNOD would answer EEXIST to who did not ask for O_EXCL."""
        nodes = self._nodes
        attr, fh = self._posix.create(user, nodes.ino(parent), tail[:-1], mode, flags, umask)
        made = nodes.entry(attr)
        self._posix.release(fh)
        return made + abi.OPEN.pack(0, abi.FOPEN_KEEP_CACHE)

    def fsync(self, node: int, user: User, fh: int, flags: int) -> Durable:
        """fsync(2), fdatasync(2)."""
        return Durable(self._nodes.ino(node), bool(flags & abi.FSYNC_DATA))

    def fallocate(
        self, node: int, user: User, fh: int, offset: int, length: int, mode: int
    ) -> bytes:
        """fallocate(2)."""
        self._posix.fallocate(self._handle(node), mode, offset, length)
        return b""

    def lseek(
        self, node: int, user: User, fh: int, offset: int, whence: int
    ) -> bytes | WrittenBack:
        """lseek(2) with SEEK_DATA or SEEK_HOLE.

        What the kernel has yet to write back is no hole, but it asks without saying what that is,
        and a sparse copy would lose bytes. So where a hole would be the answer, the bytes that may
        be meant for it are called in first; what is cached of data can stay.
        """
        ino, handle, seek = self._nodes.ino(node), self._handle(node), self._posix.lseek
        try:
            found = seek(handle, offset, whence)
        except FsError as error:
            if error.errno != errno.ENXIO or not self._nodes.kernel_keeps_times:
                raise
            found = -1
        if not self._nodes.kernel_keeps_times or (whence == os.SEEK_DATA and found == offset):
            return abi.LSEEK.pack(found)

        def work() -> bytes:
            return abi.LSEEK.pack(seek(handle, offset, whence))

        if found < 0:
            return WrittenBack(ino, offset, 0, work)
        if whence == os.SEEK_DATA:
            return WrittenBack(ino, offset, found - offset, work)
        return WrittenBack(ino, found, 0, work)

    def copy(
        self,
        node: int,
        user: User,
        fh: int,
        offset: int,
        target: int,
        target_fh: int,
        target_offset: int,
        size: int,
        flags: int,
    ) -> bytes:
        """copy_file_range(2); how much was copied, in 32 bits."""
        return abi.WRITE.pack(self._copy(node, offset, target, target_offset, size))

    def copy64(
        self,
        node: int,
        user: User,
        fh: int,
        offset: int,
        target: int,
        target_fh: int,
        target_offset: int,
        size: int,
        flags: int,
    ) -> bytes:
        """As `copy`, in 64 bits."""
        return abi.LSEEK.pack(self._copy(node, offset, target, target_offset, size))

    def _copy(self, node: int, offset: int, target: int, target_offset: int, size: int) -> int:
        source, sink = self._handle(node), self._handle(target)
        return self._posix.copy_file_range(source, offset, sink, target_offset, size)

    def statfs(self, node: int, user: User) -> bytes:
        """statfs(2)."""
        s = self._posix.statfs()
        return abi.STATFS.pack(s.blocks, s.bfree, s.bavail, s.files, s.ffree, 4096, 255, 4096)

    def syncfs(self, node: int, user: User) -> Durable:
        """sync(2) and syncfs(2), where the host kernel passes them on."""
        return Durable(None)
