"""FFS, the Fast File System on XN: `Ffs.mkfs`, `Ffs.mount`, and a checker for what only it knows.

format, types, rules   what lies on the disk, and the code that XN runs over it
inode, slots, nameblock, table   one block each, decoded
volume                 blocks by number, one change at a time
place                  where new blocks go
groups, ahead          what is read together, and what before it is asked for
fill, bulk, space      directories filled with copies
extents, data          bytes of files;   directory, names   names;   xattrs
ffs                    the requests of the POSIX layer
check, check_names, check_inode, findings   the checker
"""

from libfs.ffs.check import Finding, Summary, check
from libfs.ffs.ffs import Ffs
from libfs.ffs.format import F_GROUPING

__all__ = ["F_GROUPING", "Ffs", "Finding", "Summary", "check"]
