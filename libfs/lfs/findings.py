"""What the checker of LFS can find: code -> (words, whether mending it can lose nothing)."""

from __future__ import annotations

from typing import Final

PROBLEMS: Final[dict[str, tuple[str, bool]]] = {
    # the log
    "table": ("the segment table can't be used: {why}", False),
    "region": ("a checkpoint can't be read ({why}); the other is used", True),
    "log": ("the log can't be followed ({why}); its summaries are read instead", False),
    "summary": ("the summary of segment {segment} can't be read ({why})", False),
    "slot": ("the summary does not say that {where} is block {at} of inode {ino}", True),
    "usage": ("segment {segment} is said to have {got} live bytes, it has {want}", True),
    "snapshot": ("snapshot can't be read: {why}", False),
    "snapshot-damaged": (
        "snapshot {name} is damaged ({why}): delete it, or keep the rest",
        False,
    ),
    # inodes
    "inode-lost": ("inode {ino} can't be read ({why})", False),
    "map-lost": ("a node of the map of inode {ino} can't be read", False),
    "address": ("block {at} of inode {ino} is none of its kind, or another's", False),
    "data-end": ("block {at} of inode {ino} lies past its end", True),
    "inode-blocks": ("inode {ino} counts {got} blocks, it has {want}", True),
    "inode-links": ("inode {ino} counts {got} links, it has {want}", True),
    "xattr-lost": ("attributes of inode {ino} can't be read ({why})", False),
    "inode-unnamed": ("inode {ino} has no name", False),
    # directories
    "root-lost": ("there is no root directory", False),
    "leaf-lost": ("names of directory {ino} can't be read ({why})", False),
    "leaf-gap": ("directory {ino} has no place for some names", True),
    "dir-entries": ("directory {ino} counts {got} entries, it has {want}", True),
    "dir-parent": ("directory {ino} names {got} as its parent, it is {want}", True),
    "dir-twice": ("directory {ino} has a second name {name!r}", False),
    "name-dead": ("name {name!r} in directory {ino} has no inode", True),
    "name-type": ("name {name!r} in directory {ino} has type {got}, its inode {want}", True),
}
