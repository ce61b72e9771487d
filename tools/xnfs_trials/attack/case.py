"""One hostile case: what it tries, where the idea is from, and with what it must be refused.

A case is a function that makes hostile calls in a `Session`; the decorator `case` puts it on the
list. What must hold after every case is the session's business, running them `cases.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xnfs import XnError
from xnfs_trials.attack.session import Session

#: Where the ideas come from.
XN: Final = "a hole in the published source of XN"
SOSP97: Final = "Kaashoek et al. 1997, what XN must prevent"
TRIO: Final = "Trio (SOSP 2023): metadata forged by an untrusted library file system"
EBPF: Final = "holes of the eBPF verifier"
SAFE: Final = "safe languages and their escapes"
CAPS: Final = "Engler et al. 1995, capabilities"
TOCTOU: Final = "what is checked is not what is used"
STARVE: Final = "exhaustion"
OWN: Final = "this kernel's own calls"


@dataclass(frozen=True)
class Case:
    """A kind of attack."""

    id: str
    tries: str
    source: str
    refusal: tuple[type[XnError], ...]
    run: Callable[[Session], None]

    @property
    def refused_with(self) -> str:
        """For the table; empty where nothing is refused, but has no effect."""
        return ", ".join(error.__name__ for error in self.refusal)


CASES: Final[dict[str, Case]] = {}


def case(
    id_: str, tries: str, source: str, *refusal: type[XnError]
) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    """Put a function on the list. Without `refusal`, its calls may be answered, but in vain."""

    def register(run: Callable[[Session], None]) -> Callable[[Session], None]:
        if id_ in CASES:
            raise ValueError(f"two cases are called {id_}")
        CASES[id_] = Case(id_, tries, source, refusal, run)
        return run

    return register
