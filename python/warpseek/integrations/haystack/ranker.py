"""Ranker of documents by a cross-encoder."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Literal

from haystack import Document, component

from warpseek import CrossEncoder
from warpseek._arguments import at_least

from .embedders import text_of
from .models import ModelComponent

__all__ = ["WarpseekRanker"]


@component
class WarpseekRanker(ModelComponent):
    """Ranker that scores each document against the query with a cross-encoder.

    Documents that share an id are ranked once. Scores are relevance between 0 and 1, or logits.

    Args:
        model: A listed name, a hub id or a folder; `None` for the best one present, which is at
            least the built-in one.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
        top_k: The largest number of documents that are returned.
        query_prefix: Text in front of the query.
        query_suffix: Text behind the query.
        document_prefix: Text in front of each document.
        document_suffix: Text behind each document.
        meta_fields_to_embed: Fields of meta that stand in front of the content.
        embedding_separator: Text between them.
        scale_score: True to bring logits between 0 and 1 by the logistic function.
        score_threshold: The least score of a document that is returned.
        batch_size: Number of pairs that are scored at a time; `None` leaves it to the library.
    """

    _kind = CrossEncoder

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
        top_k: int = 10,
        query_prefix: str = "",
        query_suffix: str = "",
        document_prefix: str = "",
        document_suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        scale_score: bool = True,
        score_threshold: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        at_least(1, top_k=top_k)
        ModelComponent.__init__(self, model, device, precision, models_dir, offline)
        self.top_k = top_k
        self.query_prefix = query_prefix
        self.query_suffix = query_suffix
        self.document_prefix = document_prefix
        self.document_suffix = document_suffix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.scale_score = scale_score
        self.score_threshold = score_threshold
        self.batch_size = batch_size

    def _arguments(self) -> dict[str, Any]:
        return {
            **ModelComponent._arguments(self),
            "top_k": self.top_k,
            "query_prefix": self.query_prefix,
            "query_suffix": self.query_suffix,
            "document_prefix": self.document_prefix,
            "document_suffix": self.document_suffix,
            "meta_fields_to_embed": self.meta_fields_to_embed,
            "embedding_separator": self.embedding_separator,
            "scale_score": self.scale_score,
            "score_threshold": self.score_threshold,
            "batch_size": self.batch_size,
        }

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Returns `documents` with their scores, best first; ties in the order given.

        Args:
            query: The query.
            documents: Documents to rank.
            top_k: Replaces that of the component, as do the others below.
            scale_score: True to bring logits between 0 and 1.
            score_threshold: The least score of a document that is returned.
        """
        top_k = self.top_k if top_k is None else top_k
        scale_score = self.scale_score if scale_score is None else scale_score
        threshold = self.score_threshold if score_threshold is None else score_threshold
        at_least(1, top_k=top_k)
        first: dict[str, Document] = {}
        for document in documents:
            first.setdefault(document.id, document)
        documents = list(first.values())
        if not documents:
            return {"documents": []}
        query = self.query_prefix + query + self.query_suffix
        fields, separator = self.meta_fields_to_embed, self.embedding_separator
        texts = (text_of(document, fields, separator) for document in documents)
        pairs = [(query, self.document_prefix + text + self.document_suffix) for text in texts]
        activation: Literal["sigmoid", "identity"] = "sigmoid" if scale_score else "identity"
        reranker: CrossEncoder = self._loaded()
        scores = reranker.predict(
            pairs, batch_size=self.batch_size, activation_fn=activation, show_progress_bar=False
        )
        ranked = sorted(zip(documents, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        kept = [
            replace(document, score=score)
            for document, score in ranked[:top_k]
            if threshold is None or score >= threshold
        ]
        return {"documents": kept}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Runs `run` in a thread."""
        arguments = (query, documents, top_k, scale_score, score_threshold)
        return await asyncio.to_thread(self.run, *arguments)
