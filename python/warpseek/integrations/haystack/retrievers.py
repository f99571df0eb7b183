"""Retrievers over a `WarpseekDocumentStore`."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from warpseek._arguments import at_least

from .document_store import WarpseekDocumentStore
from .opening import policy_of

__all__ = ["WarpseekBM25Retriever", "WarpseekEmbeddingRetriever", "WarpseekHybridRetriever"]

Self = TypeVar("Self", bound="_Retriever")


class _Retriever:
    """Arguments that all retrievers share.

    Args:
        document_store: The store.
        filters: Filter of the documents.
        top_k: The largest number of documents that are returned.
        filter_policy: Treatment of `filters` where `run` is given a filter: `"replace"` or
            `"merge"`.
    """

    def __init__(
        self,
        document_store: WarpseekDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy | str = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, WarpseekDocumentStore):
            kind = type(document_store).__name__
            raise TypeError(f"document_store must be a WarpseekDocumentStore, and is a {kind}")
        at_least(1, top_k=top_k)
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = policy_of(filter_policy)

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments of the component."""
        data: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )
        return data

    @classmethod
    def from_dict(cls: type[Self], data: dict[str, Any]) -> Self:
        """Makes the component from what `to_dict` returned."""
        arguments = dict(data.get("init_parameters", {}))
        store = arguments.get("document_store")
        if isinstance(store, dict):
            arguments["document_store"] = WarpseekDocumentStore.from_dict(store)
        made: Self = default_from_dict(cls, {**data, "init_parameters": arguments})
        return made

    def _options(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        """Returns the options of the store's methods for one run."""
        merged = apply_filter_policy(self.filter_policy, self.filters, filters)
        return {"filters": merged, "top_k": self.top_k if top_k is None else top_k}


@component
class WarpseekEmbeddingRetriever(_Retriever):
    """Retriever of the documents whose embeddings are nearest to the query's.

    The score is the exact cosine similarity, or the dot product, as the store was made for.
    """

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        return_embedding: bool = False,
    ) -> dict[str, list[Document]]:
        """Returns `documents`, best first."""
        documents = self.document_store.embedding_retrieval(
            query_embedding, return_embedding=return_embedding, **self._options(filters, top_k)
        )
        return {"documents": documents}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        return_embedding: bool = False,
    ) -> dict[str, list[Document]]:
        """Runs `run` in a thread."""
        return await asyncio.to_thread(self.run, query_embedding, filters, top_k, return_embedding)


@component
class WarpseekBM25Retriever(_Retriever):
    """Retriever of the documents that have words of the query, best first by BM25."""

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Returns `documents`, best first."""
        options = self._options(filters, top_k)
        return {"documents": self.document_store.bm25_retrieval(query, **options)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Runs `run` in a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


@component
class WarpseekHybridRetriever(_Retriever):
    """Retriever by embedding and by words (BM25): by a weighted sum of the two scores.

    Documents without an embedding are left out. The score is that sum.
    """

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        return_embedding: bool = False,
    ) -> dict[str, list[Document]]:
        """Returns `documents`, best first."""
        documents = self.document_store.hybrid_retrieval(
            query,
            query_embedding,
            return_embedding=return_embedding,
            **self._options(filters, top_k),
        )
        return {"documents": documents}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        return_embedding: bool = False,
    ) -> dict[str, list[Document]]:
        """Runs `run` in a thread."""
        arguments = (query, query_embedding, filters, top_k, return_embedding)
        return await asyncio.to_thread(self.run, *arguments)
