"""Retriever over an index that warpseek made itself."""

from __future__ import annotations

import asyncio
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from warpseek import Index
from warpseek._arguments import Fusion, at_least

from .filters import translate, where_of
from .opening import LazyIndex, check_query, policy_of

__all__ = ["WarpseekIndexRetriever"]

_COLUMNS = {"meta.doc_id": "document.doc_id", "meta.title": "document.title"}


@component
class WarpseekIndexRetriever:
    """Retriever that takes the query's text and runs the whole search of an index.

    The index is one of `warpseek index` or `warpseek.Index`. Its model embeds the query, the scan
    is exact, and a reranker orders what was found. Each document is a chunk. Its meta is the
    metadata, with `doc_id` and `title`.

    Args:
        path: Folder of the index.
        filters: Filter of the documents.
        top_k: The largest number of documents that are returned.
        filter_policy: Treatment of `filters` where `run` is given a filter: `"replace"` or
            `"merge"`.
        hybrid: True to rank by the scores of the embedding and of BM25.
        fusion: `"weighted"` (the default), or `"rrf"` for reciprocal rank fusion.
        mmr: Weight of relevance against diversity (MMR), 0 to 1; `None` is relevance alone.
        rerank: `None` reranks if a reranker is present, `True` must, `False` does not.
        rerank_depth: Number of candidates that are reranked.
        retriever_weight: Weight of the retrieval score beside the reranker's, 0 to 1.
        min_score: The minimum of the score that orders the documents, after reranking too; those
            below it are left out.
        max_per_doc: The largest number of chunks of one document.
        model: Another copy of the index's model: a listed name, a hub id or a folder.
        reranker: A listed name, a hub id or a folder; `None` for the best one present, which is at
            least the built-in one.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
    """

    def __init__(
        self,
        path: str,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy | str = FilterPolicy.REPLACE,
        hybrid: bool = False,
        fusion: Fusion | None = None,
        mmr: float | None = None,
        rerank: bool | None = None,
        rerank_depth: int | None = None,
        retriever_weight: float | None = None,
        min_score: float | None = None,
        max_per_doc: int | None = None,
        model: str | None = None,
        reranker: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
    ) -> None:
        at_least(1, top_k=top_k)
        self.path = str(path)
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = policy_of(filter_policy)
        self.search: dict[str, Any] = {
            "hybrid": hybrid,
            "fusion": fusion,
            "mmr": mmr,
            "rerank": rerank,
            "rerank_depth": rerank_depth,
            "retriever_weight": retriever_weight,
            "min_score": min_score,
            "max_per_doc": max_per_doc,
        }
        self.models = {
            "model": model,
            "reranker": reranker,
            "device": device,
            "precision": precision,
            "models_dir": models_dir,
            "offline": offline,
        }
        self._index = LazyIndex(self.path, lambda: Index.open(self.path, **self.models))

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments of the component."""
        data: dict[str, Any] = default_to_dict(
            self,
            path=self.path,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            **self.search,
            **self.models,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WarpseekIndexRetriever:
        """Makes the component from what `to_dict` returned."""
        retriever: WarpseekIndexRetriever = default_from_dict(cls, data)
        return retriever

    def warm_up(self) -> None:
        """Opens the index, which `run` does otherwise."""
        self._index.current()

    def close(self) -> None:
        """Closes the index. The next run opens it again."""
        self._index.close()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Returns `documents`, best first.

        The score is the one that orders them: the reranker's, or that of the search. Documents
        behind the reranked ones have none.

        Raises:
            ValueError: If the query is blank, or an option is out of its range.
            FilterError: If the filter is malformed, or compares what has no order.
            IndexNotFoundError: If the folder holds no index.
        """
        check_query(query)
        top_k = self.top_k if top_k is None else top_k
        at_least(1, top_k=top_k)
        index = self._index.current()
        merged = apply_filter_policy(self.filter_policy, self.filters, filters)
        condition = translate(merged, index.fields(), _COLUMNS)
        if condition is False:
            return {"documents": []}
        hits = index.search(query, top_k, where=where_of(index, condition), **self.search)
        return {"documents": [_document(hit) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Runs `run` in a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


def _document(hit: Any) -> Document:
    meta = {"doc_id": hit.doc_id, "title": hit.title, **hit.metadata}
    return Document(id=hit.id, content=hit.text, meta=meta, score=hit.final_score)
