"""What each primitive of the machine costs, in cycles.

The figures are of the order that Engler et al. 1995 measured for Aegis on a 12.5 MHz DECstation
(an exception: 18 instructions, 1.5 us). They are a model, not a measurement; give another `Costs`
to see what depends on them. A field is named after what it prices; `xnfs/cpu/dispatch.py` adds the
price of an operation when it is issued, and a handler may add more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles for each primitive."""

    hz: int = 12_500_000  # cycles in a second
    quantum: int = 195_312  # a time slice: 1/64 s
    excess: int = 4 * 195_312  # time beyond slices, not yet paid for, that ends an environment

    instruction: int = 1  # one that touches no memory
    access: int = 1  # a load or a store that the TLB translates
    word: int = 1  # each word of a block copy

    crossing: int = 20  # into the kernel and out again, with the check of the arguments
    check: int = 12  # a capability: one keyed hash compared
    switch: int = 60  # another environment's context, address-space tag included
    spawn: int = 400  # a new environment

    trap: int = 18  # an exception handed to the application: Aegis's 18 instructions
    resume: int = 6  # the application puts its registers back and jumps; the kernel is not entered
    upcall: int = 18  # any other entry of an application by the kernel
    transfer: int = 12  # a protected control transfer, besides crossing and switch

    download: int = 2000  # code verified and compiled
    step: int = 1  # each step of downloaded code, in the worst case that was proved

    stlb: int = 18  # a TLB miss that the software TLB answers
    refill: int = 24  # a TLB miss in the bootstrapping segment
    bind: int = 10  # an entry put into both TLBs, besides the check
    unbind: int = 6  # a binding broken
    frame: int = 30  # a frame taken or given back
    clear: int = 512  # a frame's words cleared

    def seconds(self, cycles: int) -> float:
        """Cycles as seconds of the machine."""
        return cycles / self.hz

    def cycles(self, seconds: float) -> int:
        """Seconds as cycles."""
        return round(seconds * self.hz)
