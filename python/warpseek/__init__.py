"""Fully local semantic search: embed, store, search exactly, rerank, compare.

>>> import warpseek
>>> index = warpseek.Index.create("papers.index")
>>> index.add([{"id": "a", "text": "Attention is all you need"}])
>>> index.search("transformers")[0].id
'a'

The names below are imported when they are first used, so that ``import warpseek`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpseek._warpseek import get_num_threads, set_num_threads
    from warpseek.errors import (
        CorruptIndexError,
        DeviceError,
        IndexIOError,
        IndexLockedError,
        IndexNotFoundError,
        InputError,
        ModelUnavailableError,
        RemoteError,
        UsageError,
        WarpseekError,
    )
    from warpseek.index import Index
    from warpseek.models import CrossEncoder, Embedder
    from warpseek.results import (
        AddReport,
        Answer,
        Comparison,
        Evaluation,
        Hit,
        Hits,
        SyncReport,
    )
    from warpseek.server import Server, serve

    __version__: str

_MODULES = {
    "CorruptIndexError": "errors",
    "DeviceError": "errors",
    "IndexIOError": "errors",
    "IndexLockedError": "errors",
    "IndexNotFoundError": "errors",
    "InputError": "errors",
    "ModelUnavailableError": "errors",
    "RemoteError": "errors",
    "UsageError": "errors",
    "WarpseekError": "errors",
    "Index": "index",
    "CrossEncoder": "models",
    "Embedder": "models",
    "AddReport": "results",
    "Answer": "results",
    "Comparison": "results",
    "Evaluation": "results",
    "Hit": "results",
    "Hits": "results",
    "SyncReport": "results",
    "Server": "server",
    "serve": "server",
    "get_num_threads": "_warpseek",
    "set_num_threads": "_warpseek",
}

__all__ = [
    "AddReport",
    "Answer",
    "Comparison",
    "CorruptIndexError",
    "CrossEncoder",
    "DeviceError",
    "Embedder",
    "Evaluation",
    "Hit",
    "Hits",
    "Index",
    "IndexIOError",
    "IndexLockedError",
    "IndexNotFoundError",
    "InputError",
    "ModelUnavailableError",
    "RemoteError",
    "Server",
    "SyncReport",
    "UsageError",
    "WarpseekError",
    "__version__",
    "get_num_threads",
    "serve",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = importlib.import_module("warpseek._warpseek").version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"warpseek.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'warpseek' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
