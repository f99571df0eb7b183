"""Export of an index: its rows as a collection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from warpseek._arguments import Path
from warpseek.errors import InputError, RemoteError, UsageError
from warpseek.index import Index
from warpseek.milvus._client import check_batch, connected, n_rows, rows_between
from warpseek.results import Hit

# Limits of Milvus, in bytes of UTF-8.
_MOST_TEXT = 65_535
_MOST_JSON = 65_536

# Integers that Milvus's JSON holds.
_INTEGERS = range(-(2**63), 2**63)


def export_index(
    index: Index | Path,
    uri: str,
    collection: str,
    *,
    token: str = "",
    db_name: str = "",
    batch_size: int = 500,
) -> dict[str, Any]:
    """Writes the live rows of an index into a new collection of Milvus, with an exact index.

    The collection has the fields ``id`` (the primary key: the id of the row), ``row`` (its place in
    the order), ``doc_id``, ``title``, ``text``, ``metadata`` (JSON) and ``vector`` (float32, which
    holds the half-precision values exactly). It has another name until all rows have been read
    back and compared.

    Args:
        index: The index, or its folder.
        uri: Address of the server, or a file for Milvus Lite.
        collection: Name of the collection, which must not exist.
        token: Token, or ``user:password``.
        db_name: Name of the database.
        batch_size: Rows that are sent at a time, at most 16,384.

    Returns:
        The number of ``rows``, and ``collection``.

    Raises:
        UsageError: If there is a collection of this name.
        InputError: For a row beyond Milvus's limits: 65,535 bytes of a text, 65,536 of metadata,
            integers of 64 bits.
        RemoteError: If Milvus fails or gives other rows back, with a message that says which.
    """
    check_batch(batch_size)
    if not isinstance(index, Index):
        with Index(index) as opened:
            return export_index(
                opened, uri, collection, token=token, db_name=db_name, batch_size=batch_size
            )
    with connected(uri, token, db_name) as client:
        if client.has_collection(collection):
            raise UsageError(
                f"Milvus at {uri} has a collection '{collection}' already: name another one, or "
                "drop it first"
            )
        partial = f"{collection}_partial"
        if client.has_collection(partial):
            raise UsageError(
                f"Milvus at {uri} has a collection '{partial}', perhaps of an export that was "
                "killed: drop it first"
            )
        try:
            _create(client, partial, index)
            rows = _send(client, partial, index, batch_size)
            client.flush(partial)
            _compare(client, partial, index, batch_size, rows)
            client.rename_collection(partial, collection)
        except BaseException:
            with contextlib.suppress(Exception):
                client.drop_collection(partial)
            raise
        client.load_collection(collection)
    return {"collection": collection, "rows": rows}


def _create(client: Any, name: str, index: Index) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_MOST_TEXT)
    schema.add_field("row", DataType.INT64)
    for field in ("doc_id", "title", "text"):
        schema.add_field(field, DataType.VARCHAR, max_length=_MOST_TEXT)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=index.dim)
    metric = "COSINE" if index.metric == "cosine" else "IP"
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type=metric)
    client.create_collection(name, schema=schema, index_params=indexes)


def _rows(index: Index, batch_size: int) -> Iterator[list[tuple[int, Hit]]]:
    """The live rows in their order, each with its place in it."""
    first = 0
    while hits := index.get(limit=batch_size, offset=first, include_vectors=True):
        yield list(enumerate(hits, first))
        first += len(hits)


def _send(client: Any, name: str, index: Index, batch_size: int) -> int:
    n = 0
    for rows in _rows(index, batch_size):
        sent = []
        for place, hit in rows:
            _check(index, hit)
            fields = _fields(place, hit)
            sent.append({**fields, "metadata": hit.metadata, "vector": hit.vector})
        client.insert(name, sent)
        n += len(sent)
    return n


def _fields(place: int, hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "row": place,
        "doc_id": hit.doc_id,
        "title": hit.title,
        "text": hit.text,
    }


def _check(index: Index, hit: Hit) -> None:
    """Refuses a row that Milvus would cut off, refuse or change."""

    def fail(field: str, reason: str) -> InputError:
        message = f"{index.path}, row '{hit.id}': {field}: {reason}"
        return InputError(message, file=index.path, record=hit.id, field=field)

    for field in ("id", "doc_id", "title", "text"):
        n_bytes = len(getattr(hit, field).encode())
        if n_bytes > _MOST_TEXT:
            raise fail(field, f"{n_bytes:,} bytes, and Milvus holds {_MOST_TEXT:,}")
    n_bytes = len(json.dumps(hit.metadata, ensure_ascii=False).encode())
    if n_bytes > _MOST_JSON:
        raise fail("metadata", f"{n_bytes:,} bytes, and Milvus holds {_MOST_JSON:,}")
    for path, value in _leaves(hit.metadata):
        if isinstance(value, int) and value not in _INTEGERS:
            raise fail(f"metadata.{path}", f"{value} is beyond 64 bits, which Milvus holds")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in metadata, with their paths."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def _compare(client: Any, name: str, index: Index, batch_size: int, rows: int) -> None:
    """Reads all rows back and compares them with those of the index."""
    found = n_rows(client, name)
    if found != rows:
        raise RemoteError(f"Milvus has {found} rows of {rows} that were sent")
    for sent in _rows(index, batch_size):
        received = {row["row"]: row for row in rows_between(client, name, sent[0][0], len(sent))}
        for place, hit in sent:
            row = received.get(place)
            if row is None:
                raise RemoteError(f"Milvus lost the row '{hit.id}'")
            fields = {**_fields(place, hit), "metadata": _told(hit.metadata)}
            for field, value in fields.items():
                back = _told(row[field]) if field == "metadata" else row[field]
                if back != value:
                    raise RemoteError(f"Milvus changed the {field} of the row '{hit.id}'")
            assert hit.vector is not None
            if np.asarray(row["vector"], np.float32).tobytes() != hit.vector.tobytes():
                raise RemoteError(f"Milvus changed the vector of the row '{hit.id}'")


def _told(metadata: Any) -> str:
    """Metadata as text, by which 1, 1.0 and true differ."""
    value = json.loads(metadata) if isinstance(metadata, (str, bytes)) else metadata
    return json.dumps(value, sort_keys=True)
