"""What the checker of FFS can find: code -> (words, whether mending it can lose nothing)."""

from __future__ import annotations

from typing import Final

#: code -> (message, safe to preen)
PROBLEMS: Final[dict[str, tuple[str, bool]]] = {
    # directories
    "dir-flags": ("directory is neither inline nor hashed, or both", True),
    "dir-parent": ("directory names {got} as its parent, it is {want}", True),
    "dir-entries": ("directory counts {got} entries, it has {want}", True),
    "dir-twice": ("directory has a second name {name!r} in directory {parent}", False),
    "table-pointer": ("slot {slot} of a table names neither leaf nor index", False),
    "index-head": ("head of an index says {got}, it must be {want}", False),
    "leaf-head": ("head of a leaf says {got}, it must be {want}", False),
    "name-count": ("block of names counts {got} names to offset {end}, it has {want}", True),
    "name-heap": ("heap of a block of names ends at {got}", False),
    "name-dead": ("a name in slot {slot} has no inode any more", True),
    "name-pointer": ("slot {slot} of a block of names does not name an inode", False),
    "name-record": ("inode {ino} in slot {slot} has no name that can be read", False),
    "name-chars": ("name {name!r} is not allowed", False),
    "name-twice": ("name {name!r} is there twice", False),
    "name-place": ("name {name!r} lies in the wrong leaf", False),
    "name-tag": ("tag of name {name!r} is not its hash's", True),
    "name-type": ("name {name!r} has type {got}, its inode {want}", True),
    # blocks that belong to one inode
    "block-twice": ("slot {slot} names block {other}, which belongs elsewhere", False),
    # inodes
    "inode-mode": ("mode {got:o} does not fit the block's type", False),
    "inode-flags": ("flags {got} are not those of its kind", True),
    "inode-reserved": ("reserved bytes are not zero", True),
    "inode-links": ("inode counts {got} links, it has {want}", True),
    "inode-size": ("size is {got}, can be at most {want}", False),
    "inode-blocks": ("inode counts {got} blocks, it has {want}", True),
    "inode-tail": ("inline bytes after the end are not zero", True),
    "inode-target": ("symlink has no target", False),
    "extent-depth": ("extent tree has depth {want}, its inode says {got}", False),
    "extent-slot": ("slot {slot} is not what its level needs", False),
    "extent-overlap": ("extent at file block {first} overlaps another", False),
    "extent-range": ("extent at file block {first} passes the greatest size", False),
    "extent-end": ("written data lies after the end of the file", False),
    "node-head": ("head of a node says {got}, it must be {want}", True),
    "xattr-record": ("extended attributes end in a record that can't be read", False),
    "xattr-head": ("block of attributes names inode {got}", True),
    "acl-entry": ("access list is malformed", False),
}
