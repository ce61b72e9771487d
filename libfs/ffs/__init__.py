"""The Fast File System on XN. `Ffs.mkfs` makes one under a root, `Ffs.mount` mounts it."""

from libfs.ffs.ffs import Ffs

__all__ = ["Ffs"]
