"""LlamaIndex: embeddings and reranking by local models."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from warpseek.errors import UsageError
from warpseek.integrations._models import embedder_of
from warpseek.models import CrossEncoder, Embedder

_dispatcher = get_dispatcher(__name__)


class WarpseekEmbedding(BaseEmbedding):
    """Embeddings by a local model, without PyTorch."""

    device: str | None = Field(default=None, description="auto, cpu, cuda or cuda:N.")
    precision: str | None = Field(
        default=None, description="auto; f16 on a GPU; f32, bf16 or int8 on the CPU."
    )
    models_dir: str | None = Field(default=None, description="Folder of downloaded models.")
    offline: bool | None = Field(
        default=None, description="True to connect to loopback addresses only."
    )
    _embedder: Embedder = PrivateAttr()

    def __init__(
        self,
        model_name: str | None = None,
        *,
        embedder: Embedder | None = None,
        embed_batch_size: int = 256,
        models_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Loads the model.

        Args:
            model_name: A listed name, a hub id or a folder; None for the one of the setting
                `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2, whose name the field takes. It is
                looked for locally first, then downloaded.
            embedder: A loaded model, instead of the arguments that load one.
            embed_batch_size: Texts per call of the model.
            models_dir: Folder of downloaded models.
            **kwargs: The other fields of this class and of `BaseEmbedding`.

        Raises:
            UsageError: If `embedder` is given beside an argument that loads one.
        """
        unknown = sorted(set(kwargs) - set(type(self).model_fields))
        if unknown:
            raise TypeError(f"WarpseekEmbedding has no option {', '.join(unknown)}")
        kwargs |= {
            "embed_batch_size": embed_batch_size,
            "models_dir": None if models_dir is None else os.fspath(models_dir),
        }
        if model_name is not None:
            kwargs["model_name"] = model_name
        super().__init__(**kwargs)
        self._embedder = embedder_of(
            embedder,
            model_name,
            "model_name",
            device=self.device,
            precision=self.precision,
            models_dir=self.models_dir,
            offline=self.offline,
        )
        if model_name is None:
            self.model_name = self._embedder.name

    @classmethod
    def class_name(cls) -> str:
        """The name in serialized components."""
        return "WarpseekEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._embedder.encode_query(query).tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        if not texts:
            return []
        vectors: list[list[float]] = self._embedder.encode_document(
            list(texts), batch_size=self.embed_batch_size, show_progress_bar=False
        ).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class WarpseekReranker(BaseNodePostprocessor):
    """Orders nodes by a local cross-encoder and keeps the best.

    The scores of the nodes become those of the reranker, 0..1. It reads what an embedding model
    reads of a node: its text, and the metadata that is not excluded from it.
    """

    model: str | None = Field(
        default=None, description="A listed name, a hub id or a folder; None: the best one present."
    )
    top_n: int = Field(default=5, ge=1, description="Number of nodes to keep.")
    keep_retrieval_score: bool = Field(
        default=False, description="True to keep the score before as metadata `retrieval_score`."
    )
    batch_size: int | None = Field(default=None, description="Pairs per batch.")
    device: str | None = Field(default=None, description="auto, cpu, cuda or cuda:N.")
    precision: str | None = Field(
        default=None, description="auto; f16 on a GPU; f32, bf16 or int8 on the CPU."
    )
    models_dir: str | None = Field(default=None, description="Folder of downloaded models.")
    offline: bool | None = Field(
        default=None, description="True to connect to loopback addresses only."
    )
    _encoder: CrossEncoder = PrivateAttr()

    def __init__(
        self,
        top_n: int = 5,
        model: str | None = None,
        *,
        models_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Loads the model; `kwargs` are the other fields."""
        unknown = sorted(set(kwargs) - set(type(self).model_fields))
        if unknown:
            raise TypeError(f"WarpseekReranker has no option {', '.join(unknown)}")
        models_dir = None if models_dir is None else os.fspath(models_dir)
        super().__init__(**kwargs | {"top_n": top_n, "model": model, "models_dir": models_dir})
        self._encoder = CrossEncoder(
            model,
            device=self.device,
            precision=self.precision,
            models_dir=self.models_dir,
            offline=self.offline,
        )

    @classmethod
    def class_name(cls) -> str:
        """The name in serialized components."""
        return "WarpseekReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise UsageError("reranking needs the query: give query_str or query_bundle")
        if not nodes:
            return []
        query, name = query_bundle.query_str, self._encoder.name
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
            scores: list[float] = self._encoder.predict(
                [(query, text) for text in texts],
                batch_size=self.batch_size,
                activation_fn="sigmoid",
            ).tolist()
            order = sorted(range(len(nodes)), key=lambda at: -scores[at])[: self.top_n]
            best = [self._scored(nodes[at], scores[at]) for at in order]
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _scored(self, node: NodeWithScore, score: float) -> NodeWithScore:
        """The node with its score; a copy if its metadata changes."""
        inner = node.node
        if self.keep_retrieval_score:
            metadata = {**inner.metadata, "retrieval_score": node.score}
            inner = inner.model_copy(update={"metadata": metadata})
        return NodeWithScore(node=inner, score=score)
