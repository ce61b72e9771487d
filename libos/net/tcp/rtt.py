"""The retransmission timeout, from measured round trips. Source: RFC 6298."""

from __future__ import annotations

from libos.net.base import MILLISECOND
from libos.net.tcp.tuning import Tuning

_GRANULARITY = MILLISECOND


class RttEstimator:
    """Smoothed round-trip time, its variation, and the timeout that follows. Nanoseconds."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self.smoothed: int | None = None
        self._variation = 0
        self._base = tuning.first_rto
        self._doublings = 0

    @property
    def rto(self) -> int:
        """The timeout now, back-off included."""
        return min(self._base << self._doublings, self._tuning.max_rto)

    def sample(self, rtt: int) -> None:
        """Take in one measurement, of a segment sent once only (Karn's algorithm)."""
        if self.smoothed is None:
            self.smoothed, self._variation = rtt, rtt // 2
        else:
            self._variation = (3 * self._variation + abs(self.smoothed - rtt)) // 4
            self.smoothed = (7 * self.smoothed + rtt) // 8
        base = self.smoothed + max(_GRANULARITY, 4 * self._variation)
        self._base = max(self._tuning.min_rto, min(base, self._tuning.max_rto))
        self._doublings = 0

    def back_off(self) -> None:
        """Double the timeout: it has just expired (section 5.5)."""
        self._doublings = min(self._doublings + 1, 16)

    def progress(self) -> None:
        """New data was acknowledged, so the path is open: the back-off ends."""
        self._doublings = 0
