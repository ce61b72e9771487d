"""How much may be on the way: slow start, congestion avoidance, and what a loss does to both.

Sources: RFC 5681; RFC 6928 (ten segments to begin with); RFC 3465 (bytes are counted, not
acknowledgements). What is lost, and what is sent instead, is `scoreboard` and `sender`.
"""

from __future__ import annotations

from typing import Final

_UNBOUNDED: Final = 1 << 62


def initial_window(mss: int) -> int:
    """RFC 6928, section 2."""
    return min(10 * mss, max(2 * mss, 14600))


class Reno:
    """The congestion window, in bytes."""

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.window = self.initial
        self.threshold = _UNBOUNDED
        self._counted = 0  # bytes acknowledged since the window last grew, in avoidance

    @property
    def initial(self) -> int:
        """What may be on the way at first."""
        return initial_window(self.mss)

    def set_mss(self, mss: int) -> None:
        """Before the first data, or when a smaller path was found."""
        if self.window == self.initial:
            self.mss = mss
            self.window = self.initial
        self.mss = mss

    def acknowledged(self, count: int) -> None:
        """So many bytes more have arrived, while the window was what held the sender back."""
        if self.window < self.threshold:
            self.window += min(count, 2 * self.mss)
            return
        self._counted += count
        if self._counted >= self.window:
            self._counted -= self.window
            self.window += self.mss

    def lost(self, flight: int) -> None:
        """A segment was lost and others arrived: halve, and go on (section 3.2)."""
        self.threshold = max(flight // 2, 2 * self.mss)
        self.window = self.threshold
        self._counted = 0

    def timed_out(self, flight: int, first: bool) -> None:
        """Nothing arrives any more: begin anew with one segment (section 3.1, equation 4).

        `first`: this segment has not timed out before, so `flight` says something.
        """
        if first:
            self.threshold = max(flight // 2, 2 * self.mss)
        self.window = self.mss
        self._counted = 0

    def idle(self) -> None:
        """Nothing was sent for a timeout: what the window knew of the path is old (section 4.1)."""
        self.window = min(self.window, self.initial)
