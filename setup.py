"""Builds what `pyproject.toml` says; with XNFS_COMPILE=1 also compiles the hot path with mypyc.

    pip install mypy setuptools wheel bitarray
    XNFS_COMPILE=1 pip install --no-build-isolation .     (needs a C compiler)

Experimental: the same typed source, compiled as it stands. The tests run the pure form.
MYPYC_OPT_LEVEL is the C compiler's -O. 1 unless told otherwise: 3 was measured to be no faster, and
takes half as long again to build.
"""

import os

from setuptools import setup

#: What a request passes through between the transport and the device. Left interpreted:
#: what runs seldom (fsck, recovery, formats, checkers, locks, the in-memory file system);
#: libfs/posix/interface, whose FsError inherits OSError, which a compiled class can't;
#: xnfs/disk/recording, where the C of an attribute called `_volatile` does not compile;
#: xnfs/disk/{device,log,layout}, which are what tests replace, or mostly calls into C already;
#: libfs/kernel, which unpacks, packs and calls (requests 1.34 times as fast with it, 1.32 without).
COMPILED = {
    "xnfs": "capability",
    "xnfs/memory": "frames",
    "xnfs/disk": (
        "acl arguments blocktype catalogue_calls change change_calls commit entries extents flow"
        " freespace ledger order page_calls pages registry reshape syscalls tables typetable xn"
    ),
    "libfs/common": "attributes cache devices naming",
    "libfs/ffs": (
        "ahead between data directory extents ffs inode nameblock names place slots syncing table"
        " volume xattrs"
    ),
    "libfs/posix": "attributes core data handles names opening perms posix rename shared",
}


def compiled() -> list[str]:
    """The files of COMPILED."""
    return [f"{folder}/{name}.py" for folder, names in COMPILED.items() for name in names.split()]


def extensions() -> list[object]:
    """One C extension with all of them: calls from one to another are then C calls."""
    if os.environ.get("XNFS_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    return mypycify(compiled(), opt_level=os.environ.get("MYPYC_OPT_LEVEL", "1"))


setup(ext_modules=extensions())
