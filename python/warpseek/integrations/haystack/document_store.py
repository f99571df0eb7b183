"""Document store over a warpseek index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from haystack import Document, default_from_dict, default_to_dict, logging
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy

from warpseek import Index, UsageError
from warpseek._arguments import at_least
from warpseek._arrays import Vectors
from warpseek.integrations._store import EVERY_DOCUMENT, metric_of, open_or_create
from warpseek.results import Hit

from .asynchronous import AsyncMethods
from .filters import all_of, count_of, translate, where_of
from .metadata import MetadataMethods
from .opening import LazyIndex, check_query
from .records import check_id, norm_of, row_for_store, to_document, to_record, to_row

__all__ = ["WarpseekDocumentStore"]

logger = logging.getLogger(__name__)

Similarity = Literal["cosine", "dot_product"]


class WarpseekDocumentStore(MetadataMethods, AsyncMethods):
    """Document store that keeps documents in a folder and finds the exact nearest ones.

    Meta, content, blob and sparse embedding come back as they were written. Embeddings are kept in
    half precision. A document without an embedding can be filtered and found by its words; a
    retrieval by embedding never returns it. The index is made when it is first used.

    Args:
        path: Folder of the index.
        embedding_dim: Number of values of each embedding.
        similarity: `"cosine"`, or `"dot_product"` of the embeddings as they are.
        return_embedding: True to have `filter_documents` return the embeddings.
        device: Device that compares embeddings: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None`
            follows the settings.

    Raises:
        ValueError: If an argument is out of its range. At the first use, if the folder holds an
            index of another dimension, or one that a model embedded.
    """

    def __init__(
        self,
        path: str,
        *,
        embedding_dim: int = 384,
        similarity: Similarity = "cosine",
        return_embedding: bool = True,
        device: str | None = None,
    ) -> None:
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, and is {embedding_dim}")
        if similarity not in get_args(Similarity):
            names = " or ".join(map(repr, get_args(Similarity)))
            raise ValueError(f"similarity must be {names}, and is {similarity!r}")
        self.path = str(path)
        self.embedding_dim = embedding_dim
        self.similarity: Similarity = similarity
        self.return_embedding = return_embedding
        self.device = device
        self._lazy = LazyIndex(self.path, self._open)

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments of the store."""
        data: dict[str, Any] = default_to_dict(
            self,
            path=self.path,
            embedding_dim=self.embedding_dim,
            similarity=self.similarity,
            return_embedding=self.return_embedding,
            device=self.device,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WarpseekDocumentStore:
        """Makes the store from what `to_dict` returned."""
        store: WarpseekDocumentStore = default_from_dict(cls, data)
        return store

    def close(self) -> None:
        """Closes the index. The next use opens it again."""
        self._lazy.close()

    @property
    def index(self) -> Index:
        """The index, opened and made if need be."""
        return self._lazy.current()

    def _open(self) -> Index:
        """Opens the index, or makes it; refuses one that is not the store's."""
        metric = metric_of(self.similarity == "cosine")
        opened = open_or_create(self.path, self.embedding_dim, metric, self.device)
        if (model := opened.model_name) is not None:
            opened.close()
            raise UsageError(
                f"the index {self.path} holds chunks that the model {model} embedded: "
                "WarpseekIndexRetriever searches it, and a store needs a folder of its own"
            )
        if (dim := opened.dim) != self.embedding_dim:
            opened.close()
            raise UsageError(
                f"the index {self.path} holds embeddings of {dim} values, and the store was made "
                f"for {self.embedding_dim}: set embedding_dim={dim}"
            )
        return opened

    def count_documents(self) -> int:
        """Returns the number of documents."""
        return len(self.index)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Returns the number of documents that pass a filter."""
        index = self.index
        return count_of(index, translate(filters, index.fields()))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Returns the documents that pass a filter, in the order in which they were written.

        Raises:
            FilterError: If the filter is malformed, or compares what has no order.
        """
        hits = self._hits(filters, include_vectors=self.return_embedding)
        return [to_document(hit, vector=hit.vector) for hit in hits]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Writes documents; none if one of them cannot be kept.

        Args:
            documents: The documents.
            policy: Treatment of a document whose id is there, or stands twice in the list.
                `NONE` is `FAIL`; with `SKIP` the first one stays, with `OVERWRITE` the last one.

        Returns:
            The number of documents given (`OVERWRITE`) or written.

        Raises:
            DuplicateDocumentError: If the policy is `FAIL`.
            ValueError: If `documents` is not a list of documents, or one cannot be kept.
        """
        is_list = isinstance(documents, list)
        if not is_list or any(not isinstance(document, Document) for document in documents):
            raise ValueError("write_documents takes a list of haystack.Document")
        if policy == DuplicatePolicy.NONE:
            policy = DuplicatePolicy.FAIL
        with self._lazy.lock:
            index = self.index
            chosen: dict[str, Document] = {}
            for document in documents:
                check_id(document.id)
                if policy == DuplicatePolicy.OVERWRITE:
                    chosen.pop(document.id, None)
                elif document.id in chosen or document.id in index:
                    if policy == DuplicatePolicy.FAIL:
                        raise DuplicateDocumentError(
                            f"document '{document.id}' is there already, or twice in the list: "
                            "nothing was written; use DuplicatePolicy.SKIP or OVERWRITE"
                        )
                    logger.warning("document '{id}' is there already", id=document.id)
                    continue
                chosen[document.id] = document
            self._write(index, list(chosen.values()))
        return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(chosen)

    def _write(self, index: Index, documents: list[Document]) -> None:
        rows, records = [], []
        is_cosine = self.similarity == "cosine"
        for document in documents:
            row, norm = to_row(document, self.embedding_dim, is_cosine=is_cosine)
            rows.append(row)
            records.append(to_record(document, norm=norm))
        if records:
            index.add(records, vectors=np.stack(rows), show_progress_bar=False)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Deletes documents. Unknown ids are ignored."""
        if document_ids:
            self.index.delete(ids=list(document_ids))

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Deletes every document.

        Args:
            recreate_index: True to remove their rows from the files too, which frees the disk.
        """
        index = self.index
        index.delete(where=EVERY_DOCUMENT)
        if recreate_index:
            index.compact()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Deletes the documents that pass a filter; returns their number."""
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False:
            return 0
        return index.delete(where=where_of(index, condition) or EVERY_DOCUMENT)

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Sets fields of meta in the documents that pass a filter; returns their number."""
        with self._lazy.lock:
            index = self.index
            hits = self._hits(filters, include_vectors=True)
            records = []
            for hit in hits:
                document = to_document(hit, vector=hit.vector)
                document = replace(document, meta={**document.meta, **meta})
                records.append(to_record(document, norm=norm_of(hit)))
            if records:
                rows = np.asarray([hit.vector for hit in hits], dtype=np.float32)
                index.add(records, vectors=rows, show_progress_bar=False)
        return len(records)

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
    ) -> list[Document]:
        """Returns the documents whose embeddings are nearest to the query's, best first.

        Raises:
            ValueError: If the embedding does not fit the store, or `top_k` is less than 1.
            FilterError: If the filter is malformed, or compares what has no order.
        """
        vector = self._query_vector(query_embedding)
        return self._retrieve(vector, filters, top_k, return_embedding=return_embedding)

    def hybrid_retrieval(
        self,
        query: str,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
    ) -> list[Document]:
        """Returns documents by a weighted sum of the scores of the embedding and of BM25.

        Documents without an embedding are left out.

        Raises:
            ValueError: If the query is blank, the embedding does not fit the store, or `top_k` is
                less than 1.
            FilterError: If the filter is malformed, or compares what has no order.
        """
        check_query(query)
        vector = self._query_vector(query_embedding)
        return self._retrieve(vector, filters, top_k, return_embedding=return_embedding, text=query)

    def bm25_retrieval(
        self,
        query: str,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
    ) -> list[Document]:
        """Returns documents that have words of the query, best first by BM25.

        Raises:
            ValueError: If the query is blank, or `top_k` is less than 1.
            FilterError: If the filter is malformed, or compares what has no order.
        """
        check_query(query)
        at_least(1, top_k=top_k)
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False:
            return []
        hits = index.search_bm25(query, top_k, where=where_of(index, condition))
        return [to_document(hit, score=hit.score) for hit in hits]

    def _retrieve(
        self,
        vector: Vectors,
        filters: dict[str, Any] | None,
        top_k: int,
        *,
        return_embedding: bool,
        text: str | None = None,
    ) -> list[Document]:
        at_least(1, top_k=top_k)
        index = self.index
        fields = index.fields()
        has_embedding = {"field": "embedding", "operator": "!=", "value": None}
        condition = all_of([translate(filters, fields), translate(has_embedding, fields)])
        if condition is False:
            return []
        hits = index.search(
            vector,
            top_k,
            text=text,
            hybrid=text is not None,
            where=where_of(index, condition),
            rerank=False,
            include_vectors=return_embedding,
        )
        return [to_document(hit, score=hit.score, vector=hit.vector) for hit in hits]

    def _query_vector(self, embedding: list[float]) -> Vectors:
        is_cosine = self.similarity == "cosine"
        name = "the query's embedding"
        return row_for_store(embedding, self.embedding_dim, name, normalize=is_cosine)

    def _hits(self, filters: dict[str, Any] | None, *, include_vectors: bool = False) -> list[Hit]:
        """Returns the hits of all documents that pass a filter."""
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False:
            return []
        return index.get(where=where_of(index, condition), include_vectors=include_vectors)
