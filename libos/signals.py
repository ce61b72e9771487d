"""Exceptions as a monolithic system hands them on: a signal path, to count against the exokernel's.

What a UNIX kernel does for a fault that a process wants to handle, step by step, each with what it
costs on this machine (words copied, kernel crossed): the whole register context is saved, the cause
is translated into a signal and looked up, a signal frame is copied out to the user's stack and
checked, a trampoline is entered; when the handler returns, `sigreturn` enters the kernel again,
which copies the frame back in, checks it, and restores everything. The exokernel's path is three
registers and a jump (Engler et al. 1995, section 5.1.2 and table 5).

What Ultrix did besides, and took 150 us for, is not modelled, so the ratio here is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xnfs import Boot, Program, calls

#: Words of a MIPS context: 32 general, 32 floating-point, hi, lo, pc, status, cause, bad address.
CONTEXT: Final = 70
#: Words of a signal frame besides the context: signal, code, mask, trampoline, links.
FRAME: Final = 12


class Signals:
    """A process whose exceptions become signals."""

    def __init__(self, me: Boot, handler: Callable[[int, int], Program]) -> None:
        """`handler(cause, address)` is the user's; what it returns is as for an exception."""
        self._me = me
        self._handler = handler
        self.words = 0  # copied
        self.crossings = 0  # besides the exception itself

    def start(self, frame: int) -> Program:
        """Have exceptions become signals. `frame`: for the save area."""
        yield (calls.SAVE_AREA, frame, 0, self._me.token)
        yield (calls.HANDLER, calls.EXCEPTION, self._kernel)

    def _copy(self, words: int) -> Program:
        self.words += words
        yield words

    def _kernel(self, cause: int, address: int, place: int) -> Program:
        yield from self._copy(CONTEXT)  # save everything, whatever the handler needs
        yield from self._copy(8)  # cause -> signal; process, mask and handler looked up
        yield from self._copy(CONTEXT + FRAME)  # copy out, each word's address checked
        yield from self._cross()  # out to the trampoline
        answer = yield from self._handler(cause, address)
        yield from self._cross()  # sigreturn
        yield from self._copy(CONTEXT + FRAME)  # copy in, checked
        yield from self._copy(CONTEXT)  # restore
        return answer

    def _cross(self) -> Program:
        self.crossings += 1
        yield (calls.NULL,)
