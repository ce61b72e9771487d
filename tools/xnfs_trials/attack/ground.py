"""The kernel under attack, in the terms of the specification: small numbers, and words for kinds.

An image of two file systems; `call` carries out a call of `spec` on the real kernel and says
whether it was accepted, `look` says what can be seen of the kernel's state, in the form in which
`expected` says what a state of the specification shows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from xnfs import (
    ALLOC,
    BLOCK,
    READ,
    T_UNREADABLE,
    WRITE,
    Caller,
    CorruptionError,
    Diff,
    Extent,
    FramePool,
    MemoryDevice,
    TypeSpec,
    Xn,
    XnError,
    format_image,
)
from xnfs_trials.attack.spec import State
from xnfs_trials.attack.world import (
    DATA,
    HIDDEN,
    KERNEL,
    NODE,
    OUTSIDE,
    SLOTS,
    Call,
    Pointer,
)

SLOTS_AT, TEXT_AT = 64, 2048
KINDS: Final = (DATA, NODE, HIDDEN)
_OWNS = """\
def owns(meta, part):
    kind = u32(meta, 64 + part * 16)
    if kind >= 1 and kind <= 3:
        emit(kind - 1, u64(meta, 72 + part * 16), u32(meta, 68 + part * 16))
"""
TYPES: Final = (
    TypeSpec("w.data"),
    TypeSpec("w.node", owns=_OWNS, parts=((SLOTS_AT, 16, 16, SLOTS),), raw=(TEXT_AT, BLOCK),
             stamp=0, refs=("w.data", "w.node", "w.hidden")),
    TypeSpec("w.hidden", flags=T_UNREADABLE),
)  # fmt: skip
NUMBER: Final = {DATA: 16, NODE: 17, HIDDEN: 18}
KIND: Final = {number: kind for kind, number in NUMBER.items()}
_SLOT = struct.Struct("<IIQ")
#: frames and free blocks come with these bytes: whoever reads them has seen a secret
POISON: Final = b"poison!!" * (BLOCK // 8)


def slot_bytes(kind: str = "", start: int = 0, count: int = 1) -> bytes:
    """A pointer as it lies in a node; without a kind, none."""
    return _SLOT.pack(KINDS.index(kind) + 1, count, start) if kind else bytes(16)


@cache
def _image(blocks: int) -> MemoryDevice:
    device = MemoryDevice(blocks)
    format_image(device, uuid=bytes(16), label="w", log_blocks=32, types_blocks=4, roots_blocks=1)
    xn = Xn(device, frames=FramePool(16), clock=lambda: 1)
    admin = Caller(xn.admin)
    for spec in TYPES:
        xn.install_type(admin, spec)
    for name in "ab":
        xn.install_root(admin, name, NUMBER[NODE])
    used = {entry.block for entry in xn.roots()}
    lo, hi = xn.data_area
    xn.close()
    for block in set(range(lo, hi)) - used:
        device.write(block, [POISON])
    return device


def poisoned(frames: int) -> FramePool:
    """Frames that hold what nobody may see."""
    pool = FramePool(frames)
    taken = pool.alloc("before", frames)
    pool.view_run(taken[0], frames)[:] = POISON * frames
    pool.free(taken)
    return pool


class Ground:
    """A kernel with the two file systems of the specification."""

    def __init__(self, free: int = 3) -> None:
        """`free`: how many blocks the callers play with, beyond the two roots."""
        self.xn = xn = Xn(_image(96).fork(), frames=poisoned(16), clock=lambda: 1)
        self.admin = Caller(xn.admin)
        roots = {name: xn.mount_root(self.admin, name) for name in "ab"}
        self.callers = {name: Caller(info.cap) for name, info in roots.items()}
        first = roots["b"].block + 1
        numbers = [roots["a"].block, roots["b"].block, *range(first, first + free)]
        self.names = range(len(numbers))
        self.number = dict(enumerate(numbers)) | {KERNEL: xn.data_area[0] - 1, OUTSIDE: 10**6}
        self._letter = {caller.cap: name.encode() for name, caller in self.callers.items()}
        xn.sync(self.admin)

    # -- calls

    def call(self, call: Call) -> bool:
        """Make the call: True if it was accepted. Anything but an answer is an error, and so is an
        answer that the disk is corrupt."""
        name, who, arguments = call
        try:
            getattr(self, "_" + name)(self.callers[who], *arguments)
        except CorruptionError:
            raise
        except XnError:
            return False
        return True

    def _diff(self, writes: Iterable[tuple[int, Pointer | None]]) -> Diff:
        return [(SLOTS_AT + 16 * slot, self._slot(pointer)) for slot, pointer in writes]

    def _slot(self, pointer: Pointer | None) -> bytes:
        return slot_bytes(pointer[0], self.number[pointer[1]]) if pointer else bytes(16)

    def _claims(self, claims: Iterable[Pointer]) -> list[Extent]:
        return [(NUMBER[kind], self.number[block], 1) for kind, block in claims]

    def _change(
        self, who: Caller, edits: Any, alloc: Any = (), free: Any = (), share: Any = (),
        inits: Any = None,
    ) -> None:  # fmt: skip
        n = self.number
        self.xn.change(
            who,
            [(n[p], self._diff(writes)) for p, writes in edits],
            alloc=self._claims(alloc),
            free=self._claims(free),
            share=self._claims(share),
            inits={n[b]: self._diff([(0, p)]) for b, p in (inits or {}).items()},
        )

    def _relocate(self, who: Caller, parent: int, slot: int, old: int, new: int) -> None:
        n = self.number
        self.xn.relocate(who, n[parent], self._diff([(slot, (NODE, new))]), n[old], n[new])

    def _alloc_held(self, who: Caller, near: int, claim: Pointer) -> None:
        (extent,) = self._claims([claim])
        self.xn.alloc_held(who, self.number[near], extent, init=())

    def _drop(self, who: Caller, block: int, free: Any = ()) -> None:
        self.xn.drop(who, self.number[block], free=self._claims(free))

    def _readin(self, who: Caller, parent: int, slot: int, block: int) -> None:
        self.xn.readin(who, self.number[parent], slot, self.number[block], 1)

    def _bind(self, who: Caller, parent: int, slot: int, block: int) -> None:
        self.xn.bind(who, self.number[parent], slot, self.number[block], 1)

    def _read(self, who: Caller, block: int) -> None:
        self.xn.read(who, self.number[block], 0, BLOCK)

    def _write(self, who: Caller, block: int) -> None:
        page = self.xn.registered(self.number[block])
        at = TEXT_AT if page is not None and page.type == NUMBER[NODE] else 0
        text = self._letter.get(who.cap, b"?") * (BLOCK - at)
        self.xn.write_raw(who, self.number[block], at, text)

    def _poke(self, who: Caller, block: int) -> None:
        self.xn.write_raw(who, self.number[block], SLOTS_AT, slot_bytes(DATA, self.number[0]))

    def _evict(self, who: Caller, block: int) -> None:
        self.xn.evict(who, [self.number[block]])

    def _writeback(self, who: Caller) -> None:
        self.xn.writeback(who, list(self.number.values()))

    def _sync(self, who: Caller) -> None:
        self.xn.sync(who)

    def _collect(self, who: Caller) -> None:
        while not self.xn.collect(who, 1000).done:
            pass

    def _mount(self, who: Caller, root: int) -> None:
        self.xn.mount_root(who, "ab"[root])

    def _narrow(self, who: Caller, home: str, rights: str) -> None:
        wanted = sum({"r": READ, "w": WRITE, "a": ALLOC}[right] for right in rights)
        cap = self.xn.narrow(who, home, wanted)
        self.callers[home + "'"] = Caller(cap)
        self._letter[cap] = home.encode()

    def _revoke(self, who: Caller, token: str) -> None:
        self.xn.revoke(who, self.callers[token].cap)

    def __getattr__(self, name: str) -> Callable[[Caller, int], object]:
        """Calls on one block have the kernel's own names."""
        call = {"_hold": "hold", "_pin": "pin", "_unpin": "unpin",
                "_lock": "lock", "_unlock": "unlock"}[name]  # fmt: skip
        return lambda who, block: getattr(self.xn, call)(who, self.number[block])

    # -- what can be seen

    def free(self) -> set[int]:
        """The blocks that anybody could have now."""
        return {b for b in self.names if self.xn.find_free(self.number[b], 1)[0] == self.number[b]}

    def cached(self) -> set[int]:
        """The blocks that have a page."""
        return {b for b in self.names if self.xn.registered(self.number[b]) is not None}

    def dirty(self) -> set[int]:
        """The blocks whose page is newer than the disk."""
        pages = {b: self.xn.registered(self.number[b]) for b in self.names}
        return {b for b, page in pages.items() if page is not None and page.dirty}

    def look(self, state: State) -> tuple[object, ...]:
        """What can be seen of each block, as `expected` has it for the same state."""
        xn, out = self.xn, []
        for block in self.names:
            number = self.number[block]
            page = xn.registered(number)
            refs = xn.refs(number)
            seen: tuple[object, ...] = (refs, xn.find_free(number, 1)[0] == number)
            if page is not None:
                kind = KIND.get(page.type)
                bytes_ = xn.read(self.admin, number, 0, BLOCK) if xn.cached(number) else None
                content = self._content(kind, bytes_)
                seen += (kind, page.dirty, page.fresh, page.pinned, page.locked, content)
            out.append(seen)
        return tuple(out)

    def _content(self, kind: str | None, raw: bytes | None) -> object:
        if raw is None:
            return None
        at = TEXT_AT if kind == NODE else 0
        text = raw[at : at + 1].decode(errors="replace").strip("\0")
        if raw[at:] != (text.encode() or b"\0") * (BLOCK - at):
            text = "other bytes"
        return (text, raw[SLOTS_AT : SLOTS_AT + 16 * SLOTS] if kind == NODE else b"")

    def expected(self, state: State) -> tuple[object, ...]:
        """What `look` must show in this state of the specification."""
        out = []
        for block in self.names:
            page = state.blocks.get(block)
            refs = state.owners(block)
            seen: tuple[object, ...] = (refs, state.free(block))
            if page is not None and page.cached:
                node = page.kind == NODE
                slots = b"".join(map(self._slot, page.slots)) if node else b""
                content = (page.text, slots) if page.filled else None
                fresh, locked = node and page.fresh, page.lock is not None
                seen += (page.kind, page.dirty, fresh, page.pins, locked, content)
            out.append(seen)
        return tuple(out)
