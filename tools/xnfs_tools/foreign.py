"""Anybody's file system, named as `module:Class`.

It is ordinary Python, and runs with all the rights of who runs the command.
"""

from __future__ import annotations

import importlib
import os
import sys

from libfs.formats import Format
from xnfs_tools.command import Failed


def load_format(spec: str, *, here: bool) -> Format:
    """The format of `module:Class`, a class with the static methods `mkfs` and `mount`; `here`:
    modules may lie in the current directory, too.

    Raises: Failed.
    """
    module, _, name = spec.partition(":")
    if here and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        kind = getattr(importlib.import_module(module), name)
        return Format(spec, "", kind.mkfs, kind.mount)
    except (ImportError, AttributeError, ValueError) as error:
        raise Failed(f"no file system '{spec}' (module:Class): {error}") from None
