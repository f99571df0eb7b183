"""What an index is asked: rows, searches, comparisons, answers, evaluations."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from warpseek import _warpseek
from warpseek._arguments import (
    Fusion,
    Path,
    Where,
    at_least,
    ids_of,
    plain,
    queries_of,
    search_options,
)
from warpseek._arrays import as_vectors
from warpseek._progress import Progress
from warpseek._settings import Settings
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.llm import ask
from warpseek.results import Answer, Comparison, Evaluation, Hit, Hits

MEASURES: Final = ("ndcg@10", "mrr@10", "recall@10", "recall@100", "map")


class Reading:
    """The part of :class:`warpseek.Index` that reads and searches."""

    _core: _warpseek.Index
    _settings: Settings

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
        texts, vectors, is_one = queries_of(query, text, lambda: self._core.dim)
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
        vectors = as_vectors(queries, "queries", self._core.dim)
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


def _hits(rows: list[dict[str, Any]], vectors: Any) -> list[Hit]:
    """Rows of the core as hits, with their vectors if there are any."""
    hits = [Hit(**row) for row in rows]
    if vectors is not None:
        for hit, vector in zip(hits, vectors, strict=True):
            hit.vector = vector
    return hits
