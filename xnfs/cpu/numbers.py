"""The machine's numbers: instructions, system calls, causes of exceptions, kinds of upcalls.

`xnfs.calls` to programs. A program yields an int, which is computing for so many cycles, or a tuple
of one of these numbers and its operands:

    word = yield (calls.LOAD, address)
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
"""

from __future__ import annotations

from typing import Final

#: Whichever there is: a frame, a processor, a position.
ANY: Final = -1

# --- instructions: the processor carries them out, the kernel is not entered --------------------
CLOCK: Final = 1  # () -> cycles since the machine was started
LOAD: Final = 2  # (address) -> the 64-bit word there; addresses of words are multiples of 8
STORE: Final = 3  # (address, word)
READ_BYTES: Final = 4  # (address, count) -> bytes; a copy loop that stays inside a page
WRITE_BYTES: Final = 5  # (address, bytes)
SET_REGISTERS: Final = 6  # (r0, r1, r2): the three that an exception saves
REGISTERS: Final = 7  # () -> (r0, r1, r2)

# --- environments -------------------------------------------------------------------------------
SPAWN: Final = 16  # (entry, args, account, token) -> id
EXIT: Final = 17  # (status)
END: Final = 18  # (id, token)
HANDLER: Final = 19  # (kind, entry or 0)
SAVE_AREA: Final = 20  # (frame, offset, token)
GIVE_QUOTA: Final = 21  # (from, to, frames, slots, environments, token)
QUOTA: Final = 22  # (account, token) -> (frames, slots, environments) not used

NULL: Final = 23  # (): into the kernel and out again

# --- the processor ------------------------------------------------------------------------------
YIELD: Final = 24  # (id or 0): give the rest of the slice to it, or to the next
SLEEP: Final = 25  # (time): no slices before; 0 = until woken
WAKE: Final = 26  # (id, token)
SLOT_ALLOC: Final = 27  # (account, processor, position, token) -> (processor, position)
SLOT_FREE: Final = 28  # (processor, position, token)
SOON: Final = 29  # (1 or 0): after a sleep, the next free slot
PREDICATE: Final = 30  # (source, frames, token) -> number
PREDICATE_FREE: Final = 31  # (number)
WAIT: Final = (
    32  # (number, args, time or 0) -> True: it holds; False: the time, a wake or an upcall
)
CALL: Final = 33  # (id, r0, r1, r2) -> (r0, r1, r2)
SEND: Final = 34  # (id, r0, r1, r2)
REVOKE_SLOTS: Final = 35  # (account, slots, patience, to, token) -> positions got at once

# --- capabilities -------------------------------------------------------------------------------
NARROW: Final = 40  # (token, resource, rights) -> token
GRANT: Final = 41  # (token, id) -> token
ACCEPT: Final = 42  # () -> tokens granted and not yet accepted
REVOKE: Final = 43  # (token)

# --- memory -------------------------------------------------------------------------------------
FRAME_ALLOC: Final = 48  # (account, frame, token) -> frame, cleared
FRAME_FREE: Final = 49  # (frame, token)
FRAME_GIVE: Final = 50  # (frame, token, account, consent)
FRAME_LIMIT: Final = 51  # (frame, readers, writers, token)
CLEAR_BITS: Final = 52  # (frame, bits, token)
BIND: Final = 53  # (page, frame, rights, token)
PIN: Final = 54  # (page, frame, rights, token)
UNBIND: Final = 55  # (page)
RELEASE: Final = 56  # (frame)
REVOCATION: Final = 57  # (style)
REVOKE_FRAMES: Final = 58  # (account, frames, patience, to, token) -> frames got at once
VECTOR: Final = 59  # () -> frames taken by force since the last call

#: One more than the largest number.
LIMIT: Final = 128

# --- causes of exceptions -----------------------------------------------------------------------
TLB_LOAD: Final = 1  # no translation, for a load
TLB_STORE: Final = 2  # no translation, for a store
PROTECTION: Final = 3  # a store through a binding that only reads
ADDRESS: Final = 4  # misaligned, or beyond the address space
ILLEGAL: Final = 5  # no such instruction

# --- kinds of upcalls ---------------------------------------------------------------------------
EXCEPTION: Final = 0  # entry(cause, address, pc)
REVOKED: Final = 1  # entry(frames wanted, deadline)
REPOSSESSED: Final = 2  # entry(): look at the repossession vector
PROLOGUE: Final = 3  # entry(end of the slice)
EPILOGUE: Final = 4  # entry(when the environment is ended if it still has the processor)
CALLED: Final = 5  # entry(caller, r0, r1, r2); returns the three for the caller
SENT: Final = 6  # entry(sender, r0, r1, r2)
SLOTS_REVOKED: Final = 7  # entry(positions wanted, deadline)
KINDS: Final = 8

# --- how an environment is asked for frames ------------------------------------------------------
TRANSPARENT: Final = 0
NOTIFY: Final = 1
COOPERATIVE: Final = 2

# --- bits of a frame, exposed --------------------------------------------------------------------
REFERENCED: Final = 1  # loaded into a TLB since the bit was cleared
MODIFIED: Final = 2  # stored to

# --- how a handler of exceptions leaves: what its generator returns ------------------------------
RETRY: Final = None  # carry the instruction out again
SKIP: Final = "skip"  # (SKIP, value): go on behind it, as if it had given that value
UNWIND: Final = "unwind"  # (UNWIND, exception): go on with that raised in the interrupted code

# --- states of an environment, as exposed -------------------------------------------------------
NONE: Final = 0
READY: Final = 1
ASLEEP: Final = 2
ENDED: Final = 3
WAITING: Final = 4  # for a predicate
CALLING: Final = 5  # until the other returns
