"""The index: a folder of documents with their vectors, searched exactly."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, overload

import numpy as np
import numpy.typing as npt

from warpseek import _warpseek
from warpseek import records as _records
from warpseek._arguments import (
    Field,
    Fusion,
    Metadata,
    Path,
    Where,
    at_least,
    field_names,
    ids_of,
    on_error_of,
    path_of,
    plain,
    queries_of,
    search_options,
    settings_of,
)
from warpseek._arrays import as_vectors
from warpseek._progress import Progress
from warpseek._settings import Settings, settings
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.llm import ask
from warpseek.results import AddReport, Answer, Comparison, Evaluation, Hit, Hits, SyncReport

OnError = Literal["raise", "skip"]
Metric = Literal["cosine", "inner_product"]

MEASURES: Final = ("ndcg@10", "mrr@10", "recall@10", "recall@100", "map")


class _Default:
    """Stands for the default embedding model, which the settings may name."""

    def __repr__(self) -> str:
        return "the default model"


DEFAULT_MODEL: Final = _Default()


class Index:
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

    # -- writing -----------------------------------------------------------------------------------

    def add(
        self,
        records: Any,
        *,
        vectors: Any = None,
        id: Field = None,
        text: Field = None,
        title: Field = None,
        metadata: Metadata = None,
        normalize: bool = False,
        on_error: OnError = "raise",
        show_progress_bar: bool | None = None,
    ) -> AddReport:
        """Adds records, embedded by the index's model or with their vectors.

        A record whose id the index has replaces the old document. A record that is there with the
        same content is not embedded again, so that a run that was interrupted goes on where it
        stopped.

        Args:
            records: Dicts, a pandas or polars data frame, an Arrow table, a Hugging Face dataset,
                an iterator of dicts, or of tuples ``(id, text, title, metadata)``.
            vectors: Float array ``[n, dim]`` in the order of the records, stored as given in half
                precision. Texts may be empty then, and nothing is embedded.
            id: Field with the id, or a function of a record. By default the first of ``id``,
                ``_id``, ``doc_id``, ``docid``, ``docno``, ``pid``; `text` and `title` likewise.
            text: Field with the text, or a function of a record.
            title: Field with the title, or a function of a record.
            metadata: Fields to keep as metadata, or a function of a record that returns a dict; by
                default all other fields. Dates become ISO 8601 text, decimals text with all digits,
                NaN and infinity null, which the report notes. All else is kept exactly.
            normalize: True to scale `vectors` to unit length, which an index whose :attr:`metric`
                is the cosine needs.
            on_error: ``"raise"`` stops at a record that cannot be used, after the records before it
                were committed; ``"skip"`` counts it and goes on.
            show_progress_bar: See :meth:`warpseek.Embedder.encode`.

        Raises:
            InputError: For a record that cannot be used, with its number and field.
            IndexLockedError: If another process writes to the index.
        """
        on_error_of(on_error)
        if normalize and vectors is None:
            raise UsageError("normalize is for vectors: the index's model makes unit vectors")
        rows_, total = _records.read(records)
        parts = {"id": id, "text": text, "title": title}
        if callable(metadata) or any(callable(part) for part in parts.values()):
            kept = metadata if callable(metadata) else None
            rows_ = _records.made(rows_, parts, kept)
            id, text, title = (f"{r}()" if callable(p) else p for r, p in parts.items())
            names = field_names(id, text, title, None if callable(metadata) else metadata)
        else:
            names = field_names(id, text, title, metadata)
        array = None if vectors is None else as_vectors(vectors, "vectors", self.dim)
        with Progress(show_progress_bar, total, "records") as progress:
            report = self._core.add(rows_, names, array, normalize, on_error, progress.callback)
        return AddReport(**report)

    def add_files(
        self,
        paths: Path | Sequence[Path],
        *,
        id: str | None = None,
        text: str | None = None,
        title: str | None = None,
        metadata: Sequence[str] | None = None,
        on_error: OnError | None = None,
        prune: bool = False,
        delimiter: str | None = None,
        globs: str | Sequence[str] = (),
        ignore_files: bool = True,
        show_progress_bar: bool | None = None,
    ) -> AddReport:
        """Adds the documents of files and folders, as ``warpseek index`` does.

        Args:
            paths: Files (jsonl, json, csv, tsv, parquet, txt, md, html, rst, org, tex, source code,
                ipynb, eml, pdf, docx, pptx, xlsx, odt, epub) and folders.
            id: Field with the id; `text`, `title` and `metadata` likewise.
            on_error: See :meth:`add`. By default a bad file or record raises if the file is named
                itself, and is skipped below folders; the report's `left_out` counts it.
            prune: True to delete the documents that came from these inputs and are no longer in
                them. Those of files that were skipped are kept.
            delimiter: Delimiter of csv and tsv files; by default it is detected.
            globs: Patterns of files of folders to read, as in ``.gitignore``; with ``!`` in front,
                of files to leave out.
            ignore_files: False to read what ``.gitignore``, ``.ignore`` and ``.warpseekignore``
                name, and folders of tools such as ``node_modules``.
        """
        if on_error is not None:
            on_error_of(on_error)
        given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        names = field_names(id, text, title, metadata)
        with Progress(show_progress_bar, None, "documents") as progress:
            options = {
                "fields": names,
                "on_error": on_error,
                "prune": prune,
                "delimiter": delimiter,
                "globs": [globs] if isinstance(globs, str) else list(globs),
                "no_ignore": not ignore_files,
            }
            report = self._core.add_files(
                [os.fspath(path) for path in given], options, progress.callback
            )
        return AddReport(**report)

    def sync(self, *, show_progress_bar: bool | None = None) -> SyncReport:
        """Brings the index up to date with the files and folders that it has read.

        :meth:`add_files` and ``warpseek index`` record their inputs with the options of reading.
        Only files that have changed since are read, and documents of files and records that are
        gone are deleted. Files whose size and times are the same count as unchanged.

        Raises:
            UsageError: No input is recorded.
            InputError: A recorded input is gone or has an error; the others are up to date.
        """
        with Progress(show_progress_bar, None, "documents") as progress:
            report = self._core.sync(progress.callback)
        return SyncReport(**report)

    def delete(self, ids: str | Iterable[str] | None = None, *, where: Where = None) -> int:
        """Deletes the documents of ids, or those that pass a filter; returns their number.

        An id of no document is a ``doc_id``, and deletes all documents that share it. Ids that the
        index does not have are passed over.
        """
        if ids is None and where is None:
            raise UsageError('delete needs ids or where; where="id IS NOT NULL" deletes all')
        if ids is not None and where is not None:
            raise UsageError("delete takes ids or where, not both: get(ids, where=) finds both")
        return self._core.delete(ids_of(ids), to_filter(where))

    def compact(self) -> dict[str, Any]:
        """Removes deleted rows from the files; rows get new numbers."""
        return self._core.compact()

    # -- reading -----------------------------------------------------------------------------------

    def get(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        where: Where = None,
        limit: int | None = None,
        offset: int = 0,
        include_vectors: bool = False,
    ) -> list[Hit]:
        """Returns rows without a search: those of ids, of a filter, or all.

        Args:
            ids: Ids of documents, of rows, or ``doc_id``; each is returned once, in this order.
                Unknown ones are passed over.
            where: Filter. Without ids, rows come in the order in which they were written.
            limit: Maximum number of rows.
            offset: Rows to pass over first.
            include_vectors: True to set :attr:`Hit.vector`.
        """
        at_least(0, limit=limit, offset=offset)
        wanted = None if ids is None else ids_of(ids)
        return _hits(*self._core.get(wanted, to_filter(where), offset, limit, include_vectors))

    def rows(self, numbers: Iterable[int], *, include_vectors: bool = False) -> list[Hit]:
        """Returns the rows of these numbers, in their order."""
        wanted = [operator.index(number) for number in numbers]
        negative = next((number for number in wanted if number < 0), None)
        if negative is not None:
            raise UsageError(f"there is no row {negative}: -1 stands for a missing one")
        return _hits(*self._core.rows(wanted, include_vectors))

    @overload
    def search(
        self,
        query: str,
        k: int = ...,
        *,
        text: str | Sequence[str] | None = ...,
        where: Where = ...,
        hybrid: bool = ...,
        fusion: Fusion | None = ...,
        mmr: float | None = ...,
        rerank: bool | None = ...,
        rerank_depth: int | None = ...,
        retriever_weight: float | None = ...,
        min_score: float | None = ...,
        max_per_doc: int | None = ...,
        include_vectors: bool = ...,
    ) -> Hits: ...
    @overload
    def search(
        self,
        query: Any,
        k: int = ...,
        *,
        text: str | Sequence[str] | None = ...,
        where: Where = ...,
        hybrid: bool = ...,
        fusion: Fusion | None = ...,
        mmr: float | None = ...,
        rerank: bool | None = ...,
        rerank_depth: int | None = ...,
        retriever_weight: float | None = ...,
        min_score: float | None = ...,
        max_per_doc: int | None = ...,
        include_vectors: bool = ...,
    ) -> Any: ...
    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        text: str | Sequence[str] | None = None,
        where: Where = None,
        hybrid: bool = False,
        fusion: Fusion | None = None,
        mmr: float | None = None,
        rerank: bool | None = None,
        rerank_depth: int | None = None,
        retriever_weight: float | None = None,
        min_score: float | None = None,
        max_per_doc: int | None = None,
        include_vectors: bool = False,
    ) -> Hits | list[Hits]:
        """Searches exactly: the k best rows among all that pass the filter.

        Args:
            query: A text or a vector ``[dim]``, for :class:`Hits`; a list of texts or vectors
                ``[n, dim]``, for a list of them.
            k: Number of hits.
            text: Texts of query vectors, for hybrid search and reranking.
            where: Filter as text (``"year >= 2020 AND lang = 'en'"``) or as a dict
                (``{"year": {"$gte": 2020}}``).
            hybrid: True to combine the dense ranking with BM25's.
            fusion: The combination of a hybrid search: ``"weighted"`` (the default), or ``"rrf"``
                for reciprocal rank fusion.
            mmr: Weight of relevance in maximal marginal relevance, 0..1; 1 is relevance alone.
            rerank: ``None`` reranks queries that have a text if a reranker is present; ``False``
                never, ``True`` in any case.
            rerank_depth: Rows that the reranker reads, by default 50, or `k` if that is more.
            retriever_weight: Weight of the retrieval score beside the reranker's, 0..1. By default
                the reranker's calibration if it was fitted for the index's embedder, else its own
                weight.
            min_score: Minimum ``final_score`` of a hit, the score that orders the hits
                (:attr:`Hits.ordered_by`). Hits below it are left out, and
                :attr:`Hits.below_min_score` is their number; those that were not reranked are left
                out too, and :attr:`Hits.not_reranked` is theirs.
            max_per_doc: Maximum number of hits that share a ``doc_id``.
            include_vectors: True to set :attr:`Hit.vector`.
        """
        texts, vectors, is_one = queries_of(query, text, lambda: self.dim)
        options = search_options(
            k=k,
            where=where,
            hybrid=hybrid,
            fusion=fusion,
            mmr=mmr,
            rerank=rerank,
            rerank_depth=rerank_depth,
            retriever_weight=retriever_weight,
            min_score=min_score,
            max_per_doc=max_per_doc,
        )
        if not texts and vectors is None:
            return []
        results, rows = self._core.search(texts, vectors, options, include_vectors)
        found = [Hits._of(result) for result in results]
        if rows is not None:
            for hit, vector in zip((hit for hits in found for hit in hits), rows, strict=True):
                hit.vector = vector
        return found[0] if is_one else found

    def search_vectors(
        self, queries: Any, k: int, *, where: Where = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Searches for vectors as FAISS does, without texts.

        Args:
            queries: Float array ``[n, dim]``.
            k: Number of rows per query.
            where: Filter.

        Returns:
            Scores ``[n, k]`` (inner products) and row numbers ``[n, k]``, best first; ``-inf`` and
            ``-1`` where fewer rows pass. :meth:`rows` reads the texts.
        """
        at_least(1, k=k)
        vectors = as_vectors(queries, "queries", self.dim)
        return self._core.search_vectors(vectors, k, to_filter(where))

    def search_bm25(self, text: str, k: int = 10, *, where: Where = None) -> Hits:
        """Searches by words alone, ranked by BM25; a hit has at least one of the words."""
        at_least(1, k=k)
        return Hits._of(self._core.search_bm25(text, k, to_filter(where)))

    def compare(
        self,
        query: str,
        depth: int = 25,
        show: int = 3,
        *,
        where: Where = None,
        retriever_weight: float | None = None,
        mmr: float | None = None,
        max_per_doc: int | None = None,
    ) -> Comparison:
        """Retrieves `depth` rows, reranks them, and shows the first `show` of both rankings.

        Without a reranker, the dense ranking is compared with the hybrid one.
        """
        at_least(1, depth=depth, show=show)
        options = search_options(
            k=depth,
            where=where,
            mmr=mmr,
            rerank_depth=depth,
            retriever_weight=retriever_weight,
            max_per_doc=max_per_doc,
        )
        return Comparison._of(self._core.compare(query, depth, show, options))

    def answer(
        self,
        question: str,
        llm: Any = None,
        *,
        k: int = 5,
        where: Where = None,
        hybrid: bool = False,
        fusion: Fusion | None = None,
        rerank: bool | None = None,
        rerank_depth: int | None = None,
        passage_tokens: int = 3000,
        temperature: float = 0.0,
        max_tokens: int = 1024,
        template: str | None = None,
    ) -> Answer:
        """Answers a question from the retrieved passages, and checks every quote in them.

        Args:
            question: The question.
            llm: Chat model: a function of the messages (dicts with ``role`` and ``content``) that
                returns the text; a LangChain chat model; a dict with ``base_url``, ``model`` and
                ``api_key`` of a service that speaks OpenAI's protocol; or ``None`` for the service
                of the settings, by default Groq.
            k: Number of passages.
            passage_tokens: Maximum number of tokens of all passages.
            temperature: Sampling temperature at a service, 0..2.
            max_tokens: Maximum length of the answer of a service, in tokens.
            template: Prompt template (Jinja) instead of the default.
        """
        at_least(1, passage_tokens=passage_tokens, max_tokens=max_tokens)
        options = search_options(
            k=k,
            where=where,
            hybrid=hybrid,
            fusion=fusion,
            rerank=rerank,
            rerank_depth=rerank_depth,
        )
        found, prompt = self._core.prompt(question, passage_tokens, template, options)
        hits = Hits._of(found)
        reply = ask(llm, prompt, temperature, max_tokens, self._settings)
        return Answer(question=question, hits=hits, messages=prompt.messages, **reply)

    def evaluate(
        self,
        queries: Mapping[str, str] | Path,
        qrels: Mapping[str, Mapping[str, int]] | Path,
        *,
        measures: Sequence[str] = MEASURES,
        depth: int = 100,
        rerank: bool | None = None,
        rerank_depth: int = 50,
        retriever_weight: float | None = None,
        where: Where = None,
        hybrid: bool = False,
        fusion: Fusion | None = None,
        show_progress_bar: bool | None = None,
    ) -> Evaluation:
        """Measures the retrieval, and its reranking, on judged queries.

        Args:
            queries: Texts by query id, or a file.
            qrels: Relevance levels by query id and ``doc_id``, or a file (BEIR or TREC).
            measures: ``ndcg@N``, ``mrr@N``, ``recall@N``, ``p@N``, ``map``.
            depth: Documents per query in the run.

        Raises:
            UsageError: If no query has judgments.
            InputError: If the index holds none of the judged documents.
        """
        total = len(queries) if isinstance(queries, Mapping) else None
        at_least(1, depth=depth, rerank_depth=rerank_depth)
        options = search_options(
            k=depth,
            where=where,
            hybrid=hybrid,
            fusion=fusion,
            rerank=rerank,
            retriever_weight=retriever_weight,
        )
        with Progress(show_progress_bar, total, "queries") as progress:
            report = self._core.evaluate(
                plain(queries),
                plain(qrels),
                list(measures),
                depth,
                rerank_depth,
                options,
                progress.callback,
            )
        for warning in report["warnings"]:
            logging.getLogger("warpseek").warning("%s", warning)
        return Evaluation(**report)

    def verify(self, sample: int = 0) -> list[dict[str, Any]]:
        """Checks every file of the index, and that `sample` searches are exact.

        Returns:
            Dicts with ``check`` and ``problem``, which is ``None`` where all is well.
        """
        at_least(0, sample=sample)
        return self._core.verify(sample)

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


def _hits(rows: list[dict[str, Any]], vectors: Any) -> list[Hit]:
    """Rows of the core as hits, with their vectors if there are any."""
    hits = [Hit(**row) for row in rows]
    if vectors is not None:
        for hit, vector in zip(hits, vectors, strict=True):
            hit.vector = vector
    return hits


def _open(path: str, model: str | None, reranker: str | None, given: Settings) -> Index:
    return Index(path, model=model, reranker=reranker, **given)
