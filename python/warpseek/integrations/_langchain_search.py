"""LangChain: the searches of the vector store, and documents of their hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from warpseek._arrays import Vectors
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.integrations._store import (
    IndexStore,
    check_dim,
    check_options,
    diversified,
    score_of,
)
from warpseek.results import Hit

_MMR_OPTIONS = ("filter", "hybrid", "score_threshold")
_OPTIONS = (*_MMR_OPTIONS, "fusion", "rerank", "rerank_depth")

#: Number of hits that the reranker reads, if k is not larger.
_RERANK_DEPTH = 50


@dataclass(frozen=True)
class Search:
    """Searches of a store, with the defaults of two options."""

    store: IndexStore
    normalize: bool
    hybrid: bool
    rerank: bool

    @property
    def _has_cosines(self) -> bool:
        """True if scores of vectors are cosines: by the store's vectors, or by the index's own."""
        index = self.store.index
        if index is None or index.model_name is None:
            return self.normalize
        return self.normalize and index.metric == "cosine"

    def hits(
        self,
        vector: Vectors | None,
        text: str | None,
        k: int,
        options: dict[str, Any],
        include_vectors: bool = False,
    ) -> list[Hit]:
        """The hits of a query that is a vector, a text, or both."""
        check_options("the search", options, _OPTIONS)
        if k < 1:
            raise UsageError("k must be at least 1")
        hybrid, rerank = self._steps(text, options)
        depth = options.get("rerank_depth")
        if depth is None:
            depth = max(k, _RERANK_DEPTH)
        elif not rerank:
            raise UsageError("rerank_depth needs rerank=True")
        elif depth < k:
            raise UsageError(f"rerank_depth is {depth}, and must be at least k, {k}")
        where = to_filter(options.get("filter"), metadata_only=True)
        threshold = options.get("score_threshold")
        if threshold is not None:
            self._check_scale(hybrid, rerank)
        index = self.store.filled(where)
        if index is None:
            return []
        if vector is not None:
            check_dim(index, len(vector))
        found = index.search(
            text if vector is None and text is not None else vector,
            k,
            text=text if vector is not None and (hybrid or rerank) else None,
            where=where,
            hybrid=hybrid,
            fusion=options.get("fusion"),
            rerank=rerank,
            rerank_depth=depth if rerank else None,
            include_vectors=include_vectors,
        )
        return [hit for hit in found if threshold is None or relevance(hit) >= threshold]

    def _steps(self, text: str | None, options: dict[str, Any]) -> tuple[bool, bool]:
        """True for hybrid search, and for reranking. A vector alone has neither."""
        hybrid, rerank = options.get("hybrid"), options.get("rerank")
        for name, value in (("hybrid", hybrid), ("rerank", rerank)):
            if value is not None and not isinstance(value, bool):
                raise UsageError(f"{name} is True or False, not {value!r}")
        if text is None:
            if hybrid or rerank:
                raise UsageError("hybrid search and reranking need the text of the query")
            return False, False
        hybrid = self.hybrid if hybrid is None else hybrid
        return hybrid, self.rerank if rerank is None else rerank

    def check_relevance(self, options: dict[str, Any]) -> None:
        """Refuses a search by text whose scores are no relevance."""
        self._check_scale(*self._steps("", options))

    def _check_scale(self, hybrid: bool, rerank: bool) -> None:
        """Refuses relevance where scores have no bounds: of hybrid searches, inner products."""
        if rerank:
            return
        if hybrid:
            raise UsageError(
                "the scores of a hybrid search are sums without bounds and have no threshold: add "
                "rerank=True, or set hybrid=False"
            )
        if not self._has_cosines:
            raise UsageError(
                "the scores of this store are inner products of vectors of any length, which have "
                "no scale from 0 to 1: add rerank=True, or use similarity_search_with_score"
            )

    def diverse(
        self,
        vector: Vectors | None,
        text: str | None,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        options: dict[str, Any],
    ) -> list[Document]:
        """`k` documents of the `fetch_k` best, selected by maximal marginal relevance."""
        if options.get("rerank"):
            raise UsageError(
                "MMR and reranking set two orders: leave rerank out, or put a WarpseekReranker "
                "behind the retriever"
            )
        check_options("the MMR search", options, (*_MMR_OPTIONS, "rerank"))
        if k < 1:
            raise UsageError("k must be at least 1")
        options = {**options, "rerank": False}
        hits = self.hits(vector, text, max(k, fetch_k), options, include_vectors=True)
        # MMR compares cosines, and the scores of vectors as they are are inner products.
        query = None if self.normalize else vector
        is_scaled = self._steps(text, options)[0] or (vector is None and not self._has_cosines)
        selected = diversified(hits, query, k, lambda_mult, is_scaled=is_scaled)
        return [to_document(hit) for hit in selected]


def to_document(hit: Hit) -> Document:
    """The document of a hit."""
    return Document(id=hit.id, page_content=hit.text, metadata=dict(hit.metadata))


def scored(score: Callable[[Hit], float], hits: Iterable[Hit]) -> list[tuple[Document, float]]:
    """Documents of hits with a score."""
    return [(to_document(hit), score(hit)) for hit in hits]


def final_score(hit: Hit) -> float:
    """The score that orders the hits."""
    return score_of(hit) if hit.final_score is None else hit.final_score


def relevance(hit: Hit) -> float:
    """The relevance, 0..1: the reranker's score, else the cosine."""
    if hit.rerank_score is not None:
        return hit.rerank_score
    return min(max(score_of(hit), 0.0), 1.0)
