"""Arguments of an index's calls, checked by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from warpseek._arrays import as_vectors
from warpseek._settings import Settings, settings
from warpseek.errors import UsageError
from warpseek.filters import to_filter

Path = str | os.PathLike[str]
Fusion = Literal["weighted", "rrf"]
Where = str | Mapping[str, Any] | None
Field = str | Callable[[Any], Any] | None
Metadata = Sequence[str] | Callable[[Any], Mapping[str, Any]] | None

_SETTINGS = ("device", "precision", "models_dir", "offline")


def settings_of(kwargs: Mapping[str, Any]) -> Settings:
    """Returns the settings among the arguments of :class:`warpseek.Index`; refuses other names."""
    for name in kwargs:
        if name not in (*_SETTINGS, "reranker"):
            raise TypeError(f"unexpected keyword argument {name!r}")
    return settings(*(kwargs.get(name) for name in _SETTINGS))


def path_of(path: Path) -> str:
    """Returns the absolute path of an index."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise UsageError(f"path must be a text or a pathlib.Path, found {type(path).__name__}")
    text = os.fspath(path)
    if not text:
        raise UsageError("path is empty: name a folder")
    return os.path.abspath(text)


def at_least(least: int, **values: Any) -> None:
    """Refuses values that are no integers of at least `least`; None is left to the default."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise UsageError(f"{name} must be an integer, found {type(value).__name__}")
        if value < least:
            raise UsageError(f"{name} is {value}: it must be at least {least}")
        if value > 2**31:
            raise UsageError(f"{name} is {value}: it must be at most {2**31}")


def search_options(
    *,
    k: int,
    where: Where = None,
    hybrid: bool = False,
    fusion: Fusion | None = None,
    mmr: float | None = None,
    rerank: bool | None = None,
    rerank_depth: int | None = None,
    retriever_weight: float | None = None,
    min_score: float | None = None,
    max_per_doc: int | None = None,
) -> dict[str, Any]:
    """Returns the options of a search as the core takes them."""
    at_least(1, k=k, rerank_depth=rerank_depth, max_per_doc=max_per_doc)
    if isinstance(mmr, bool):
        raise UsageError("mmr is a weight of relevance, 0..1: use mmr=0.5")
    for name, number in (
        ("mmr", mmr),
        ("retriever_weight", retriever_weight),
        ("min_score", min_score),
    ):
        if number is not None and (
            isinstance(number, bool) or not isinstance(number, (int, float, np.number))
        ):
            raise UsageError(f"{name} must be a number, found {type(number).__name__}")
    if rerank is False:
        for name, value in (
            ("rerank_depth", rerank_depth),
            ("retriever_weight", retriever_weight),
        ):
            if value is not None:
                raise UsageError(f"{name} is for reranking, and rerank is False: leave out one")
    for name, value in (("hybrid", hybrid), ("rerank", rerank)):
        if value is not None and not isinstance(value, (bool, np.bool_)):
            raise UsageError(f"{name} must be True or False, found {type(value).__name__}")
    if fusion not in (None, "weighted", "rrf"):
        raise UsageError(f'fusion={fusion!r}: use "weighted" or "rrf"')
    if fusion is not None and not hybrid:
        raise UsageError("fusion is for hybrid search: add hybrid=True")
    return {
        "k": int(k),
        "where": to_filter(where),
        "hybrid": bool(hybrid),
        "fusion": fusion,
        "mmr": mmr,
        "rerank": None if rerank is None else bool(rerank),
        "rerank_depth": rerank_depth,
        "retriever_weight": retriever_weight,
        "min_score": min_score,
        "max_per_doc": max_per_doc,
    }


def queries_of(
    query: Any, text: str | Sequence[str] | None, dim: Callable[[], int]
) -> tuple[list[str] | None, npt.NDArray[np.float32] | None, bool]:
    """Returns the texts and the vectors of a query, and True if it is one query."""
    is_one = isinstance(query, str)
    if is_one or (isinstance(query, (list, tuple)) and all(isinstance(t, str) for t in query)):
        if text is not None:
            raise UsageError("text is for query vectors, and the query is a text already")
        return [query] if is_one else list(query), None, is_one
    if (isinstance(query, np.ndarray) and query.dtype.kind in "OU") or _is_series(query):
        return queries_of(list(query), text, dim)
    array = np.asarray(query)
    if array.dtype.kind in "OUS":
        raise UsageError("query must be a text, a list of texts, or an array of vectors")
    vectors = as_vectors(array, "query", dim(), one=True)
    if text is None:
        return None, vectors, array.ndim == 1
    texts = [text] if isinstance(text, str) else list(text)
    if len(texts) != len(vectors):
        raise UsageError(f"text has {len(texts)} texts for {len(vectors)} query vectors")
    return texts, vectors, array.ndim == 1


def _is_series(value: Any) -> bool:
    """True for a column of pandas or polars."""
    return type(value).__name__ == "Series" and hasattr(value, "to_list")


def ids_of(ids: str | Iterable[str] | None) -> list[str]:
    """Returns ids as a list; refuses those that are no strings."""
    if ids is None:
        return []
    if isinstance(ids, str):
        return [ids]
    if isinstance(ids, (bytes, Mapping)) or not isinstance(ids, Iterable):
        raise UsageError(f"ids must be a string or a list of strings, found {type(ids).__name__}")
    checked = []
    for i, id in enumerate(ids):
        if not isinstance(id, str):
            raise UsageError(
                f"ids[{i}] must be a string, found {type(id).__name__}: use str({id!r})"
            )
        checked.append(id)
    return checked


def field_names(
    id: Field, text: Field, title: Field, metadata: Any
) -> dict[str, str | list[str] | None]:
    """Returns the names of the fields with id, text and title, and those of the metadata."""
    names: dict[str, str | list[str] | None] = {}
    for role, name in (("id", id), ("text", text), ("title", title)):
        if name is not None and not isinstance(name, str):
            raise UsageError(f"{role} must be a field's name, found {type(name).__name__}")
        names[role] = name
    if isinstance(metadata, str):
        raise UsageError("metadata must be a list of field names: use metadata=[...]")
    names["metadata"] = None if metadata is None else list(metadata)
    return names


def on_error_of(on_error: str) -> str:
    """Returns what to do with records that cannot be used."""
    if on_error not in ("raise", "skip"):
        raise UsageError(f'on_error={on_error!r}: use "raise" or "skip"')
    return on_error


def plain(value: Any) -> Any:
    """Returns mappings as dicts, for the core, and paths as text."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value
