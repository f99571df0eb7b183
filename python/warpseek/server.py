"""The HTTP server in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from warpseek import _warpseek
from warpseek._settings import settings
from warpseek.errors import UsageError

if TYPE_CHECKING:
    from warpseek.index import Index


class Server:
    """A running server; stops when the ``with`` block or the object ends.

    Attributes:
        url: Address, such as ``http://127.0.0.1:8080``.
    """

    def __init__(self, core: _warpseek.Server) -> None:
        self._core = core
        self.url = core.url

    @property
    def is_running(self) -> bool:
        """True until the server has ended."""
        return self._core.is_running

    def stop(self) -> None:
        """Stops the server and waits for the requests in progress."""
        self._core.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.url!r}, {'running' if self.is_running else 'stopped'})"


def serve(
    *indexes: Index | str | os.PathLike[str],
    names: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    api_keys: Sequence[str] = (),
    read_only: bool = False,
    model: str | None = None,
    reranker: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    models_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> Server:
    """Serves indexes and models over HTTP to clients of OpenAI, Cohere, Jina, Ollama and TEI.

    The command ``warpseek serve`` has more: answers of a chat service, changes by agents, a default
    index.

    >>> with warpseek.serve(index) as server:
    ...     print(server.url)

    Args:
        indexes: Open indexes or their folders; without any, only the models are served. A single
            open index is served with its own models and settings unless others are named.
        names: Names of the indexes; by default those of the folders.
        host: Address to listen on. One that other machines reach needs `api_keys`.
        port: Port; 0 for any free one.
        api_keys: Keys, one of which a request must carry.
        read_only: True to refuse changes of documents.
        model: Embedding model instead of the indexes' own.
        reranker: Reranker instead of the best one present; ``"none"`` for none.
    """
    folders = [
        os.fspath(index) if isinstance(index, (str, os.PathLike)) else index.path
        for index in indexes
    ]
    if names is not None and len(names) != len(folders):
        raise UsageError(f"names has {len(names)} entries for {len(folders)} indexes")
    if isinstance(api_keys, (str, Mapping)):
        raise UsageError("api_keys must be a list of keys")
    if len(indexes) == 1 and not isinstance(indexes[0], (str, os.PathLike)):
        # An open index is served as it was opened.
        only = indexes[0]
        model = only._model if model is None else model
        reranker = only._reranker if reranker is None else reranker
        own = only._settings
        device = own["device"] if device is None else device
        precision = own["precision"] if precision is None else precision
        models_dir = own["models_dir"] if models_dir is None else models_dir
        offline = own["offline"] if offline is None else offline
    given = [None] * len(folders) if names is None else list(names)
    core = _warpseek.Server(
        list(zip(given, folders, strict=True)),
        host,
        port,
        list(api_keys),
        read_only,
        model,
        reranker,
        settings(device, precision, models_dir, offline),
        None,
    )
    return Server(core)
