"""Embedding function for Chroma collections.

    import chromadb
    from warpseek.integrations.chroma import WarpseekEmbeddingFunction

    client = chromadb.PersistentClient("notes")
    notes = client.create_collection("notes", embedding_function=WarpseekEmbeddingFunction())
    notes.add(ids=["1"], documents=["The heat pump hums at night."])
    notes.query(query_texts=["noise"], n_results=1)

Documents are embedded as passages and queries as queries, each with the prompt of the model. Chroma
keeps the configuration beside the collection. A program that imported this module opens it again
with `client.get_collection("notes")` alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function

from warpseek.integrations._models import truncation

if TYPE_CHECKING:
    from warpseek import Embedder

__all__ = ["WarpseekEmbeddingFunction"]

logger = logging.getLogger(__name__)

#: Types of the configuration's values.
_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "device": (str, type(None)),
    "precision": (str, type(None)),
    "normalize_embeddings": (bool,),
    "batch_size": (int, type(None)),
    "models_dir": (str, type(None)),
    "offline": (bool, type(None)),
}

_NO_MODEL = "a warpseek embedding function needs the name of a model in 'model'"

#: Settings that must not change: vectors of before and after would not be comparable.
_FIXED = ("model", "normalize_embeddings")


@register_embedding_function
class WarpseekEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embedding function that runs a warpseek model in this process.

    The model is loaded at the first text. Functions with the same settings share it.

    Args:
        model: A listed name, a hub id or a folder. It is looked for locally first, then downloaded.
            `None` is the model of the setting `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2. The
            configuration that Chroma keeps has its name, for which the model is loaded.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        normalize_embeddings: Vectors of length 1; `False` leaves it to the model's configuration.
        batch_size: Number of texts that are embedded at a time; `None` leaves it to the library.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
    """

    _loaded: ClassVar[dict[tuple[object, ...], Embedder]] = {}
    _lock = threading.Lock()

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        normalize_embeddings: bool = True,
        batch_size: int | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
    ) -> None:
        self._config: dict[str, Any] = {
            "model": model,
            "device": device,
            "precision": precision,
            "normalize_embeddings": normalize_embeddings,
            "batch_size": batch_size,
            "models_dir": models_dir,
            "offline": offline,
        }
        given = {name: value for name, value in self._config.items() if name != "model"}
        _check(given if model is None else self._config)

    def __call__(self, input: Documents) -> Embeddings:
        """Returns one vector for each document."""
        return self._embed(input, is_query=False)

    def embed_query(self, input: Documents) -> Embeddings:
        """Returns one vector for each query."""
        return self._embed(input, is_query=True)

    def _embed(self, texts: Documents, *, is_query: bool) -> Embeddings:
        if isinstance(texts, str):
            texts = [texts]
        for text in texts:
            if not isinstance(text, str):
                message = f"warpseek embeds texts, not {type(text).__name__}"
                raise TypeError(message + "; give embeddings for such records yourself")
        if not texts:
            return []
        embedder = self._embedder()
        encode = embedder.encode_query if is_query else embedder.encode_document
        vectors, counts = encode(
            list(texts),
            batch_size=self._config["batch_size"],
            normalize_embeddings=self._config["normalize_embeddings"],
            return_counts=True,
        )
        if (warning := truncation(embedder, counts, "texts")) is not None:
            logger.warning("%s", warning)
        return list(np.asarray(vectors, dtype=np.float32))

    def _embedder(self) -> Embedder:
        from warpseek import Embedder

        names = ("model", "device", "precision", "models_dir", "offline")
        settings = {name: self._config[name] for name in names}
        model = settings.pop("model")
        with self._lock:
            loaded = None
            if model is None:
                loaded = Embedder(**settings)
                model = self._config["model"] = loaded.name
            key = (model, *settings.values())
            if key not in self._loaded:
                self._loaded[key] = loaded or Embedder(model, **settings)
            return self._loaded[key]

    @staticmethod
    def name() -> str:
        """Returns the name under which Chroma knows the class."""
        return "warpseek"

    def default_space(self) -> Space:
        """Returns the distance of collections that name none."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Returns the distances that fit the vectors."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """Returns the settings that Chroma keeps beside the collection, with a model's name."""
        if self._config["model"] is None:
            self._embedder()
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> WarpseekEmbeddingFunction:
        """Makes the function from the settings that `get_config` returned."""
        WarpseekEmbeddingFunction.validate_config(config)
        settings = dict(config)
        return WarpseekEmbeddingFunction(settings.pop("model"), **settings)

    @staticmethod
    def validate_config(config: Mapping[str, Any]) -> None:
        """Refuses settings that are unknown, missing or of a wrong type.

        Raises:
            ValueError: With the name of the setting.
        """
        _check(config)
        if "model" not in config:
            raise ValueError(_NO_MODEL)

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Refuses a change after which old and new vectors would not be comparable.

        Raises:
            ValueError: With the name of the setting.
        """
        self.validate_config(new_config)
        for name in _FIXED:
            old, new = old_config.get(name), new_config.get(name, old_config.get(name))
            if old != new:
                message = f"the collection holds vectors of {name}={old!r}, not {new!r}"
                raise ValueError(f"{message}: make a new collection and add the documents again")


def _check(config: Mapping[str, Any]) -> None:
    """Refuses settings that are unknown or of a wrong type."""
    if unknown := sorted(set(config) - set(_TYPES)):
        known = ", ".join(_TYPES)
        message = f"unknown setting '{unknown[0]}' of a warpseek embedding function"
        raise ValueError(f"{message}: the settings are {known}")
    if "model" in config and not config["model"]:
        raise ValueError(_NO_MODEL)
    for name, value in config.items():
        is_flag = isinstance(value, bool) and bool not in _TYPES[name]
        if not isinstance(value, _TYPES[name]) or is_flag:
            wanted = " or ".join(t.__name__.replace("NoneType", "None") for t in _TYPES[name])
            kind = type(value).__name__
            raise ValueError(f"setting '{name}' must be {wanted}, and it is {kind}: {value!r}")
    if (batch_size := config.get("batch_size")) is not None and batch_size < 1:
        raise ValueError(f"setting 'batch_size' must be at least 1, and it is {batch_size}")
