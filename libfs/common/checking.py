"""What the checker of any file system hands back: findings as data, and a log of them.

Each finding has a code (the same word in tests, images and reports), words for people, and whether
mending it can lose nothing: then a preening fsck mends it unasked. Which there are is each file
system's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in the block `block`. Same shape as those of the kernel's fsck."""

    code: str
    block: int
    message: str
    safe_to_preen: bool = False
    repairable: bool = True


Report = Callable[[Finding], None]
#: code -> (message, safe to preen)
Problems = Mapping[str, tuple[str, bool]]


@dataclass(slots=True)
class Summary:
    """What a check has seen."""

    directories: int = 0
    inodes: int = 0
    findings: int = 0
    unrepaired: int = 0

    @property
    def clean(self) -> bool:
        """Nothing found."""
        return not self.findings


class Log:
    """Counts findings, passes them on, and says whether to mend."""

    def __init__(self, report: Report, problems: Problems, *, repair: bool) -> None:
        self.repair = repair
        self.summary = Summary()
        self._report = report
        self._problems = problems

    def __call__(self, code: str, block: int, *, repairable: bool = True, **words: object) -> bool:
        """Report a finding; whether it is to be mended now."""
        message, safe = self._problems[code]
        self.summary.findings += 1
        mend = self.repair and repairable
        if not mend:
            self.summary.unrepaired += 1
        self._report(Finding(code, block, message.format(**words), safe, repairable))
        return mend
