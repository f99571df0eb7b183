"""Storage of vectors that a framework hands over, and what its vector stores share."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warpseek._arrays import Vectors
from warpseek.errors import IndexNotFoundError, UsageError
from warpseek.index import Index, Metric
from warpseek.results import Hit

#: Id, text, title and metadata of a document.
Record = tuple[str, str, str, dict[str, Any]]

#: Filter that passes every document.
EVERY_DOCUMENT = "document.id IS NOT NULL"

#: Largest deviation of a norm from 1 at which a vector counts as one of unit length.
_UNIT_TOLERANCE = 1e-5

_NOT_FINITE = "a value that is infinite or no number: leave the text out, or embed it again"


class IndexStore:
    """An index that is opened if it exists, and otherwise created when its dimension is known.

    Without a path and an index the documents are stored in a temporary folder, which is deleted
    with this object, or at the latest when the process ends.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        index: Index | None = None,
        model: str | None = None,
        embeds: bool = False,
    ) -> None:
        """Opens the index.

        Args:
            path: Folder of the index.
            index: An open index, instead of a path.
            model: Embedding model of the index.
            embeds: True if a new index embeds by a model of its own, by default that of
                the setting `WARPSEEK_MODEL`; False if vectors are handed over.
        """
        if path is not None and index is not None:
            raise UsageError("give path or index, not both: an open index has a path")
        if index is not None and model is not None:
            raise UsageError("give index or model, not both: open the index with the model")
        self._lock = threading.Lock()
        self._temporary: Path | None = None
        self._index = index
        if index is not None:
            self._path = Path(index.path)
            return
        if path is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="warpseek-"))
            weakref.finalize(self, _remove, self._temporary, os.getpid())
            self._path = self._temporary / "index"
        else:
            self._path = Path(path)
            with contextlib.suppress(IndexNotFoundError):
                self._index = Index.open(self._path, model=model)
        if self._index is None and embeds:
            given: dict[str, Any] = {} if model is None else {"model": model}
            self._index = self._keep(Index.create(self._path, **given))

    def __reduce__(self) -> tuple[object, ...]:
        if self._temporary is not None:
            raise TypeError("a store in a temporary folder cannot be pickled: give it a path")
        if self._index is not None:
            return IndexStore, (None, self._index)
        return IndexStore, (self._path,)

    def _keep(self, index: Index) -> Index:
        """The index, which is closed before its temporary folder is deleted."""
        if self._temporary is not None:
            # Finalizers run in the reverse order of their creation.
            weakref.finalize(self, index.close)
        return index

    @property
    def path(self) -> Path:
        """Folder of the index."""
        return self._path

    @property
    def index(self) -> Index | None:
        """The index; None as long as nothing was stored in a new one."""
        return self._index

    def filled(self, where: str | None) -> Index | None:
        """The index; None if it has no documents, so that no field of a filter is known."""
        index = self._index
        if index is None or where is None or index.fields():
            return index
        return index if len(index) > 0 else None

    def for_vectors(self, dim: int, metric: Metric) -> Index:
        """The index for vectors of this dimension; a new one gets the metric."""
        with self._lock:
            if self._index is None:
                self._index = self._keep(open_or_create(self._path, dim, metric))
            index = self._index
        check_dim(index, dim)
        return index


def metric_of(normalize: bool) -> Metric:
    """The metric of a new index of vectors that are scaled to unit length, or stay as they are."""
    return "cosine" if normalize else "inner_product"


def open_or_create(
    path: str | os.PathLike[str], dim: int, metric: Metric, device: str | None = None
) -> Index:
    """The index in a folder; a new one of this dimension and metric where there is none."""
    try:
        return Index.open(path, device=device)
    except IndexNotFoundError:
        return Index.create(path, model=None, dim=dim, metric=metric, exist_ok=True, device=device)


def _remove(folder: Path, process: int) -> None:
    """Deletes a temporary folder, in the process that made it and not in its forks."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def store_records(index: Index, records: Sequence[Record], rows: Vectors | None) -> None:
    """Adds records, the last of equal ids, with their vectors; warns of what is not kept."""
    kept = sorted({record[0]: at for at, record in enumerate(records)}.values())
    report = index.add(
        [records[at] for at in kept],
        vectors=None if rows is None else rows[kept],
        show_progress_bar=False,
    )
    for note in report.notes:
        warnings.warn(note, stacklevel=4)
    if report.rows_truncated:
        warnings.warn(
            f"{report.rows_truncated} texts are longer than the embedding model reads, and their "
            f"last {report.tokens_lost} tokens are not searched by meaning: split the texts first",
            stacklevel=4,
        )


def check_dim(index: Index, dim: int) -> None:
    """Refuses vectors of another dimension than the rows of the index."""
    if index.dim != dim:
        raise UsageError(
            f"the embeddings have {dim} dimensions, and the vectors of the index '{index.path}' "
            f"have {index.dim}: use the embedding model with which the index was made"
        )


def rows_of(vectors: Sequence[Sequence[float]] | npt.ArrayLike, normalize: bool) -> Vectors:
    """Embeddings as rows, scaled to unit length if `normalize`. Zero vectors stay zero."""
    try:
        rows = np.asarray(vectors, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "the embeddings are not lists of numbers of one length: " + str(error)
        ) from error
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UsageError(f"the embeddings have the shape {rows.shape}, not [texts, dimensions]")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise UsageError(f"embedding {bad[0]} holds {_NOT_FINITE}")
    return unit_rows(rows)[0] if normalize else rows


def row_of(
    vector: Sequence[float] | npt.ArrayLike,
    normalize: bool,
    name: str = "the embedding of the query",
) -> Vectors:
    """One embedding as a row, scaled to unit length if `normalize`.

    Args:
        vector: The embedding.
        normalize: True to scale it.
        name: Name of the embedding in messages.
    """
    try:
        row = np.asarray(vector, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} is not a list of numbers: {error}") from error
    if row.ndim != 1 or len(row) == 0:
        raise UsageError(f"{name} has the shape {row.shape}: give one list of numbers")
    if not np.isfinite(row).all():
        raise UsageError(f"{name} holds {_NOT_FINITE}")
    return unit_rows(row[None])[0][0] if normalize else row


def unit_rows(rows: Vectors) -> tuple[Vectors, npt.NDArray[np.float64]]:
    """Rows scaled to unit length, and the lengths by which they were divided.

    Zero rows, and rows of unit length but for rounding, are not divided: their divisor is 1.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    is_scaled = (norms > 0) & (np.abs(norms - 1) > _UNIT_TOLERANCE)
    divisors = np.where(is_scaled, norms, 1.0)
    if is_scaled.any():
        rows = rows.copy()
        scaled = rows[is_scaled].astype(np.float64) / divisors[is_scaled, None]
        rows[is_scaled] = scaled.astype(np.float32)
    return rows, divisors


def diversified(
    hits: Sequence[Hit],
    vector: Vectors | None,
    k: int,
    lambda_mult: float,
    *,
    is_scaled: bool = False,
) -> list[Hit]:
    """Up to `k` hits, selected by maximal marginal relevance.

    Each time the hit with the greatest `lambda * relevance - (1 - lambda) * max cos(hit, selected)`
    is selected; ties go to the first.

    Args:
        hits: The candidates with their vectors, best first.
        vector: The query where scores are inner products with it, which are divided by the lengths
            of both; None where they are no inner products, or cosines already.
        k: Number of hits to select.
        lambda_mult: Weight of relevance, 0..1; 1 is relevance alone.
        is_scaled: True for scores that are divided by the greatest magnitude: those of a hybrid
            search, and inner products with a query whose vector is not at hand.
    """
    if not 0 <= lambda_mult <= 1:
        raise UsageError(f"the MMR lambda is {lambda_mult}; it must lie in 0..1")
    if not hits:
        return []
    rows = np.asarray([hit.vector for hit in hits], dtype=np.float64)
    relevance = np.asarray([score_of(hit) for hit in hits], dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1)
    if is_scaled:
        relevance /= max(float(np.abs(relevance).max()), np.finfo(np.float64).tiny)
    elif vector is not None:
        lengths = norms * np.linalg.norm(vector)
        relevance /= np.where(lengths > 0, lengths, 1)
    rows /= np.where(norms > 0, norms, 1)[:, None]
    left = np.ones(len(rows), dtype=bool)
    selected: list[int] = []
    # Greatest cosine of each row with a selected one.
    similarity = np.zeros(len(rows))
    while len(selected) < k and left.any():
        value = lambda_mult * relevance - (1 - lambda_mult) * similarity
        best = int(np.argmax(np.where(left, value, -np.inf)))
        cosines = rows @ rows[best]
        similarity = np.maximum(similarity, cosines) if selected else cosines
        selected.append(best)
        left[best] = False
    return [hits[at] for at in selected]


def score_of(hit: Hit) -> float:
    """The score of a hit of a search."""
    if hit.score is None:
        raise UsageError(f"document '{hit.id}' has no score: it was read by its id, not searched")
    return hit.score


def check_options(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses options that do not exist, as Python does with arguments."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"{where} has no option '{name}'; {hint}")
