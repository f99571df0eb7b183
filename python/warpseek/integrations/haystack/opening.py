"""Indexes that are opened at their first use, and what searches of them take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from haystack.document_stores.types import FilterPolicy

from warpseek import Index, UsageError

__all__ = ["LazyIndex", "check_query", "policy_of"]

#: Files of an index that every commit changes.
_COMMITTED = ("manifest.json", "documents.db", "documents.db-wal")

#: Age at which no later change of a file can bear the same time, whatever the file system.
_SETTLED_NS = 3_000_000_000


class LazyIndex:
    """An index that is opened at its first use, and that sees what others commit.

    It is reopened only if the files of its folder changed, which takes a small part of the time of
    a search.
    """

    def __init__(self, path: str, opens: Callable[[], Index]) -> None:
        """Keeps the folder, and the function that opens the index."""
        self.lock = threading.RLock()
        self._files = [os.path.join(path, name) for name in _COMMITTED]
        self._opens = opens
        self._index: Index | None = None
        self._seen: list[tuple[int, ...]] | None = None

    def current(self) -> Index:
        """Returns the index as it was last committed."""
        with self.lock:
            state = self._state()
            if self._index is None:
                self._index = self._opens()
            elif state is None or state != self._seen:
                self._index.refresh()
            self._seen = state
            return self._index

    def close(self) -> None:
        """Closes the index. The next use opens it again."""
        with self.lock:
            if self._index is not None:
                self._index.close()
                self._index = None

    def _state(self) -> list[tuple[int, ...]] | None:
        """Returns what tells the files from later ones; None if they changed just now."""
        latest = time.time_ns() - _SETTLED_NS
        state: list[tuple[int, ...]] = []
        for file in self._files:
            try:
                found = os.stat(file)
            except OSError:
                state.append(())
                continue
            if found.st_mtime_ns > latest:
                return None
            state.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return state


def check_query(query: Any) -> None:
    """Refuses a query without text."""
    if not isinstance(query, str) or not query.strip():
        raise UsageError(f"the query must be a text that is not blank, and is {query!r}")


def policy_of(filter_policy: FilterPolicy | str) -> FilterPolicy:
    """Returns the policy of a name."""
    if isinstance(filter_policy, str):
        return FilterPolicy.from_str(filter_policy)
    return filter_policy
