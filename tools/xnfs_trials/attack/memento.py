"""Putting a kernel back to where it was: every mutable thing below one object, saved and restored.

A search of all sequences of calls goes back after each call that succeeded. Opening the image again
and replaying the calls costs milliseconds; this costs a fraction of one. It knows no names of the
kernel's parts: it walks from one object through attributes and containers, copies what can change,
and puts it back in place, so that every reference stays what it was.

Relies on: the kernel starts no threads; what is in `_OPAQUE` never changes. Types are values: only
which of them exist is saved.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

from bitarray import bitarray

from xnfs.disk.blocktype import BlockType
from xnfs.sandbox import Program

_OPAQUE = (BlockType, Program)
_PLAIN = (list, set, bytearray, array, bitarray)


class Memento:
    """The state of everything below `root` when this was made."""

    def __init__(self, root: object) -> None:
        self._objects: list[tuple[Any, list[tuple[str, Any]]]] = []
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._sequences: list[tuple[Any, Any]] = []
        self._sets: list[tuple[set[Any], set[Any]]] = []
        self._memory: list[tuple[memoryview, bytes]] = []
        self._save(root)

    def _save(self, root: object) -> None:
        seen: set[int] = set()
        todo: list[Any] = [root]
        while todo:
            thing = todo.pop()
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            kind = type(thing)
            if kind is dict:
                self._dicts.append((thing, dict(thing)))
                todo += thing.values()
            elif kind is set:
                self._sets.append((thing, set(thing)))
            elif kind in _PLAIN:
                self._sequences.append((thing, thing[:]))
                if kind is list:
                    todo += thing
            elif kind is tuple:
                todo += thing
            elif kind is memoryview:
                self._save_memory(thing, seen)
            elif kind.__module__.startswith("xnfs") and not isinstance(thing, _OPAQUE):
                state = [
                    (n, v)
                    for n in _names(kind, thing)
                    if (v := getattr(thing, n, todo)) is not todo
                ]
                self._objects.append((thing, state))
                todo += [value for _name, value in state]

    def _save_memory(self, view: memoryview, seen: set[int]) -> None:
        if not view.readonly and id(view.obj) not in seen:
            seen.add(id(view.obj))
            whole = memoryview(view.obj)
            self._memory.append((whole, bytes(whole)))

    def restore(self) -> None:
        """Put everything back. May be done any number of times."""
        put = object.__setattr__
        for thing, state in self._objects:
            for name, value in state:
                put(thing, name, value)
        for mapping, entries in self._dicts:
            mapping.clear()
            mapping.update(entries)
        for members, those in self._sets:
            members.clear()
            members |= those
        for sequence, items in self._sequences:
            sequence[:] = items
        for whole, data in self._memory:
            whole[:] = data


_NAMES: dict[type, tuple[str, ...]] = {}


def _names(kind: type, thing: object) -> Iterable[str]:
    """Attributes of an object, of its slots and of its dictionary."""
    slots = _NAMES.get(kind)
    if slots is None:
        found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
        slots = _NAMES[kind] = tuple(n for some in found for n in some if not n.startswith("__"))
    return (*slots, *getattr(thing, "__dict__", ()))
