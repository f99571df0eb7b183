"""Embedders of texts and of documents."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, logging

from warpseek import Embedder
from warpseek.integrations._models import truncation

from .models import ModelComponent

__all__ = ["WarpseekDocumentEmbedder", "WarpseekTextEmbedder", "text_of"]

logger = logging.getLogger(__name__)


class _EmbedderComponent(ModelComponent):
    """Arguments that both embedders share."""

    _kind = Embedder

    def __init__(
        self,
        model: str | None,
        device: str | None,
        precision: str | None,
        models_dir: str | None,
        offline: bool | None,
        prefix: str | None,
        suffix: str,
        normalize_embeddings: bool,
    ) -> None:
        ModelComponent.__init__(self, model, device, precision, models_dir, offline)
        self.prefix = prefix
        self.suffix = suffix
        self.normalize_embeddings = normalize_embeddings

    def _arguments(self) -> dict[str, Any]:
        arguments = ModelComponent._arguments(self)
        if self.model is None:
            # Another place may have another default, whose vectors cannot be compared.
            arguments["model"] = self._loaded().name
        return {
            **arguments,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "normalize_embeddings": self.normalize_embeddings,
        }


@component
class WarpseekTextEmbedder(_EmbedderComponent):
    """Embedder of a query, with the prompt that the model has for queries.

    Args:
        model: A listed name, a hub id or a folder. It is looked for locally first, then downloaded.
            `None` is the model of the setting `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2;
            `to_dict` returns its name, for which the model is loaded.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
        prefix: Text in front of each query, instead of the model's own prompt.
        suffix: Text behind each query.
        normalize_embeddings: Embeddings of length 1; `False` leaves it to the model.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
        prefix: str | None = None,
        suffix: str = "",
        normalize_embeddings: bool = True,
    ) -> None:
        shared = (model, device, precision, models_dir, offline, prefix, suffix)
        _EmbedderComponent.__init__(self, *shared, normalize_embeddings)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Returns the `embedding` of a text, and `meta` about the model and the tokens."""
        if not isinstance(text, str):
            raise TypeError(
                "WarpseekTextEmbedder embeds one text, and got a "
                f"{type(text).__name__}: WarpseekDocumentEmbedder embeds documents"
            )
        embedder: Embedder = self._loaded()
        vector, counts = embedder.encode_query(
            text + self.suffix,
            prompt=self.prefix,
            normalize_embeddings=self.normalize_embeddings,
            return_counts=True,
        )
        return {"embedding": vector.tolist(), "meta": _meta(embedder, counts)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Runs `run` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class WarpseekDocumentEmbedder(_EmbedderComponent):
    """Embedder of documents, with the prompt that the model has for passages.

    Args:
        model: A listed name, a hub id or a folder. It is looked for locally first, then downloaded.
            `None` is the model of the setting `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2;
            `to_dict` returns its name, for which the model is loaded.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
        prefix: Text in front of each document, instead of the model's own prompt.
        suffix: Text behind each document.
        batch_size: Number of documents that are embedded at a time; `None` leaves it to the
            library.
        progress_bar: True to show a progress bar.
        normalize_embeddings: Embeddings of length 1; `False` leaves it to the model.
        meta_fields_to_embed: Fields of meta that stand in front of the content.
        embedding_separator: Text between them.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
        prefix: str | None = None,
        suffix: str = "",
        batch_size: int | None = None,
        progress_bar: bool = False,
        normalize_embeddings: bool = True,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        shared = (model, device, precision, models_dir, offline, prefix, suffix)
        _EmbedderComponent.__init__(self, *shared, normalize_embeddings)
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def _arguments(self) -> dict[str, Any]:
        return {
            **_EmbedderComponent._arguments(self),
            "batch_size": self.batch_size,
            "progress_bar": self.progress_bar,
            "meta_fields_to_embed": self.meta_fields_to_embed,
            "embedding_separator": self.embedding_separator,
        }

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Returns copies of the `documents` with embeddings, and `meta` about model and tokens."""
        is_list = isinstance(documents, list)
        if not is_list or any(not isinstance(document, Document) for document in documents):
            raise TypeError(
                "WarpseekDocumentEmbedder embeds a list of documents: WarpseekTextEmbedder embeds "
                "a text"
            )
        embedder: Embedder = self._loaded()
        fields, separator = self.meta_fields_to_embed, self.embedding_separator
        vectors, counts = embedder.encode_document(
            [text_of(document, fields, separator) + self.suffix for document in documents],
            prompt=self.prefix,
            batch_size=self.batch_size,
            show_progress_bar=self.progress_bar,
            normalize_embeddings=self.normalize_embeddings,
            return_counts=True,
        )
        if (warning := truncation(embedder, counts, "documents")) is not None:
            logger.warning("{warning}", warning=warning)
        pairs = zip(documents, vectors.tolist(), strict=True)
        embedded = [replace(document, embedding=vector) for document, vector in pairs]
        return {"documents": embedded, "meta": _meta(embedder, counts)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Runs `run` in a thread."""
        return await asyncio.to_thread(self.run, documents)


def text_of(document: Document, fields: list[str], separator: str) -> str:
    """Returns the content of a document behind some fields of its meta."""
    values = [str(document.meta[name]) for name in fields if document.meta.get(name) is not None]
    return separator.join([*values, document.content or ""])


def _meta(embedder: Embedder, counts: dict[str, Any]) -> dict[str, Any]:
    n_tokens = int(counts["tokens"].sum())
    return {
        "model": embedder.name,
        "sha256": embedder.sha256,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "truncated_tokens": int(counts["truncated"].sum()),
    }
