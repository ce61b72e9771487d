"""LFS, a log-structured file system on XN: `Lfs.mkfs`, `Lfs.mount`.

format, types          what lies on the disk, and the code that XN runs over it
tree, inode, names     maps, inodes and directories in memory
segments, log          where blocks go: summaries, usage, the end of the log
volume                 blocks by address, inodes by number, room
flushing, checkpoint, rollforward   from memory to the log, and back
cleaner                room again
snapshots              checkpoints with a name
data, namespace, lfs   the requests of the POSIX layer
check, check_inodes, rebuild, findings   the checker
"""

from libfs.lfs.check import check
from libfs.lfs.lfs import Lfs

__all__ = ["Lfs", "check"]
