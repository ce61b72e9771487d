"""Doing the damage: a verb applied to a field, with the checksum left wrong or made right again.

A checksum that is wrong is what a bad disk leaves. One that is right reaches what lies behind it,
and stands for a faulty kernel, or for somebody who can write the device. Which checksum covers
which bytes is said in SPEC.md; where it stands in its structure, the declarations say.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from libfs.lfs.log import checksum
from xnfs import BLOCK, SECTOR
from xnfs.disk import layout as k
from xnfs_trials.damage import subject_lfs
from xnfs_trials.damage.fields import Field, leaves
from xnfs_trials.damage.fields_lfs import LFS, STAMPED
from xnfs_trials.damage.subject import Subject
from xnfs_trials.damage.verbs import VERBS

_U32: Final = k.U32.size
#: Blocks of an LFS that the kernel does not stamp.
OWN: Final = LFS.keys() - STAMPED
_LFS_SEED: Final = zlib.crc32(subject_lfs.UUID)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One field, one verb; `sealed`: the checksum is made right again."""

    field: Field
    verb: str
    sealed: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.verb}, checksum {'right' if self.sealed else 'wrong'}"

    def new(self, old: bytes, seed: int = 0) -> bytes:
        """What the field's bytes become."""
        return VERBS[self.verb](old, f"{seed} {self.field}")


def damage(subject: Subject, mutations: Iterable[Mutation], seed: int = 0) -> dict[int, bytes]:
    """The damaged image, as blocks. The same mutations and seed give the same bytes."""
    blocks: dict[int, bytearray] = {}
    sealer = Sealer(subject, blocks)
    # What leaves a checksum wrong comes last, or another's seal would make it right.
    for mutation in sorted(mutations, key=lambda m: not m.sealed):
        field = mutation.field
        lo, hi = field.offset, field.offset + field.size
        for block in field.blocks:
            raw = sealer.block(block)
            raw[lo:hi] = mutation.new(bytes(raw[lo:hi]), seed)
            if mutation.sealed:
                sealer.seal(block, lo, hi)
    return subject.contents | {block: bytes(raw) for block, raw in blocks.items()}


@lru_cache(maxsize=8)
def _crc_at(layout: Any) -> int:
    """Where the checksum stands in a structure."""
    zeros = bytes(layout.sizeof())
    return next(at for name, at, _size in leaves(layout, zeros) if name == "crc")


#: Of an entry of the log. It is what vouches for an image there.
_DIGEST_AT = k.LogEntryLayout.sizeof() - _U32


class Sealer:
    """Makes the checksums of an image right again."""

    def __init__(self, subject: Subject, blocks: dict[int, bytearray]) -> None:
        self._subject = subject
        self._g = subject.geometry
        self._seed = subject.seed
        self._blocks = blocks

    def block(self, block: int) -> bytearray:
        """The bytes of a block, to be changed."""
        raw = self._blocks.get(block)
        if raw is None:
            raw = bytearray(self._subject.contents.get(block, bytes(BLOCK)))
            self._blocks[block] = raw
        return raw

    def seal(self, block: int, lo: int, hi: int) -> None:
        """The bytes [lo, hi) of a block have changed."""
        g = self._g
        if block in (0, g.data_end):
            self._superblock(block)
        elif g.map_start <= block < g.types_start:
            self._sector(block, lo // SECTOR)
        elif g.log_start <= block < g.log_start + g.log_blocks:
            self._log(block, lo, hi)
        elif g.types_start <= block < g.roots_start:
            self._whole(block, _crc_at(k.TypeBlockLayout))
        elif lo <= 0 < hi:
            pass  # the checksum itself is what is damaged
        elif self._subject.kinds.get(block) in OWN:
            raw = self.block(block)
            k.U32.pack_into(raw, 0, checksum(_LFS_SEED, block, raw))
        else:
            self._whole(block, _crc_at(k.StampLayout))

    def _whole(self, block: int, at: int) -> None:
        """A block whose checksum covers all of it but itself."""
        raw = self.block(block)
        value = self._seed.crc(block, bytes(raw[:at]), bytes(raw[at + _U32 :]))
        k.U32.pack_into(raw, at, value)

    def _superblock(self, block: int) -> None:
        raw, at = self.block(block), _crc_at(k.SuperblockLayout)
        # The identity of the image may be what was damaged.
        uuid = k.SuperblockLayout.parse(bytes(raw)).uuid
        k.U32.pack_into(raw, at, k.crc(uuid, 0, bytes(raw[:at])))

    def _sector(self, block: int, index: int) -> None:
        raw, at = self.block(block), _crc_at(k.MapSectorLayout)
        lo = index * SECTOR
        value = zlib.crc32(raw[lo : lo + at], self._seed.sector(block, index))
        k.U32.pack_into(raw, lo + at, value)

    # -- log

    def _log(self, block: int, lo: int, hi: int) -> None:
        at = _crc_at(k.DescriptorLayout)
        raw = self._subject.contents[block]
        if raw[: len(k.LOG_MAGIC)] == k.LOG_MAGIC:
            self._whole(block, at)
            return
        for head, entry_at, entry in _log_entries(self._subject):
            if entry.digest == self._seed.digest(entry.block, raw):
                if entry.type and not lo <= 0 < hi:
                    self._image(block, entry.block)
                value = self._seed.digest(entry.block, bytes(self.block(block)))
                k.U32.pack_into(self.block(head), entry_at + _DIGEST_AT, value)
                self._whole(head, at)

    def _image(self, block: int, home: int) -> None:
        """The stamp in an image is for the place where the image belongs."""
        raw, at = self.block(block), _crc_at(k.StampLayout)
        value = self._seed.crc(home, bytes(raw[:at]), bytes(raw[at + _U32 :]))
        k.U32.pack_into(raw, at, value)


@lru_cache(maxsize=4)
def _log_entries(subject: Subject) -> tuple[tuple[int, int, Any], ...]:
    return tuple(log_entries(subject, subject.contents))


def log_entries(subject: Subject, image: Mapping[int, bytes]) -> Iterator[tuple[int, int, Any]]:
    """(descriptor block, offset, entry) of everything in the log that looks like an entry."""
    g = subject.geometry
    size = k.LogEntryLayout.sizeof()
    for block in range(g.log_start, g.log_start + g.log_blocks):
        raw = image.get(block, b"")
        if raw[: len(k.LOG_MAGIC)] == k.LOG_MAGIC:
            first = next(at for name, at, _n in leaves(k.DescriptorLayout, raw) if "[0]" in name)
            for index, entry in enumerate(k.DescriptorLayout.parse(raw).entries):
                yield block, first + index * size, entry


def reach(subject: Subject, image: Mapping[int, bytes]) -> frozenset[int]:
    """The blocks of a damaged image that are not what they were, or that a damaged log may write
    to, or fail to."""
    out = {block for block, raw in image.items() if raw != subject.contents.get(block)}
    g = subject.geometry
    if not out.isdisjoint(range(g.log_start, g.log_start + g.log_blocks)):
        for contents in (subject.contents, image):
            out |= {entry.block for _head, _at, entry in log_entries(subject, contents)}
    return frozenset(out)
