"""Loads and stores: translation in hardware, in the kernel, in the application.

A miss in the TLB goes to the software TLB, then to the environment's bootstrapping segment, which
the kernel refills so that there is a place where handlers never miss; then it is an exception, and
which structure the application looks in is its own affair.

The hardware has one bit that matters: a store through an entry that is not DIRTY traps. The kernel
sets the frame's MODIFIED bit then, and REFERENCED when a translation is loaded. `CLEAR_BITS` makes
both be noticed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xnfs.cpu.dispatch import Fault, operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    ADDRESS,
    LOAD,
    MODIFIED,
    PROTECTION,
    READ_BYTES,
    REFERENCED,
    STORE,
    TLB_LOAD,
    TLB_STORE,
    WRITE_BYTES,
)
from xnfs.cpu.processor import Processor
from xnfs.errors import Refused
from xnfs.memory.frames import FRAME
from xnfs.memory.tlb import DIRTY, PAGE_BITS, WRITABLE

if TYPE_CHECKING:
    from xnfs.machine import Machine

_ADDRESSES: Final = 1 << PAGE_BITS + 12
#: Bits that no address of a word has.
_BAD_WORD: Final = ~(_ADDRESSES - 8)


class Access:
    """The part of the machine that translates addresses."""

    def __init__(self, machine: Machine) -> None:
        self._costs = machine.costs
        self._translations = machine.translations
        self._words = machine.frames.words()
        self._view = machine.frames.view
        self._bits = machine.bits
        self.misses = 0  # in a hardware TLB
        self.stlb_hits = 0
        self.refills = 0  # from bootstrapping segments
        self.exceptions = 0  # left to applications

    @operation(LOAD, "access", instruction=True)
    def load(self, cpu: Processor, env: Environment, address: int) -> int:
        """The word at an address."""
        if address & _BAD_WORD:
            raise Fault(ADDRESS, address)
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_LOAD)
        word: int = self._words[entry >> 2 << 9 | (address & 4095) >> 3]
        return word

    @operation(STORE, "access", instruction=True)
    def store(self, cpu: Processor, env: Environment, address: int, word: int) -> None:
        """Put a word at an address. Raises Refused: not 64 bits."""
        if address & _BAD_WORD:
            raise Fault(ADDRESS, address)
        if word >> 64:
            raise Refused("a word has 64 bits")
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_STORE)
        if not entry & DIRTY:
            entry = self._first_store(cpu, env, address, entry)
        self._words[entry >> 2 << 9 | (address & 4095) >> 3] = word

    @operation(READ_BYTES, "access", instruction=True)
    def read_bytes(self, cpu: Processor, env: Environment, address: int, count: int) -> bytes:
        """Bytes of one page: a copy loop. Raises Refused: they are not in one page."""
        at = self._span(address, count)
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_LOAD)
        cpu.now += (count >> 3) * self._costs.word
        return bytes(self._view(entry >> 2)[at : at + count])

    @operation(WRITE_BYTES, "access", instruction=True)
    def write_bytes(self, cpu: Processor, env: Environment, address: int, data: bytes) -> None:
        """Put bytes into one page: a copy loop. Raises Refused: they are not in one page."""
        at = self._span(address, len(data))
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_STORE)
        if not entry & DIRTY:
            entry = self._first_store(cpu, env, address, entry)
        cpu.now += (len(data) >> 3) * self._costs.word
        self._view(entry >> 2)[at : at + len(data)] = data

    def _span(self, address: int, count: int) -> int:
        """The offset in the page."""
        if not 0 <= address < _ADDRESSES:
            raise Fault(ADDRESS, address)
        at = address & (FRAME - 1)
        if not 0 < count <= FRAME - at:
            raise Refused(f"{count} bytes at {at} of a page")
        return at

    def _miss(self, cpu: Processor, env: Environment, address: int, cause: int) -> int:
        """A translation that the TLB has not. Raises Fault: only the application may know one."""
        page = address >> 12
        key = env.id << PAGE_BITS | page
        self.misses += 1
        entry = self._translations.find(key)
        if entry is not None:
            self.stlb_hits += 1
            cpu.now += self._costs.stlb
            cpu.tlb.put(key, entry)
        elif env.pinned is not None and page in env.pinned:
            self.refills += 1
            cpu.now += self._costs.refill
            entry = env.pinned[page]
            self._translations.put(cpu, key, entry)
        else:
            self.exceptions += 1
            raise Fault(cause, address)
        self._bits[entry >> 2] |= REFERENCED
        return entry

    def _first_store(self, cpu: Processor, env: Environment, address: int, entry: int) -> int:
        """A store through a translation that has seen none. Raises Fault: it may not."""
        if not entry & WRITABLE:
            raise Fault(PROTECTION, address)
        key = env.id << PAGE_BITS | address >> 12
        entry |= DIRTY
        cpu.tlb.entries[key] = entry
        self._translations.change(key, entry)
        self._bits[entry >> 2] |= MODIFIED
        return entry
