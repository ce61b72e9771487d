"""Every error that a system call of the exokernel can return, one line each on when you get it."""

from __future__ import annotations


class XnError(Exception):
    """Base of all of them. The call had no effect."""


class Refused(XnError):
    """The call breaks a rule of protection: wrong ownership delta, bytes outside the partition,
    wrong type.
    """


class AclRefused(XnError):
    """The type's `acl` said no; `errno` is what it answered."""

    def __init__(self, errno: int, block: int) -> None:
        super().__init__(f"acl of block {block} refused with errno {errno}")
        self.errno = errno
        self.block = block


class CapabilityError(XnError):
    """The capability is forged, stale, revoked, or does not dominate the resource with these
    rights.
    """


class NotFree(XnError):
    """A claimed block is in use, waits on a will-free list, or lies outside the data area."""


class NoSpace(XnError):
    """No room: catalogue full, or no free block."""


class NotEmpty(XnError):
    """A metadata block still owns blocks, so it can't lose its last owner."""


class NotCached(XnError):
    """The block is not in the registry; `readin` first."""


class NoFrames(XnError):
    """The caller's page frames are used up; `evict` some blocks first."""


class NoSuchEnvironment(XnError):
    """No environment of that number lives."""


class CycleError(XnError):
    """A declared order would close a cycle."""


class UnknownType(XnError):
    """No type of that name or number is installed."""


class ReadOnly(XnError):
    """The image was opened read-only, or writes stopped after corruption or a failed write."""


class InUse(XnError):
    """The image is open in another process."""


class BadImage(XnError):
    """Not an xnfs image, or one too damaged to open."""


class VersionError(BadImage):
    """The image has another format version or an unknown incompatible feature."""


class DeviceError(XnError):
    """The device failed; `errno` is its own."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class CorruptionError(XnError):
    """Bytes on the disk are not what they must be. Writes stop."""

    def __init__(self, block: int, field: str, got: object, want: object) -> None:
        super().__init__(f"block {block}: {field} is {got}, expected {want}")
        self.block, self.field, self.got, self.want = block, field, got, want
