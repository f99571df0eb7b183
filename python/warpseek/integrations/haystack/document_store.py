"""Document store over a warpseek index."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from haystack import Document, default_from_dict, default_to_dict, logging
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from numpy.typing import NDArray

from warpseek import Index, IndexNotFoundError

from .asynchronous import AsyncMethods
from .filters import all_of, as_where, filter_errors, translate
from .metadata import MetadataMethods
from .records import check_id, check_vector, norm_of, to_document, to_record, to_row

__all__ = ["WarpseekDocumentStore"]

logger = logging.getLogger(__name__)

Similarity = Literal["cosine", "dot_product"]

_EVERY = "document.id IS NOT NULL"


class WarpseekDocumentStore(MetadataMethods, AsyncMethods):
    """Document store that keeps documents in a folder and finds the exact nearest ones.

    Meta, content, blob and sparse embedding come back as they were written. Embeddings are kept in
    half precision. A document without an embedding can be filtered and found by its words; a
    retrieval by embedding never returns it. The index is made when it is first used.

    Args:
        path: Folder of the index.
        embedding_dim: Number of values of each embedding.
        similarity: `"cosine"`, or `"dot_product"` of the embeddings as they are.
        return_embedding: Whether `filter_documents` returns the embeddings.
        device: Where embeddings are compared: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None`
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
        self._lock = threading.RLock()
        self._opened: Index | None = None

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
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @property
    def index(self) -> Index:
        """The index, opened and made if need be."""
        with self._lock:
            if self._opened is None:
                try:
                    opened = Index.open(self.path, device=self.device)
                except IndexNotFoundError:
                    settings: dict[str, Any] = {"dim": self.embedding_dim, "device": self.device}
                    opened = Index.create(self.path, model=None, exist_ok=True, **settings)
                if (model := opened.model_name) is not None:
                    opened.close()
                    raise ValueError(
                        f"the index {self.path} holds chunks that the model {model} embedded: "
                        "WarpseekIndexRetriever searches it, and a store needs a folder of its own"
                    )
                if opened.dim != self.embedding_dim:
                    dim = opened.dim
                    opened.close()
                    raise ValueError(
                        f"the index {self.path} holds embeddings of {dim} values, and the store "
                        f"was made for {self.embedding_dim}: set embedding_dim={dim}"
                    )
                self._opened = opened
            else:
                self._opened.refresh()
            return self._opened

    def count_documents(self) -> int:
        """Returns the number of documents."""
        return len(self.index)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Returns the number of documents that pass a filter."""
        index = self.index
        condition = translate(filters, index.fields())
        if isinstance(condition, bool):
            return len(index) if condition else 0
        with filter_errors(condition):
            return index.count(condition)

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
            policy: What happens to a document whose id is there, or stands twice in the list.
                `NONE` is `FAIL`; with `SKIP` the first one stays, with `OVERWRITE` the last one.

        Returns:
            The number of documents written.

        Raises:
            DuplicateDocumentError: If the policy is `FAIL`.
            ValueError: If `documents` is not a list of documents, or one cannot be kept.
        """
        is_list = isinstance(documents, list)
        if not is_list or any(not isinstance(document, Document) for document in documents):
            raise ValueError("write_documents takes a list of haystack.Document")
        if policy == DuplicatePolicy.NONE:
            policy = DuplicatePolicy.FAIL
        with self._lock:
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
                            "nothing was written"
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
            recreate_index: Removes their rows from the files too, which frees the disk.
        """
        index = self.index
        index.delete(where=_EVERY)
        if recreate_index:
            index.compact()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Deletes the documents that pass a filter; returns their number."""
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False:
            return 0
        with filter_errors(condition):
            return index.delete(where=_EVERY if condition is True else condition)

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Sets fields of meta in the documents that pass a filter; returns their number."""
        with self._lock:
            index = self.index
            records, rows = [], []
            for hit in self._hits(filters, include_vectors=True):
                document = to_document(hit, vector=hit.vector)
                document = replace(document, meta={**document.meta, **meta})
                records.append(to_record(document, norm=norm_of(hit)))
                rows.append(hit.vector)
            if records:
                index.add(records, vectors=np.stack(rows), show_progress_bar=False)
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
            ValueError: If the embedding does not fit the store.
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
        """Returns documents by embedding and by words (BM25), fused by reciprocal rank.

        Documents without an embedding are left out.

        Raises:
            ValueError: If the query is empty, or the embedding does not fit the store.
            FilterError: If the filter is malformed, or compares what has no order.
        """
        _check_query(query)
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
            ValueError: If the query is empty.
            FilterError: If the filter is malformed, or compares what has no order.
        """
        _check_query(query)
        _check_top_k(top_k)
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False or not top_k:
            return []
        with filter_errors(condition):
            hits = index.search_bm25(query, top_k, where=as_where(condition))
        return [to_document(hit, score=hit.score) for hit in hits]

    def _retrieve(
        self,
        vector: NDArray[np.float32],
        filters: dict[str, Any] | None,
        top_k: int,
        *,
        return_embedding: bool,
        text: str | None = None,
    ) -> list[Document]:
        _check_top_k(top_k)
        index = self.index
        fields = index.fields()
        has_embedding = {"field": "embedding", "operator": "!=", "value": None}
        condition = all_of([translate(filters, fields), translate(has_embedding, fields)])
        if condition is False or not top_k:
            return []
        with filter_errors(condition):
            hits = index.search(
                vector,
                top_k,
                text=text,
                hybrid=text is not None,
                where=as_where(condition),
                rerank=False,
                include_vectors=return_embedding,
            )
        return [to_document(hit, score=hit.score, vector=hit.vector) for hit in hits]

    def _query_vector(self, embedding: list[float]) -> NDArray[np.float32]:
        vector = check_vector(embedding, self.embedding_dim, "the query's embedding")
        norm = np.float32(np.linalg.norm(vector.astype(np.float64)))
        if self.similarity == "cosine" and norm > 0:
            vector = vector / norm
        return vector

    def _hits(self, filters: dict[str, Any] | None, *, include_vectors: bool = False) -> list[Any]:
        """Returns the hits of all documents that pass a filter."""
        index = self.index
        condition = translate(filters, index.fields())
        if condition is False:
            return []
        with filter_errors(condition):
            return index.get(where=as_where(condition), include_vectors=include_vectors)


def _check_query(query: str) -> None:
    if not isinstance(query, str) or not query:
        raise ValueError(f"the query must be a text that is not empty, and is {query!r}")


def _check_top_k(top_k: int) -> None:
    if top_k < 0:
        raise ValueError(f"top_k must be at least 0, and is {top_k}")
