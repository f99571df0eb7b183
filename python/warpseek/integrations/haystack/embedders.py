"""Embedders of texts and of documents."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any, TypeVar

from haystack import Document, component, default_from_dict, default_to_dict, logging

from warpseek import Embedder

__all__ = ["WarpseekDocumentEmbedder", "WarpseekTextEmbedder", "text_of"]

logger = logging.getLogger(__name__)

Self = TypeVar("Self", bound="_ModelComponent")


class _ModelComponent:
    """Arguments that both embedders have, and their model.

    `@component` makes each class anew, so that `super()` without arguments fails in subclasses.
    """

    def __init__(
        self,
        model: str,
        device: str | None,
        precision: str | None,
        models_dir: str | None,
        offline: bool | None,
        prefix: str | None,
        suffix: str,
        normalize_embeddings: bool,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.models_dir = models_dir
        self.offline = offline
        self.prefix = prefix
        self.suffix = suffix
        self.normalize_embeddings = normalize_embeddings
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    def _arguments(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "models_dir": self.models_dir,
            "offline": self.offline,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "normalize_embeddings": self.normalize_embeddings,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments of the component."""
        data: dict[str, Any] = default_to_dict(self, **self._arguments())
        return data

    @classmethod
    def from_dict(cls: type[Self], data: dict[str, Any]) -> Self:
        """Makes the component from what `to_dict` returned."""
        made: Self = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Loads the model, which `run` does otherwise."""
        self._loaded()

    def _loaded(self) -> Embedder:
        with self._lock:
            if self._embedder is None:
                self._embedder = Embedder(
                    self.model,
                    device=self.device,
                    precision=self.precision,
                    models_dir=self.models_dir,
                    offline=self.offline,
                )
            return self._embedder


@component
class WarpseekTextEmbedder(_ModelComponent):
    """Embedder of a query, with the prompt that the model has for queries.

    Args:
        model: Name of a listed model, or path of a model folder.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f32"`, `"bf16"`, `"f16"` or `"int8"`; `None` follows the settings.
        models_dir: Folder in which models are looked for first.
        offline: Refuses downloads; `None` follows the settings.
        prefix: Text in front of each query, instead of the model's own prompt.
        suffix: Text behind each query.
        normalize_embeddings: Embeddings of length 1; `False` leaves it to the model.
    """

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
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
        _ModelComponent.__init__(self, *shared, normalize_embeddings)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Returns the `embedding` of a text, and `meta` about the model and the tokens."""
        if not isinstance(text, str):
            raise TypeError(
                "WarpseekTextEmbedder embeds one text, and got a "
                f"{type(text).__name__}: WarpseekDocumentEmbedder embeds documents"
            )
        embedder = self._loaded()
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
class WarpseekDocumentEmbedder(_ModelComponent):
    """Embedder of documents, with the prompt that the model has for passages.

    Args:
        model: Name of a listed model, or path of a model folder.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f32"`, `"bf16"`, `"f16"` or `"int8"`; `None` follows the settings.
        models_dir: Folder in which models are looked for first.
        offline: Refuses downloads; `None` follows the settings.
        prefix: Text in front of each document, instead of the model's own prompt.
        suffix: Text behind each document.
        batch_size: Number of documents that are embedded at a time; `None` leaves it to the
            library.
        progress_bar: Shows a progress bar.
        normalize_embeddings: Embeddings of length 1; `False` leaves it to the model.
        meta_fields_to_embed: Fields of meta that stand in front of the content.
        embedding_separator: Text between them.
    """

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
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
        _ModelComponent.__init__(self, *shared, normalize_embeddings)
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def _arguments(self) -> dict[str, Any]:
        return {
            **_ModelComponent._arguments(self),
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
        embedder = self._loaded()
        fields, separator = self.meta_fields_to_embed, self.embedding_separator
        vectors, counts = embedder.encode_document(
            [text_of(document, fields, separator) + self.suffix for document in documents],
            prompt=self.prefix,
            batch_size=self.batch_size,
            show_progress_bar=self.progress_bar,
            normalize_embeddings=self.normalize_embeddings,
            return_counts=True,
        )
        if n := int((counts["truncated"] > 0).sum()):
            logger.warning(
                "{n} of {total} documents are longer than {limit} tokens; their ends were not "
                "embedded: split them first",
                n=n,
                total=len(documents),
                limit=embedder.max_seq_length,
            )
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
