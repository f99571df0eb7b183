"""LangChain: a vector store, embeddings and a reranker (langchain-core 1.x).

::

    from warpseek.integrations.langchain import WarpseekVectorStore

    store = WarpseekVectorStore(path="papers", rerank=True)   # embeds by a model of its own
    store.add_texts(["a text"], [{"year": 2024}], ids=["1"])
    retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"year": {"$gte": 2020}}})

Search options, of every search method and in `search_kwargs`:

- `filter`: dict (`warpseek.filters`) or filter text over the metadata. In a dict `id`, `doc_id` and
  `title` are metadata fields.
- `hybrid`: rank by the scores of the vectors and of BM25; `fusion`: `"weighted"` (the default), or
  `"rrf"` for reciprocal rank fusion.
- `rerank`: order the hits by a cross-encoder; `rerank_depth`: number of hits that it reads.
- `score_threshold`: least relevance; the cosine, or after reranking the reranker's score. Inner
  products have none.
- `fetch_k`, `lambda_mult` (MMR only): number of candidates, weight of relevance.

An option that does not exist is refused.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from warpseek._arrays import Vectors
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.index import Index
from warpseek.integrations._langchain_models import WarpseekEmbeddings, WarpseekReranker
from warpseek.integrations._langchain_search import (
    Search,
    final_score,
    relevance,
    scored,
    to_document,
)
from warpseek.integrations._store import (
    EVERY_DOCUMENT,
    IndexStore,
    Record,
    check_options,
    metric_of,
    row_of,
    rows_of,
    store_records,
)

__all__ = ["WarpseekEmbeddings", "WarpseekReranker", "WarpseekVectorStore"]

_Store = TypeVar("_Store", bound="WarpseekVectorStore")


class WarpseekVectorStore(VectorStore):
    """Documents in a warpseek index: exact search on disk, metadata filters, BM25 and reranking.

    With `embedding` its vectors are stored; without, the index embeds by a model of its own. One
    document is one row, however long: split long texts first.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        index: Index | None = None,
        model: str | None = None,
        normalize: bool = True,
        hybrid: bool = False,
        rerank: bool = False,
    ) -> None:
        """Opens the index, or creates it.

        Args:
            embedding: Embeds documents and queries; None: the index does.
            path: Folder of the index. Without a path and an index the documents are stored in a
                temporary folder, which is deleted with the store.
            index: An open index, instead of a path.
            model: Embedding model of the index if `embedding` is None; by default the one that the
                index names, and for a new one that of the setting `WARPSEEK_MODEL`, by default
                all-MiniLM-L6-v2.
            normalize: True to scale the vectors of `embedding` to unit length, so that scores are
                cosines; False, which needs `embedding`: scores are inner products.
            hybrid: Default of the search option.
            rerank: Default of the search option.
        """
        if embedding is not None and model is not None:
            raise UsageError("give embedding or model, not both: either makes the vectors")
        if embedding is None and not normalize:
            raise UsageError("normalize=False needs `embedding`: give it, or leave normalize out")
        self._embedding = embedding
        self._store = IndexStore(path, index, model, embeds=embedding is None)
        self._normalize = normalize
        self._search = Search(self._store, normalize, hybrid, rerank)
        opened = self._store.index
        has_model = embedding is not None or model is not None
        if not has_model and opened is not None and opened.model_name is None:
            raise UsageError(
                f"the index '{opened.path}' has no embedding model of its own: give `embedding` or "
                "`model`, the one that made its vectors"
            )

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedding object; None if the index embeds."""
        return self._embedding

    @property
    def index(self) -> Index | None:
        """The index; None as long as nothing was added to a new one."""
        return self._store.index

    @classmethod
    def from_texts(
        cls: type[_Store],
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> _Store:
        """Makes a store and adds texts; `kwargs` are those of the constructor."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls: type[_Store],
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> _Store:
        """Makes a store and adds texts; `kwargs` are those of the constructor."""
        store = await run_in_executor(None, partial(cls, embedding, **kwargs))
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts, or replaces those of the same ids; the last of equal ids counts.

        Args:
            texts: The texts.
            metadatas: Metadata of each text. JSON's types are kept exactly; dates, times and
                decimals become text, tuples and sets lists, and NaN null, with a warning.
            ids: Id of each text; where it is missing or None, a random one.
            batch_size: Texts to embed and store at a time; None: all.

        Returns:
            The ids.
        """
        check_options("add_texts", kwargs, ())
        records = _records(texts, metadatas, ids)
        for batch in _batches(records, batch_size):
            if self._embedding is None:
                self._add(batch, None)
            else:
                self._add(batch, self._embedding.embed_documents(_texts(batch)))
        return [record[0] for record in records]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Async variant of `add_texts`."""
        check_options("aadd_texts", kwargs, ())
        records = _records(texts, metadatas, ids)
        for batch in _batches(records, batch_size):
            vectors = None
            if self._embedding is not None:
                vectors = await self._embedding.aembed_documents(_texts(batch))
            await run_in_executor(None, self._add, batch, vectors)
        return [record[0] for record in records]

    def _add(self, records: list[Record], vectors: list[list[float]] | None) -> None:
        rows = None
        index = self._store.index
        if vectors is not None:
            if len(vectors) != len(records):
                raise UsageError(
                    f"the embedding gave {len(vectors)} vectors for {len(records)} texts"
                )
            rows = rows_of(vectors, self._normalize)
            index = self._store.for_vectors(rows.shape[1], metric_of(self._normalize))
        if index is None:
            raise UsageError("the store has no index: give it a path, or an open index")
        store_records(index, records, rows)

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Deletes documents: those of `ids`, those that pass `filter`, or without both all.

        Ids that do not exist are ignored.
        """
        check_options("delete", kwargs, ())
        if ids is not None and filter is not None:
            raise UsageError("delete takes ids or filter, not both")
        where = to_filter(filter, metadata_only=True)
        if filter is not None and where is None:
            raise UsageError("the filter is empty; delete() without it deletes all documents")
        index = self._store.filled(where)
        if index is None:
            return True
        if ids is None:
            index.delete(where=where or EVERY_DOCUMENT)
        elif len(ids) > 0:
            index.delete(_checked_ids(ids))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids; those that do not exist are left out."""
        index = self._store.index
        if index is None or len(ids) == 0:
            return []
        return [to_document(hit) for hit in index.get(_checked_ids(ids))]

    # The async variants await the embedding, and search in a thread.

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The documents that are most similar to a text."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Async variant of `similarity_search`."""
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The documents that are most similar to a text, with the scores that order them.

        The score is the cosine, the fused score of a hybrid search, or the final score after
        reranking; higher is better.
        """
        return scored(final_score, self._search.hits(self._vector(query), query, k, kwargs))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Async variant of `similarity_search_with_score`."""
        vector = await self._avector(query)
        hits = await run_in_executor(None, self._search.hits, vector, query, k, kwargs)
        return scored(final_score, hits)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Documents with their relevance, 0..1: the cosine, or the reranker's score."""
        self._search.check_relevance(kwargs)
        return scored(relevance, self._search.hits(self._vector(query), query, k, kwargs))

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        self._search.check_relevance(kwargs)
        vector = await self._avector(query)
        hits = await run_in_executor(None, self._search.hits, vector, query, k, kwargs)
        return scored(relevance, hits)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """The documents that are most similar to a vector."""
        found = self.similarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The documents that are most similar to a vector, with their scores."""
        vector = row_of(embedding, self._normalize)
        return scored(final_score, self._search.hits(vector, None, k, kwargs))

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Documents that are similar to a text and differ from each other.

        Args:
            query: The text.
            k: Number of documents.
            fetch_k: Number of the most similar documents to choose from.
            lambda_mult: Weight of relevance, 0..1; 1 is relevance alone.
            **kwargs: Search options, without those of reranking.
        """
        return self._search.diverse(self._vector(query), query, k, fetch_k, lambda_mult, kwargs)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Async variant of `max_marginal_relevance_search`."""
        vector = await self._avector(query)
        return await run_in_executor(
            None, self._search.diverse, vector, query, k, fetch_k, lambda_mult, kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Variant of `max_marginal_relevance_search` for a vector."""
        vector = row_of(embedding, self._normalize)
        return self._search.diverse(vector, None, k, fetch_k, lambda_mult, kwargs)

    def _vector(self, query: str) -> Vectors | None:
        """The vector of a query; None if the index embeds."""
        if self._embedding is None:
            return None
        return row_of(self._embedding.embed_query(query), self._normalize)

    async def _avector(self, query: str) -> Vectors | None:
        if self._embedding is None:
            return None
        return row_of(await self._embedding.aembed_query(query), self._normalize)


def _records(
    texts: Iterable[str],
    metadatas: Sequence[dict[str, Any] | None] | None,
    ids: Sequence[str | None] | None,
) -> list[Record]:
    """Records of texts, each with an id."""
    if isinstance(texts, str):
        raise UsageError("texts is one text, not a list of them")
    texts = list(texts)
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(texts):
            raise UsageError(f"there are {len(texts)} texts and {len(given)} {name}")
    new_ids = [str(uuid.uuid4()) if id_ is None else id_ for id_ in ids or [None] * len(texts)]
    rows = zip(_checked_ids(new_ids), texts, metadatas or [None] * len(texts), strict=True)
    return [(id_, text, "", metadata or {}) for id_, text, metadata in rows]


def _batches(records: list[Record], batch_size: int | None) -> Iterator[list[Record]]:
    """The records in lists of at most `batch_size`."""
    if batch_size is not None and batch_size < 1:
        raise UsageError("batch_size must be at least 1")
    step = batch_size or max(len(records), 1)
    return (records[start : start + step] for start in range(0, len(records), step))


def _texts(records: list[Record]) -> list[str]:
    return [record[1] for record in records]


def _checked_ids(ids: Sequence[str]) -> list[str]:
    """Ids as a list; anything but texts is refused."""
    if isinstance(ids, str):
        raise UsageError("ids is one text, not a list of them")
    for id_ in ids:
        if not isinstance(id_, str):
            raise UsageError(f"ids are texts, and {id_!r} is of type {type(id_).__name__}")
    return list(ids)
