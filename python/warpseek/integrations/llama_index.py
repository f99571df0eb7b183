"""LlamaIndex: a vector store, embeddings and a reranker (llama-index-core 0.14).

::

    from llama_index.core import StorageContext, VectorStoreIndex
    from warpseek.integrations.llama_index import WarpseekEmbedding, WarpseekVectorStore

    context = StorageContext.from_defaults(vector_store=WarpseekVectorStore("papers"))
    index = VectorStoreIndex.from_documents(
        documents, storage_context=context, embed_model=WarpseekEmbedding()
    )
    retriever = index.as_retriever(similarity_top_k=5, vector_store_query_mode="hybrid")

Query modes: `DEFAULT`, `HYBRID` (weighted sum with BM25), `MMR`, and BM25 alone as `SPARSE` or
`TEXT_SEARCH`. Any other mode, and an option of a query that the mode does not heed, is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from warpseek._arrays import Vectors
from warpseek.errors import UsageError
from warpseek.index import Index
from warpseek.integrations._llama_index_models import WarpseekEmbedding, WarpseekReranker
from warpseek.integrations._llama_index_nodes import (
    SOURCE_FIELD,
    joined,
    of_ids,
    of_sources,
    to_node,
    to_record,
    to_where,
)
from warpseek.integrations._store import (
    EVERY_DOCUMENT,
    IndexStore,
    check_dim,
    check_options,
    diversified,
    metric_of,
    row_of,
    rows_of,
    store_records,
)
from warpseek.results import Hit

__all__ = ["WarpseekEmbedding", "WarpseekReranker", "WarpseekVectorStore"]

_WORD_MODES = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
_MODES = (
    VectorStoreQueryMode.DEFAULT,
    VectorStoreQueryMode.HYBRID,
    VectorStoreQueryMode.MMR,
    *_WORD_MODES,
)

_MMR_OPTIONS = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")

#: Weight of relevance in MMR, and its candidates per node.
_MMR_THRESHOLD = 0.5
_MMR_PREFETCH_FACTOR = 4


class WarpseekVectorStore(BasePydanticVectorStore):
    """Nodes in a warpseek index: exact search on disk, metadata filters, BM25 and MMR.

    Nodes are read back as they were, with their text, metadata and relationships. An index that
    was made otherwise can be queried too, without `IS_EMPTY`; its documents become text nodes.
    """

    stores_text: bool = True
    normalize: bool = Field(
        default=True,
        description="Scale vectors to unit length, so that similarities are cosines.",
    )
    _store: IndexStore = PrivateAttr()

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        index: Index | None = None,
        normalize: bool = True,
    ) -> None:
        """Opens the index; a new one is created with the first nodes.

        Args:
            path: Folder of the index. Without a path and an index the nodes are stored in a
                temporary folder, which is deleted with the store.
            index: An open index, instead of a path.
            normalize: False to store vectors as they are; similarities are inner products then.
        """
        fields: dict[str, Any] = {"stores_text": True, "normalize": normalize}
        super().__init__(**fields)
        self._store = IndexStore(path, index)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialized components."""
        return "WarpseekVectorStore"

    @property
    def client(self) -> Index | None:
        """The index; None as long as nothing was added to a new one."""
        return self._store.index

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Adds nodes with embeddings, or replaces those of the same ids; returns the ids."""
        check_options("add", kwargs, ())
        ids = [node.node_id for node in nodes]
        if not ids:
            return ids
        for node in nodes:
            if node.embedding is None:
                raise UsageError(
                    f"node '{node.node_id}' has no embedding: add it through a VectorStoreIndex, "
                    "or embed it first"
                )
        records = [to_record(node) for node in nodes]
        rows = rows_of([node.embedding or [] for node in nodes], self.normalize)
        index = self._store.for_vectors(rows.shape[1], metric_of(self.normalize))
        store_records(index, records, rows)
        return ids

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Runs `add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a source document."""
        check_options("delete", delete_kwargs, ())
        index = self._store.index
        if index is not None and SOURCE_FIELD in index.fields():
            for where in of_sources([ref_doc_id]):
                index.delete(where=where)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Runs `delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Deletes nodes by ids, by filters, or those of the ids that pass the filters."""
        check_options("delete_nodes", delete_kwargs, ())
        where = to_where(filters)
        if node_ids is None and where is None:
            raise UsageError("delete_nodes takes node_ids, filters or both; clear() deletes all")
        index = self._store.filled(where)
        if index is None:
            return
        if node_ids is None:
            index.delete(where=where)
        elif where is None:
            index.delete(list(node_ids))
        elif node_ids:
            for ids in of_ids(node_ids):
                index.delete(where=joined(ids, where))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Runs `delete_nodes` in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Deletes all nodes."""
        index = self._store.index
        if index is not None:
            index.delete(where=EVERY_DOCUMENT)

    async def aclear(self) -> None:
        """Runs `clear` in a thread."""
        await asyncio.to_thread(self.clear)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by ids (in their order), by filters, or those of the ids that pass the filters.

        Without both all nodes. Ids that do not exist are left out.
        """
        where = to_where(filters)
        index = self._store.filled(where)
        if index is None:
            return []
        if node_ids is None:
            return [to_node(hit) for hit in index.get(where=where)]
        if not node_ids:
            return []
        hits = index.get(list(node_ids))
        if where is not None:
            found = [index.get(where=joined(ids, where)) for ids in of_ids(node_ids)]
            passing = {hit.id for some in found for hit in some}
            hits = [hit for hit in hits if hit.id in passing]
        return [to_node(hit) for hit in hits]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Runs `get_nodes` in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes that answer a query, best first; those of MMR in the order of selection.

        Similarities are cosines, the fused scores of `HYBRID`, or scores of BM25. An empty list of
        `node_ids` or `doc_ids` is no restriction: retrievers pass one where they have none. For an
        index of text nodes beside index or image nodes, `VectorStoreIndex.as_retriever` passes the
        ids of the latter alone; `VectorIndexRetriever(index)` searches all.

        Args:
            query: The query. `mmr_threshold` is the weight of relevance, 0..1; `hybrid_top_k`
                replaces `similarity_top_k` in `HYBRID`, and `sparse_top_k` in `SPARSE`.
            **kwargs: For `MMR`: `mmr_threshold`, and the number of candidates as `mmr_prefetch_k`,
                or as `mmr_prefetch_factor` times `similarity_top_k` (4 by default).
        """
        _check_query(query, kwargs)
        where = to_where(query.filters)
        index = self._store.filled(where)
        if index is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        wheres = [
            joined(where, sources, ids)
            for sources in (of_sources(query.doc_ids) if query.doc_ids else [None])
            for ids in (of_ids(query.node_ids) if query.node_ids else [None])
        ]
        hits = _search(index, query, self.normalize, wheres, kwargs)
        return VectorStoreQueryResult(
            nodes=[to_node(hit) for hit in hits],
            similarities=[hit.score or 0.0 for hit in hits],
            ids=[hit.id for hit in hits],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Runs `query` in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _check_query(query: VectorStoreQuery, kwargs: dict[str, Any]) -> None:
    """Refuses modes that do not exist here, and options that the mode does not heed."""
    mode = VectorStoreQueryMode(query.mode)
    if mode not in _MODES:
        known = ", ".join(known.value for known in _MODES)
        raise UsageError(f"the query mode '{mode.value}' is not supported; there are {known}")
    is_mmr = mode == VectorStoreQueryMode.MMR
    check_options(f"a query of mode '{mode.value}'", kwargs, _MMR_OPTIONS if is_mmr else ())
    needs_text = mode in (VectorStoreQueryMode.HYBRID, *_WORD_MODES)
    if needs_text and not query.query_str:
        raise UsageError(f"a query of mode '{mode.value}' needs its text, query_str")
    if query.query_embedding is None and mode not in _WORD_MODES:
        raise UsageError("the query has no embedding: query through an index or a retriever")
    if query.similarity_top_k < 1:
        raise UsageError("similarity_top_k must be at least 1")
    is_sparse = mode == VectorStoreQueryMode.SPARSE
    is_hybrid = mode == VectorStoreQueryMode.HYBRID
    unheeded = {
        "alpha": "the weights of the two rankings are fixed; leave it out",
        "output_fields": "nodes are read back whole",
        "embedding_field": "a node has one vector",
        **({} if is_sparse else {"sparse_top_k": "use it with the mode 'sparse'"}),
        **({} if is_hybrid else {"hybrid_top_k": "use it with the mode 'hybrid'"}),
        **({} if is_mmr else {"mmr_threshold": "use it with the mode 'mmr'"}),
    }
    for name, reason in unheeded.items():
        if getattr(query, name) is not None:
            raise UsageError(f"the option '{name}' of a query is not supported: {reason}")


def _search(
    index: Index,
    query: VectorStoreQuery,
    normalize: bool,
    wheres: Sequence[str | None],
    options: dict[str, Any],
) -> list[Hit]:
    """The hits that pass one of the filters, which pass no hit twice."""
    k = query.similarity_top_k
    if query.mode in _WORD_MODES:
        k = query.sparse_top_k or k
        text = query.query_str or ""
        return _best(k, [index.search_bm25(text, k, where=where) for where in wheres])
    vector = row_of(query.query_embedding or [], normalize)
    check_dim(index, len(vector))
    if query.mode == VectorStoreQueryMode.HYBRID:
        return _fused(index, vector, query, wheres)
    if query.mode == VectorStoreQueryMode.MMR:
        return _diverse(index, vector, query, normalize, wheres, options)
    return _best(k, [index.search(vector, k, where=where, rerank=False) for where in wheres])


def _best(k: int, found: Sequence[Iterable[Hit]]) -> list[Hit]:
    """The `k` best of several searches."""
    hits = [hit for some in found for hit in some]
    return sorted(hits, key=lambda hit: (-(hit.score or 0.0), hit.row))[:k]


def _fused(
    index: Index, vector: Vectors, query: VectorStoreQuery, wheres: Sequence[str | None]
) -> list[Hit]:
    if len(wheres) > 1:
        raise UsageError("hybrid search takes node_ids and doc_ids of at most 12 KB")
    k = query.hybrid_top_k or query.similarity_top_k
    return list(
        index.search(vector, k, text=query.query_str, where=wheres[0], hybrid=True, rerank=False)
    )


def _diverse(
    index: Index,
    vector: Vectors,
    query: VectorStoreQuery,
    normalize: bool,
    wheres: Sequence[str | None],
    options: dict[str, Any],
) -> list[Hit]:
    """Hits that are selected by maximal marginal relevance."""
    k = query.similarity_top_k
    threshold = options.get("mmr_threshold", query.mmr_threshold)
    if options.get("mmr_prefetch_k") is not None:
        if options.get("mmr_prefetch_factor") is not None:
            raise UsageError("give mmr_prefetch_k or mmr_prefetch_factor, not both")
        depth = int(options["mmr_prefetch_k"])
    else:
        depth = int(k * float(options.get("mmr_prefetch_factor") or _MMR_PREFETCH_FACTOR))
    depth = max(k, depth)
    found = [
        index.search(vector, depth, where=where, rerank=False, include_vectors=True)
        for where in wheres
    ]
    hits = _best(depth, found)
    # MMR compares cosines, and the scores of vectors as they are are inner products.
    query_vector = None if normalize else vector
    weight = _MMR_THRESHOLD if threshold is None else threshold
    return diversified(hits, query_vector, k, weight)
