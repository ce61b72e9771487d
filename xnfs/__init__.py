"""The exokernel: protection, and no policy.

The public names are these; everything else is inside the trust boundary and may change.
"""

from xnfs.capability import ADMIN, ALLOC, GRANT, READ, WRITE, Capabilities
from xnfs.cpu import numbers as calls
from xnfs.cpu.costs import Costs
from xnfs.cpu.environment import Boot, Program
from xnfs.cpu.exposed import Exposed
from xnfs.cpu.trace import Record as TraceRecord
from xnfs.cpu.wall import Wall
from xnfs.disk.device import BlockDevice, FileDevice, MemoryDevice, create_image
from xnfs.disk.format import format_image
from xnfs.disk.layout import GROUP
from xnfs.disk.lost import Lost
from xnfs.disk.records import (
    BLOCK,
    OP_ACCESS,
    OP_BIRTH,
    OP_CHANGE,
    OP_DEATH,
    SECTOR,
    T_UNREADABLE,
    Caller,
    CollectStatus,
    Diff,
    Extent,
    Registered,
    RootEntry,
    RootInfo,
    TypeSpec,
)
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.xn import Xn
from xnfs.errors import (
    AclRefused,
    BadImage,
    CapabilityError,
    CorruptionError,
    CycleError,
    DeviceError,
    InUse,
    NoFrames,
    NoSpace,
    NoSuchEnvironment,
    NotCached,
    NotEmpty,
    NotFree,
    ReadOnly,
    Refused,
    UnknownType,
    VersionError,
    XnError,
)
from xnfs.machine import Machine
from xnfs.memory.frames import FRAME, FramePool

__version__ = "0.1.0"

__all__ = [
    "ADMIN",
    "ALLOC",
    "BLOCK",
    "FRAME",
    "GRANT",
    "GROUP",
    "OP_ACCESS",
    "OP_BIRTH",
    "OP_CHANGE",
    "OP_DEATH",
    "READ",
    "SECTOR",
    "T_UNREADABLE",
    "WRITE",
    "AclRefused",
    "BadImage",
    "BlockDevice",
    "Boot",
    "Caller",
    "Capabilities",
    "CapabilityError",
    "CollectStatus",
    "CorruptionError",
    "Costs",
    "CycleError",
    "DeviceError",
    "Diff",
    "Exposed",
    "Extent",
    "FileDevice",
    "FramePool",
    "InUse",
    "Lost",
    "Machine",
    "MemoryDevice",
    "NoFrames",
    "NoSpace",
    "NoSuchEnvironment",
    "NotCached",
    "NotEmpty",
    "NotFree",
    "Program",
    "ReadOnly",
    "Refused",
    "Registered",
    "RootEntry",
    "RootInfo",
    "TraceRecord",
    "TypeSpec",
    "UnknownType",
    "VersionError",
    "Wall",
    "Xn",
    "XnError",
    "calls",
    "create_image",
    "format_image",
    "read_superblock_untrusted",
]
