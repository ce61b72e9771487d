"""The FUSE transport that needs no library: the kernel's own protocol, spoken on /dev/fuse.

`session.Mount` mounts and serves, `mounting` makes and removes the mount, `dispatch` reads requests
and sends answers, `names`, `files`, `directories` and `attributes` carry them out on the POSIX
layer. The other transport, for systems where this one does not work, is `libfs.fuse`.
"""
