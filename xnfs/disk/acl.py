"""The question that every change puts to the file system's own rule: does this block's acl agree?

A type's `acl` sees the old and the new bytes of the block it guards, those of one witness, and who
asks (DESIGN section 7). Here is only which bytes it is shown and when it is asked: once for each
edited block, each newborn, each block that dies. Whether the pointers add up is for `change.py`;
whether the caller may name the blocks, for `syscalls.py`; how acl code is kept harmless, for
`blocktype.py` and the sandbox.

Guarantees: no effect; AclRefused, with the answer, if any acl says no.

Source: Kaashoek et al. 1997, section 4.2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from xnfs.disk.blocktype import MAX_GROUP_IDS, ZERO, BlockType
from xnfs.disk.flow import Edit
from xnfs.disk.records import OP_BIRTH, OP_CHANGE, OP_DEATH, Caller
from xnfs.disk.registry import MetaPage
from xnfs.errors import AclRefused

View: TypeAlias = bytes | bytearray


class Acls:
    """Asks the acls of types. `now`: the clock that they see, ns since 1970."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def ask_all(
        self,
        who: Caller,
        plan: Sequence[Edit],
        births: Sequence[Edit],
        dying: Sequence[Edit],
        witness: Mapping[int, MetaPage],
    ) -> None:
        """Ask for every block of a change: those of `plan`, of which `births` are new, and `dying`.

        `witness`: by edited block, and under 0 the one for all others. Raises AclRefused.
        """
        shown = {edit.block: edit for edit in plan}
        ends = {edit.block for edit in dying}
        if births:
            _name_parents(births, plan)
        for edit in plan:
            if edit.type.acl is not None:
                op = OP_BIRTH if edit.page is None else OP_CHANGE
                mask = int(edit.block in ends)
                self.ask(who, edit.type, op, mask, edit, _witness(edit, shown, witness))
        for edit in dying:
            if edit.type.acl is not None:
                self.ask(who, edit.type, OP_DEATH, 0, edit, _witness(edit, shown, witness))

    def ask(
        self,
        who: Caller,
        kind: BlockType,
        op: int,
        mask: int,
        edit: Edit,
        witness: tuple[int, View],
    ) -> None:
        """Run the type's acl. Raises AclRefused with its answer."""
        if kind.acl is None:
            return
        answer = kind.acl(
            op,
            mask,
            edit.old,
            edit.new,
            witness[1],
            edit.block,
            witness[0],
            who.uid & 0xFFFFFFFF,
            who.gid & 0xFFFFFFFF,
            tuple(who.groups[:MAX_GROUP_IDS]),
            self._now(),
        )
        if answer:
            raise AclRefused(answer, edit.block)


def _witness(
    edit: Edit, shown: Mapping[int, Edit], witness: Mapping[int, MetaPage]
) -> tuple[int, View]:
    """The witness of one edit, number and bytes: a newborn without one is shown its parent.

    If the witness is edited by the same change, a newborn is shown its new bytes, others its old
    ones.
    """
    page = witness.get(edit.block) or witness.get(0)
    number = page.block if page else edit.parent if edit.page is None else 0
    if number in shown:
        seen = shown[number]
        return number, seen.new if edit.page is None else seen.old
    return number, bytes(page.view) if page else ZERO


def _name_parents(births: Sequence[Edit], plan: Sequence[Edit]) -> None:
    """Note for each newborn the first edited block that names it."""
    born = sorted(births, key=lambda edit: edit.block)
    blocks = [edit.block for edit in born]
    for owner in plan:
        for _t, start, count in owner.added:
            for edit in born[bisect_left(blocks, start) : bisect_left(blocks, start + count)]:
                edit.parent = edit.parent or owner.block
