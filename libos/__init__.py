"""Library operating systems: the policies that run on the machine. Untrusted.

Everything here is ordinary code of applications: it sees the kernel through system calls and the
exposed tables, and uses only the public names of `xnfs`.
"""
