"""Progress bars by tqdm, where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from warpseek.errors import UsageError

# Less work than this shows no bar by itself.
_LONG = 1000


class Progress:
    """A bar over `total` items; ``callback`` takes the number of finished ones, or is None.

    `show` is True, False, or None for a bar on a terminal if the work is long.
    """

    def __init__(self, show: bool | None, total: int | None, unit: str) -> None:
        self._bar: Any = None
        self.callback: Callable[[int], None] | None = None
        if show is None:
            show = (total is None or total > _LONG) and sys.stderr.isatty()
            required = False
        else:
            required = show
        if not show:
            return
        try:
            from tqdm.auto import tqdm
        except ImportError:
            if required:
                raise UsageError("show_progress_bar=True needs tqdm: pip install tqdm") from None
            return
        self._bar = tqdm(total=total, unit=f" {unit}")
        self.callback = self._set

    def _set(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
