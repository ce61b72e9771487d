"""Device numbers: Linux has one of 64 bits, a disk stores major and minor."""

from __future__ import annotations


def make_device(major: int, minor: int) -> int:
    """The 64-bit device number of Linux."""
    return (
        (minor & 0xFF)
        | (major & 0xFFF) << 8
        | (minor & 0xFFFFFF00) << 12
        | (major & 0xFFFFF000) << 32
    )


def split_device(rdev: int) -> tuple[int, int]:
    """(major, minor) of a 64-bit device number of Linux."""
    major = rdev >> 8 & 0xFFF | rdev >> 32 & 0xFFFFF000
    minor = rdev & 0xFF | rdev >> 12 & 0xFFFFFF00
    return major & 0xFFFFFFFF, minor & 0xFFFFFFFF
