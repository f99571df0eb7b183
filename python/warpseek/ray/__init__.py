"""Search over shards on the machines of a Ray cluster, and indexing into shards there.

:func:`index` makes shards and their list on the cluster; the command ``warpseek shard`` makes
them of an index. See docs/how-to/cluster.md. Ray places, restarts and retries processes; the scan
is the library's own, and answers are those of the whole index, bit for bit.

>>> with Cluster("papers.shards", address="10.0.0.1:6379") as cluster:
...     cluster.search("transformers")[0].id
'a'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from warpseek import _warpseek
from warpseek._arguments import Path, Where, at_least, path_of, search_options
from warpseek._settings import settings
from warpseek.errors import UsageError
from warpseek.index import Index
from warpseek.ray._connection import connect, disconnect
from warpseek.ray._indexing import index
from warpseek.ray._progress import ProgressLine
from warpseek.ray._shards import Placement, Shards
from warpseek.server import Server

if TYPE_CHECKING:
    from warpseek.results import Hits

__all__ = ["Cluster", "index"]


def _n_queries(path: str) -> int | None:
    """The number of queries of a file, where it is told by its head or by its lines."""
    try:
        if path.endswith(".npy"):
            return len(np.load(path, mmap_mode="r"))
        if path.endswith((".jsonl", ".ndjson", ".txt")):
            with open(path, "rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except (OSError, ValueError):
        # Reading the queries tells what is wrong.
        pass
    return None


class _RemoteIndex(Index):
    """An index whose shards actors hold."""

    def __init__(self, path: str, shards: Shards, model: str | None, reranker: str | None) -> None:
        self._path, self._model, self._reranker = path, model, reranker
        self._settings = settings(None, None, None, None)
        self._core = _warpseek.open_remote(path, shards, model, reranker, self._settings)


class Cluster:
    """An index in shards, each held by an actor of a Ray cluster.

    A shard whose process or machine is lost waits for Ray to start it again; a search answers for
    all shards or raises. Queries are embedded, and hits are reranked, in this process.

    Args:
        path: Folder of the shards, or its ``shards.json``. Every machine reads the shards that it
            holds at this path; this process reads the list alone.
        address: Address of the head, such as ``10.0.0.1:6379``; by default the cluster of the
            variable ``RAY_ADDRESS``, else one on this machine for the time of the object.
        replicas: Actors per shard, which take turns.
        cpus_per_shard: CPUs of an actor: Ray's reservation, and its number of threads.
        gpus_per_shard: GPUs of an actor.
        pinned: True if a shard may only be on machines that Ray knows to have it, by a resource
            with the name of its folder: ``ray start --resources '{"00000.ws": 1}'``.
        node_timeout: Seconds to wait for shards whose processes are lost.
        model: Embedding model instead of the one that the shards name.
        reranker: Reranker instead of the best one present; ``"none"`` for none.
        insecure: True to use a cluster without token authentication.

    Raises:
        UsageError: For a cluster without token authentication, unless `insecure` is true.
        IndexIOError: If a shard is missing, or no machine can hold it in time.
        CorruptIndexError: If a shard is damaged or is not the one that the list names.
    """

    def __init__(
        self,
        path: Path,
        *,
        address: str | None = None,
        replicas: int = 1,
        cpus_per_shard: float = 1,
        gpus_per_shard: float = 0,
        pinned: bool = False,
        node_timeout: float = 60,
        model: str | None = None,
        reranker: str | None = None,
        insecure: bool = False,
    ) -> None:
        at_least(1, replicas=replicas)
        self._path = path_of(path)
        self._model, self._reranker = model, reranker
        self._servers: list[Server] = []
        placement = Placement(replicas, cpus_per_shard, gpus_per_shard, pinned, node_timeout)
        # The list is read before a cluster is looked for.
        self._shards = Shards(self._path, placement)
        self._is_own = connect(address, insecure)
        try:
            self._shards.start()
            self._index = _RemoteIndex(self._path, self._shards, model, reranker)
        except BaseException:
            self.close()
            raise

    def search(self, query: Any, k: int = 10, **options: Any) -> Hits | list[Hits]:
        """Searches as :meth:`warpseek.Index.search`, without ``hybrid``."""
        return self._index.search(query, k, **options)

    def batch(
        self,
        queries: Path,
        out: Path,
        k: int = 10,
        *,
        where: Where = None,
        format: str | None = None,
        with_text: bool = False,
        restart: bool = False,
        rerank: bool = False,
        rerank_depth: int | None = None,
        min_score: float | None = None,
        max_per_doc: int | None = None,
        mmr: float | None = None,
        show_progress_bar: bool | None = None,
    ) -> dict[str, Any]:
        """Answers a file of queries into a file, as the command ``warpseek batch``.

        A run that was interrupted is continued by the same call.

        Args:
            queries: File of queries or vectors.
            out: Output file.
            k: Number of hits per query.
            where: Filter.
            format: ``"jsonl"``, ``"trec"`` or ``"parquet"``; by default by the name of `out`.
            with_text: True to write titles and texts too (jsonl).
            restart: True to discard an unfinished earlier run.
            rerank: True to rerank.
            rerank_depth: See :meth:`warpseek.Index.search`.
            min_score: See :meth:`warpseek.Index.search`.
            max_per_doc: See :meth:`warpseek.Index.search`.
            mmr: See :meth:`warpseek.Index.search`.
            show_progress_bar: True, False, or None for a line on a terminal.

        Returns:
            The report: ``queries``, ``hits``, ``seconds``, and ``cluster`` with the seconds during
            which scans were asked for, of the scans of the shard that took longest, of waiting for
            shards beyond that, and of fetching. Some windows of queries are under way at a time, so
            that other work overlaps with scans.
        """
        options = search_options(
            k=k,
            where=where,
            mmr=mmr,
            rerank=rerank,
            rerank_depth=rerank_depth,
            min_score=min_score,
            max_per_doc=max_per_doc,
        )
        source = path_of(queries)
        files = {
            "queries": source,
            "out": path_of(out),
            "format": format,
            "with_text": bool(with_text),
            "restart": bool(restart),
        }
        self._shards.reset_times()
        line, total = ProgressLine(show_progress_bar), _n_queries(source)
        where = f"{len(self._shards)} shards"

        def told(done: int) -> None:
            line.update(done, total, "queries", where)

        try:
            report: dict[str, Any] = self._index._core.batch(files, options, told)
        finally:
            line.close()
        report["cluster"] = self._shards.times()
        return report

    def serve(
        self,
        *,
        name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        api_keys: Sequence[str] = (),
    ) -> Server:
        """Serves the index over HTTP from this process, as :func:`warpseek.serve` does.

        All routes that read are there, ``hybrid`` and looking up documents by their ids left out.
        It stops with the cluster at the latest.

        Args:
            name: Name of the index; by default that of the folder.
            host: Address to listen on. One that other machines reach needs `api_keys`.
            port: Port; 0 for any free one.
            api_keys: Keys, one of which a request must carry.
        """
        if isinstance(api_keys, (str, Mapping)):
            raise UsageError("api_keys must be a list of keys")
        core = _warpseek.Server(
            [(name, self._shards.folder)],
            host,
            port,
            list(api_keys),
            True,
            self._model,
            self._reranker,
            settings(None, None, None, None),
            self._shards,
        )
        self._servers.append(Server(core))
        return self._servers[-1]

    def status(self) -> list[dict[str, Any]]:
        """The shards: folder, rows, and per replica the machine and the device that scans it."""
        return self._shards.status()

    def verify(self) -> list[dict[str, Any]]:
        """Checks the files of every shard on the machine that holds it; see ``warpseek verify``."""
        return self._shards.verify()

    def close(self) -> None:
        """Ends servers, the actors, and the cluster if it was started for this object."""
        while self._servers:
            self._servers.pop().stop()
        self._shards.stop()
        disconnect(self._is_own)
        self._is_own = False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cluster({self._path!r}, {len(self._shards)} shards)"
