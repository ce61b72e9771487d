"""Operations by path, as a workload is written down.

An `Op` has one text and is read back from it, so that a workload's name says what it does and says
the same for ever: `rename foo A/bar`, `write A/foo 2048 4096`, `fsync foo`. What an operation needs
is put in front by `prepare.py`; `runner.py` makes it on a file system and on the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: kind -> its fields in order: p = path, q = second path, a = offset, n = size, k = keep size
KINDS = {
    "create": "p",
    "mkdir": "p",
    "symlink": "p",
    "link": "pq",
    "unlink": "p",
    "rmdir": "p",
    "rename": "pq",  # to a name that is free, or whatever is there
    "replace": "pq",  # a rename to a name that is there
    "exchange": "pq",
    "write": "pan",
    "overwrite": "pan",  # a write inside the file
    "append": "pn",
    "mwrite": "pan",  # as through a mapping: half of the dirty pages go out, in any order
    "truncate": "pn",
    "allocate": "pank",
    "punch": "pan",
    "zero": "pank",
    "chmod": "pn",
    "setxattr": "pan",  # which attribute, how long
    "removexattr": "pa",
    "fsync": "p",
    "fdatasync": "p",
    "sync": "",
    "hold": "p",  # open it and keep it open, also without a name
    "release": "",  # close all that is held
    "writeback": "n",  # some dirty pages, chosen by n: written, not durable
    "evict": "n",  # some clean pages
    "collect": "n",  # a few steps of the kernel's collector, if there may be leaks
    "idle": "",
}
SYNCS = frozenset({"fsync", "fdatasync", "sync"})


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Paths are relative to the root, `/` is the root; sizes are multiples of 16."""

    kind: str
    path: str = ""
    to: str = ""
    at: int = 0
    size: int = 0
    keep: bool = False

    def __str__(self) -> str:
        letters = {"p": self.path, "q": self.to, "a": self.at, "n": self.size}
        words = [self.kind, *(str(letters[c]) for c in KINDS[self.kind] if c != "k")]
        return " ".join([*words, *(["keep"] if self.keep else [])])

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it names."""
        return tuple(p for p in (self.path, self.to) if p)


def parse(text: str) -> Op:
    """The operation of a text. Raises ValueError."""
    kind, *words = text.split()
    if kind not in KINDS:
        raise ValueError(f"no operation {kind!r}; there are {', '.join(KINDS)}")
    letters = KINDS[kind]
    keep = "k" in letters and words[-1:] == ["keep"]
    if len(words) - keep != len(letters.replace("k", "")):
        raise ValueError(f"{text!r}: {kind} takes {len(letters.replace('k', ''))} words")
    found: dict[str, str] = dict(zip(letters, words, strict=False))
    number = {c: int(found[c]) for c in "an" if c in found}
    path, to = (found[c].strip("/") or "/" if c in found else "" for c in "pq")
    return Op(kind, path, to, number.get("a", 0), number.get("n", 0), keep)


def name_of(ops: Iterable[Op]) -> str:
    """The name of a workload is its text."""
    return "; ".join(map(str, ops))


def parse_name(name: str) -> list[Op]:
    """The operations of a workload's name. Raises ValueError."""
    return [parse(text) for text in name.split(";") if text.strip()]
