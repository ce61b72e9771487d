"""A complete small file system on XN: `format` is what XN is told, `fs` what is done with it."""

from examples.notefs.fs import NoteFs

__all__ = ["NoteFs"]
