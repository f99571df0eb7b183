"""A line of progress on the terminal."""

from __future__ import annotations

import sys
import time

# Seconds between two changes of the line.
_PAUSE = 0.5


class ProgressLine:
    """A line on stderr that is written over and over. `show` is None for one on a terminal."""

    def __init__(self, show: bool | None) -> None:
        self._shows = sys.stderr.isatty() if show is None else show
        self._started = time.monotonic()
        self._changed = 0.0
        self._first: float | None = None
        self._unit = ""

    def update(self, done: float, total: float | None, unit: str, where: str) -> None:
        """Shows how much of `total` is done, `where`, how fast, and when it will be done.

        What was done before the first call of a unit counts for nothing in the speed.
        """
        now = time.monotonic()
        if self._first is None or unit != self._unit:
            self._first, self._started, self._unit = done, now, unit
        if not self._shows or now - self._changed < _PAUSE:
            return
        self._changed = now
        speed = (done - self._first) / max(now - self._started, 1e-9)
        parts = [f"{done:,.0f}{'' if total is None else f' of {total:,.0f}'} {unit}", where]
        parts.append(f"{speed:,.0f} {unit}/s")
        if total is not None and speed > 0:
            left = max(0.0, total - done) / speed
            parts.append(f"ETA {left // 3600:02.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f}")
        print("\r\x1b[K" + ", ".join(part for part in parts if part), end="", file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Clears the line."""
        if self._shows and self._changed:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
