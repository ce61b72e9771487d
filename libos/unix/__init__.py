"""A small Unix as a library: processes, files, pipes and signals on the machine (an ExOS in small).

`boot(machine, posix)` starts it; `libos.unix.bin` are programs for it, kept as source text so that
they can be put into a file system and run from there.
"""

from libos.unix.process import Process
from libos.unix.world import World, boot, install

__all__ = ["Process", "World", "boot", "install"]
