"""Conversion between Haystack's documents and records of the index.

A record has the id and the content of the document, and its meta as metadata, so that filters see
it. A reserved field holds what the index has no place for:

| member of `_haystack` | holds |
| --- | --- |
| `no_content` | `true` if the content is `None`, and not an empty text |
| `no_embedding` | `true` if the document has no embedding; its row is zero then |
| `has_blob`, `has_sparse_embedding` | `true` if the document has one |
| `norm` | the length of the embedding, if the row was brought to length 1 |
| `kept` | JSON text of the blob, the sparse embedding, the score, and of a meta that JSON changes |
"""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
from haystack import Document
from haystack.dataclasses import ByteStream, SparseEmbedding

from warpseek import UsageError
from warpseek._arrays import Vectors
from warpseek.integrations._store import Record, row_of, unit_rows

__all__ = [
    "RESERVED",
    "RESERVED_FLAGS",
    "check_id",
    "meta_of",
    "norm_of",
    "row_for_store",
    "to_document",
    "to_record",
    "to_row",
]

#: Metadata field of the index that no document may use itself.
RESERVED = "_haystack"

#: Members of the reserved field by the document's field, and True where they mark its presence.
RESERVED_FLAGS = {
    "content": ("no_content", False),
    "embedding": ("no_embedding", False),
    "blob": ("has_blob", True),
    "sparse_embedding": ("has_sparse_embedding", True),
}

_TAG = "$haystack"
_LARGEST_HALF = 65504.0
_LONGEST_ID = 512


def to_record(document: Document, *, norm: float | None = None) -> Record:
    """Returns the record of a document, without its embedding.

    Args:
        document: The document.
        norm: Length of the embedding, if it is stored with length 1.

    Raises:
        ValueError: If the content or meta cannot be kept; names the field.
    """
    if RESERVED in document.meta:
        raise UsageError(
            f"document '{document.id}': the meta field '{RESERVED}' is reserved: rename it"
        )
    _plain(document.content, f"document '{document.id}': the content")
    plain, is_exact = _plain(document.meta, f"document '{document.id}': meta")
    kept: dict[str, Any] = {}
    if not is_exact:
        kept["meta"] = _tagged(document.meta)
    if document.blob is not None:
        blob = document.blob
        _plain(blob.meta, f"document '{document.id}': blob.meta")
        data = base64.b64encode(blob.data).decode("ascii")
        kept["blob"] = {"data": data, "meta": _tagged(blob.meta), "mime_type": blob.mime_type}
    if document.sparse_embedding is not None:
        kept["sparse_embedding"] = document.sparse_embedding.to_dict()
    if document.score is not None:
        kept["score"] = float(document.score)
    reserved: dict[str, Any] = {
        "no_content": document.content is None,
        "no_embedding": document.embedding is None,
        "has_blob": document.blob is not None,
        "has_sparse_embedding": document.sparse_embedding is not None,
    }
    reserved = {name: value for name, value in reserved.items() if value}
    if norm is not None:
        reserved["norm"] = norm
    if kept:
        reserved["kept"] = json.dumps(kept)
    metadata = {**plain, RESERVED: reserved} if reserved else plain
    return document.id, document.content or "", "", metadata


def to_row(document: Document, dim: int, *, is_cosine: bool) -> tuple[Vectors, float | None]:
    """Returns the row of a document, and the length of its embedding where the row has another.

    Raises:
        ValueError: If the embedding does not fit the store.
    """
    if document.embedding is None:
        return np.zeros(dim, dtype=np.float32), None
    name = f"document '{document.id}': the embedding"
    row = row_for_store(document.embedding, dim, name)
    if is_cosine:
        rows, (norm, *_) = unit_rows(row[None])
        row = rows[0]
        if norm != 1:
            return row, float(norm)
    if (largest := float(np.abs(row).max(initial=0))) > _LARGEST_HALF:
        raise UsageError(
            f"{name} has the value {largest:g}, and at most {_LARGEST_HALF:g} is stored: scale the "
            "embeddings, or make the store with similarity='cosine'"
        )
    return row, None


def row_for_store(values: Any, dim: int, name: str, *, normalize: bool = False) -> Vectors:
    """Returns an embedding as a row, scaled to unit length if `normalize`.

    Raises:
        ValueError: If it has another dimension, or values that are not finite numbers.
    """
    row = row_of(values, normalize, name)
    if len(row) != dim:
        raise UsageError(
            f"{name} has {len(row)} dimensions, and the store has {dim}: embed with the model of "
            f"the other documents, or make a new store with embedding_dim={len(row)}"
        )
    return row


def to_document(
    record: Any, *, score: float | None = None, vector: Vectors | None = None
) -> Document:
    """Returns the document of a hit.

    Args:
        record: Hit of the index.
        score: Score of the search; `None` gives the document the score that it was written with.
        vector: Row of the hit, if the document shall have its embedding.
    """
    reserved, kept = _reserved(record)
    fields: dict[str, Any] = {"id": record.id, "meta": _meta(record, kept)}
    fields["content"] = None if reserved.get("no_content") else record.text
    if blob := kept.get("blob"):
        data, meta = base64.b64decode(blob["data"]), _untagged(blob["meta"])
        fields["blob"] = ByteStream(data=data, meta=meta, mime_type=blob["mime_type"])
    if sparse := kept.get("sparse_embedding"):
        fields["sparse_embedding"] = SparseEmbedding.from_dict(sparse)
    if vector is not None and not reserved.get("no_embedding"):
        norm = np.float32(reserved.get("norm", 1))
        fields["embedding"] = (np.asarray(vector, dtype=np.float32) * norm).tolist()
    fields["score"] = score if score is not None else kept.get("score")
    return Document(**fields)


def check_id(name: str) -> None:
    """Refuses ids that the index does not take, before anything is written."""
    reason = ""
    if not name.strip():
        reason = "is blank: give another one, or none, and Haystack makes it"
    elif len(name.encode("utf-8", "replace")) > _LONGEST_ID:
        reason = f"has more than {_LONGEST_ID} bytes: give a shorter one"
    elif any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        reason = "holds control characters or is not valid Unicode: remove them"
    if reason:
        raise UsageError(f"document {name[:80]!r}: the id {reason}")


def meta_of(record: Any) -> dict[str, Any]:
    """Returns the meta of a hit's document."""
    return _meta(record, _reserved(record)[1])


def norm_of(record: Any) -> float | None:
    """Returns the length of a hit's embedding, if its row has another."""
    norm: float | None = _reserved(record)[0].get("norm")
    return norm


def _reserved(record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the reserved field of a hit, and what it keeps as JSON text."""
    reserved = record.metadata.get(RESERVED, {})
    return reserved, json.loads(reserved["kept"]) if "kept" in reserved else {}


def _meta(record: Any, kept: dict[str, Any]) -> dict[str, Any]:
    if "meta" in kept:
        meta: dict[str, Any] = _untagged(kept["meta"])
        return meta
    return {name: value for name, value in record.metadata.items() if name != RESERVED}


def _plain(value: Any, where: str) -> tuple[Any, bool]:
    """Returns a value as the index keeps it, and True if it comes back as it was.

    Raises:
        ValueError: If it cannot be kept; names the place.
    """
    match value:
        case None | bool():
            return value, True
        case str():
            if not value.isascii() and value.encode("utf-8", "ignore").decode() != value:
                raise UsageError(
                    f"{where} holds a text that is not valid Unicode: remove its surrogates"
                )
            return str(value), True
        case int():
            if not -(2**63) <= value < 2**64:
                raise UsageError(f"{where} holds an integer beyond 64 bits: give it as text")
            return int(value), True
        case float():
            return (float(value), True) if math.isfinite(value) else (None, False)
        case datetime() | date():
            return value.isoformat(), False
        case np.generic():
            return _plain(value.item(), where)
        case list() | tuple():
            parts = [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
            is_exact = isinstance(value, list) and all(exact for _, exact in parts)
            return [part for part, _ in parts], is_exact
        case Mapping():
            members = {}
            is_exact = True
            for name, item in value.items():
                if not isinstance(name, str) or not name:
                    raise UsageError(f"{where} has the name {name!r}: names are non-empty texts")
                members[name], exact = _plain(item, f"{where}.{name}")
                is_exact = is_exact and exact
            return members, is_exact
    kind = type(value).__name__
    raise UsageError(f"{where} holds a {kind}, which JSON has no value for: convert it first")


def _tagged(value: Any) -> Any:
    """Returns a value for JSON that tells what JSON would change."""
    match value:
        case datetime():
            return {_TAG: "datetime", "value": value.isoformat()}
        case date():
            return {_TAG: "date", "value": value.isoformat()}
        case tuple():
            return {_TAG: "tuple", "value": [_tagged(item) for item in value]}
        case list():
            return [_tagged(item) for item in value]
        case Mapping():
            members = {name: _tagged(item) for name, item in value.items()}
            return {_TAG: "dict", "value": members} if _TAG in members else members
        case np.generic():
            return value.item()
    return value


def _untagged(value: Any) -> Any:
    """Reverts `_tagged`."""
    match value:
        case list():
            return [_untagged(item) for item in value]
        case {"$haystack": "datetime", "value": text}:
            return datetime.fromisoformat(text)
        case {"$haystack": "date", "value": text}:
            return date.fromisoformat(text)
        case {"$haystack": "tuple", "value": items}:
            return tuple(_untagged(item) for item in items)
        case {"$haystack": "dict", "value": members}:
            return {name: _untagged(item) for name, item in members.items()}
        case dict():
            return {name: _untagged(item) for name, item in value.items()}
    return value
