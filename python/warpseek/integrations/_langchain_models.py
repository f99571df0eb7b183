"""LangChain: embeddings and reranking by local models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, Field, PrivateAttr

from warpseek.integrations._models import embedder_of
from warpseek.models import CrossEncoder, Embedder


class WarpseekEmbeddings(Embeddings):
    """Embeddings by a local model, without PyTorch."""

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        embedder: Embedder | None = None,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | os.PathLike[str] | None = None,
        offline: bool | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> None:
        """Loads the model.

        Args:
            model: A listed name, a hub id or a folder; None for the one of the setting
                `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2. It is looked for locally first, then
                downloaded.
            embedder: A loaded model, instead of the arguments that load one.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: `auto`; `f16` on a GPU; `f32`, `bf16` or `int8` on the CPU.
            models_dir: Folder of downloaded models.
            offline: True to connect to loopback addresses only.
            batch_size: Texts per batch.
            show_progress_bar: True to show the progress.

        Raises:
            UsageError: If `embedder` is given beside an argument that loads one.
        """
        self.embedder = embedder_of(
            embedder,
            None if model is None else os.fspath(model),
            device=device,
            precision=precision,
            models_dir=models_dir,
            offline=offline,
        )
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embeds passages."""
        if not texts:
            return []
        vectors: list[list[float]] = self.embedder.encode_document(
            list(texts), batch_size=self.batch_size, show_progress_bar=self.show_progress_bar
        ).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embeds a query."""
        vector: list[float] = self.embedder.encode_query(text).tolist()
        return vector


class WarpseekReranker(BaseDocumentCompressor):
    """Orders documents by a local cross-encoder and keeps the best.

    The documents that it returns are copies with the score in their metadata.
    """

    model: str | None = Field(
        default=None, description="A listed name, a hub id or a folder; None: the best one present."
    )
    top_n: int | None = Field(default=3, ge=1, description="Documents to keep; None: all.")
    score_field: str | None = Field(
        default="relevance_score", description="Metadata field of the score, 0..1; None: no field."
    )
    batch_size: int | None = None
    device: str | None = None
    precision: str | None = None
    models_dir: str | os.PathLike[str] | None = None
    offline: bool | None = None

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    _encoder: CrossEncoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Loads the model."""
        super().model_post_init(context)
        self._encoder = CrossEncoder(
            self.model,
            device=self.device,
            precision=self.precision,
            models_dir=self.models_dir,
            offline=self.offline,
        )

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The `top_n` documents with the highest scores, best first; ties keep their order."""
        if not documents:
            return []
        scores = self._encoder.predict(
            [(query, document.page_content) for document in documents],
            batch_size=self.batch_size,
            activation_fn="sigmoid",
        ).tolist()
        order = sorted(range(len(documents)), key=lambda at: -scores[at])
        best = [documents[at].model_copy(deep=True) for at in order[: self.top_n]]
        if self.score_field is not None:
            for document, at in zip(best, order, strict=False):
                document.metadata[self.score_field] = scores[at]
        return best
