"""The index: a folder of documents with their vectors, searched exactly."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from warpseek import _warpseek
from warpseek import records as _records
from warpseek._arguments import (
    Path,
    Where,
    at_least,
    field_names,
    ids_of,
    path_of,
    settings_of,
)
from warpseek._reading import Reading
from warpseek._settings import Settings, settings
from warpseek._writing import Writing
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.results import AddReport

Metric = Literal["cosine", "inner_product"]


class _Default:
    """Stands for the default embedding model, which the settings may name."""

    def __repr__(self) -> str:
        return "the default model"


DEFAULT_MODEL: Final = _Default()


class Index(Writing, Reading):
    """An index folder, open for reading and writing. Threads may share it.

    Every change is committed when its call returns, and later calls of this object see it; what
    other processes commit is seen after :meth:`refresh`. Models are opened when first needed.

    Args:
        path: Folder of the index.
        model: Embedding model instead of the one that the index names: another copy of it, or, for
            imported vectors, the model that made them.
        reranker: Reranker instead of the best one present; ``"none"`` for none.
        device: See :class:`warpseek.Embedder`.
        precision: See :class:`warpseek.Embedder`.
        models_dir: See :class:`warpseek.Embedder`.
        offline: See :class:`warpseek.Embedder`.

    Raises:
        IndexNotFoundError: If there is no index in the folder.
        CorruptIndexError: If its files are damaged, with the remedy.
    """

    def __init__(
        self,
        path: Path,
        *,
        model: str | None = None,
        reranker: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        models_dir: Path | None = None,
        offline: bool | None = None,
    ) -> None:
        self._path = path_of(path)
        self._model = model
        self._reranker = reranker
        self._settings = settings(device, precision, models_dir, offline)
        self._core = _warpseek.Index(self._path, model, reranker, self._settings)

    # -- opening -----------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path, **kwargs: Any) -> Index:
        """Opens the index in a folder; the arguments are those of the class."""
        return cls(path, **kwargs)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        model: str | _Default | None = DEFAULT_MODEL,
        dim: int | None = None,
        truncate_dim: int | None = None,
        metric: Metric | None = None,
        exist_ok: bool = False,
        split_records: bool = False,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
        language: str | None = None,
        **kwargs: Any,
    ) -> Index:
        """Creates an empty index and opens it.

        Args:
            path: Folder of the index; created if it does not exist.
            model: Embedding model; ``None`` for an index of given vectors alone, which needs `dim`.
            dim: Dimensions of the vectors.
            truncate_dim: Number of first dimensions that are kept of the model's vectors, for
                models that were trained for it (Matryoshka).
            metric: ``"cosine"`` for vectors of unit length, or ``"inner_product"`` for vectors of
                any length. By default that of the model, and the inner product for given vectors.
            exist_ok: True to open an index that is there already, of the same settings; one without
                any rows takes the new settings.
            split_records: True to split records into chunks, as running text of files is.
            chunk_tokens: Tokens per chunk; by default 254, or the model's limit if that is less.
            chunk_overlap: Tokens that a chunk repeats of the text before it, by default 32.
            language: Language of the lexical index that ``hybrid=True`` and
                :meth:`search_bm25` read: ``"none"``, or a code such as ``"de"`` or ``"ja"``.
            kwargs: Further arguments of the class.

        Raises:
            UsageError: If the folder holds an index and `exist_ok` is false, or one of other
                settings.
        """
        if model is None and dim is None:
            raise UsageError("model=None needs dim=, the dimensions of the vectors to come")
        at_least(1, dim=dim, truncate_dim=truncate_dim, chunk_tokens=chunk_tokens)
        at_least(0, chunk_overlap=chunk_overlap)
        if model is None and (split_records or chunk_tokens or chunk_overlap):
            raise UsageError("model=None has no tokens to split by: leave out the chunk settings")
        if model is None and truncate_dim is not None:
            raise UsageError("truncate_dim is for vectors of a model, and model is None: use dim=")
        given = settings_of(kwargs)
        index = cls.__new__(cls)
        index._path, index._settings = path_of(path), given
        index._model, index._reranker = None, kwargs.get("reranker")
        index._core = _warpseek.Index.create(
            index._path,
            None if isinstance(model, _Default) else model,
            dim,
            truncate_dim,
            model is not None,
            metric,
            (chunk_tokens, chunk_overlap, split_records),
            language,
            exist_ok,
            index._reranker,
            given,
        )
        return index

    @classmethod
    def import_faiss(
        cls,
        file: Path,
        path: Path,
        *,
        documents: Any = None,
        ids: Iterable[str] | None = None,
        id: str | None = None,
        text: str | None = None,
        title: str | None = None,
        metadata: Sequence[str] | None = None,
        model: str | None = None,
        normalize: bool = False,
        language: str | None = None,
        metric: Metric | None = None,
        **kwargs: Any,
    ) -> Index:
        """Imports an ``IndexFlat`` of FAISS, or a file of vectors (npy, fvecs, fbin), and opens it.

        Args:
            file: The vectors.
            path: Folder of the index. One that is there is added to; ids that it has are replaced.
            documents: Documents in the order of the vectors: a file, or records as for :meth:`add`.
            ids: Ids in the order of the vectors, instead of documents.
            id: Field of the documents with the id; `text`, `title` and `metadata` likewise.
            model: Model that made the vectors, which is needed to search by text.
            normalize: True to scale the vectors to unit length.
            language: See :meth:`create`.
            metric: ``"cosine"``, which scales them too, or ``"inner_product"`` of the vectors as
                they are. By default that of an index that is there; else the cosine if all vectors
                have unit length and the model is compared by it.

        Raises:
            UsageError: If the file ranks by L2 distance and its vectors are not of unit length.
        """
        is_file = isinstance(documents, (str, os.PathLike))
        given = None if documents is None or is_file else _records.read(documents)[0]
        names = field_names(id, text, title, metadata)
        if documents is None:
            for name, value in names.items():
                if value is not None:
                    raise UsageError(f"{name} names a field of the documents: pass documents too")
        report = _warpseek.Index.import_vectors(
            os.fspath(file),
            path_of(path),
            os.fspath(documents) if is_file else None,
            given,
            None if ids is None else ids_of(ids),
            names,
            model,
            normalize,
            language,
            metric,
            settings_of(kwargs),
        )
        _warn(report)
        return cls(path, **kwargs)

    @classmethod
    def import_langchain_faiss(
        cls,
        folder: Path,
        path: Path,
        *,
        index_name: str = "index",
        model: str | None = None,
        normalize: bool = False,
        language: str | None = None,
        metric: Metric | None = None,
        **kwargs: Any,
    ) -> Index:
        """Imports what LangChain's FAISS store saved with ``save_local``, and opens it.

        Nothing in the pickle is executed: its documents are read by a reader that knows their
        classes alone, and anything else is refused by name.

        Args:
            folder: Folder with ``index.faiss`` and ``index.pkl``.
            path: Folder of the index. One that is there is added to; ids that it has are replaced.
            index_name: Base name of the two files.
            model: Model that made the vectors, which is needed to search by text.
            normalize: True to scale the vectors to unit length.
            language: See :meth:`create`.
            metric: See :meth:`import_faiss`.
        """
        report = _warpseek.Index.import_langchain(
            os.fspath(folder),
            index_name,
            path_of(path),
            model,
            normalize,
            language,
            metric,
            settings_of(kwargs),
        )
        _warn(report)
        return cls(path, **kwargs)

    def refresh(self) -> bool:
        """Takes up what other processes committed; returns True if anything was."""
        return self._core.refresh()

    def close(self) -> None:
        """Closes the index. Nothing is lost: every change is committed when its call returns."""
        self._core.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- properties --------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The folder."""
        return self._path

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._core.dim

    @property
    def metric(self) -> Metric:
        """The metric by which the index ranks: the cosine, or the inner product."""
        return "cosine" if self._core.metric == "cosine" else "inner_product"

    @property
    def model_name(self) -> str | None:
        """The embedding model that made the vectors; None for imported vectors."""
        return self._core.model_name

    @property
    def vectors(self) -> npt.NDArray[np.float16]:
        """The rows in half precision, ``[n_rows, dim]``, mapped and read-only, without a copy.

        Deleted rows are among them until :meth:`compact`.
        """
        return self._core.mapped()

    def stats(self) -> dict[str, Any]:
        """Returns counts, sizes, metric, model, language, and the metadata fields with types."""
        return self._core.stats()

    def fields(self) -> dict[str, dict[str, int]]:
        """Returns the metadata fields, those of objects with dots, with their values by type."""
        return self._core.fields()

    def count(self, where: Where = None) -> int:
        """Returns the number of documents; with a filter, of the rows that pass it."""
        return self._core.count(to_filter(where))

    def __len__(self) -> int:
        return self._core.count(None)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._core.contains(id)

    # -- asyncio -----------------------------------------------------------------------------------

    async def asearch(self, query: Any, k: int = 10, **kwargs: Any) -> Any:
        """Searches as :meth:`search` does, in a thread. Cancelling it does not stop the thread."""
        import asyncio

        return await asyncio.to_thread(lambda: self.search(query, k, **kwargs))

    async def aadd(self, records: Any, **kwargs: Any) -> AddReport:
        """Adds records as :meth:`add` does, in a thread. Cancelling it does not stop the thread."""
        import asyncio

        return await asyncio.to_thread(self.add, records, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        return (_open, (self._path, self._model, self._reranker, self._settings))

    def __repr__(self) -> str:
        try:
            n = f"{len(self)} documents"
        except UsageError:
            n = "closed"
        return f"Index({self._path!r}, {n})"


def _warn(report: Mapping[str, Any]) -> None:
    """Logs what an import left out or ranks in another order."""
    for note in report["notes"]:
        logging.getLogger("warpseek").warning("%s", note)


def _open(path: str, model: str | None, reranker: str | None, given: Settings) -> Index:
    return Index(path, model=model, reranker=reranker, **given)
