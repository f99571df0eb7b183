"""Exchange with Milvus: the rows of an index as a collection, and a collection as an index.

Needs pymilvus. Searches go on over warpseek's own rows, where they are exact: Milvus is not
searched, since its scores do not have the same bits and its filters are another language.

>>> export_index("papers", "http://localhost:19530", "papers")["rows"]
41584
>>> with import_index("http://localhost:19530", "papers", "copy") as index:
...     index.search("graph neural networks")
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from warpseek._arguments import Path, at_least, path_of
from warpseek.errors import IndexIOError, InputError, RemoteError, UsageError
from warpseek.index import Index, Metric
from warpseek.results import Hit

__all__ = ["export_index", "import_index"]

# Limits of Milvus, in bytes of UTF-8.
_MOST_TEXT = 65_535
_MOST_JSON = 65_536

# Rows of an answer.
_MOST_ROWS = 16_384

# Integers that Milvus's JSON holds.
_INTEGERS = range(-(2**63), 2**63)

# The most by which the lengths of unit vectors differ from 1, in half and in single precision.
_UNIT_HALF, _UNIT_SINGLE = 1e-3, 1e-5

# Fields that have the text or the title, as Index.add knows them.
_NAMES = {
    "text": ("text", "contents", "content", "body", "passage", "chunk", "abstract"),
    "title": ("title", "headline", "name"),
}

# The fields of a collection that export_index makes, but for the vectors.
_FIELDS = ("id", "row", "doc_id", "title", "text", "metadata")


@contextlib.contextmanager
def _client(uri: str, token: str, db_name: str) -> Iterator[Any]:
    """A client, whose errors are exceptions of warpseek."""
    try:
        import pymilvus
    except ImportError:
        raise UsageError("warpseek.milvus needs pymilvus: pip install pymilvus") from None
    try:
        client = pymilvus.MilvusClient(uri, token=token, db_name=db_name)
        with contextlib.closing(client):
            yield client
    except pymilvus.MilvusException as error:
        raise RemoteError(f"Milvus at {uri}: {error.message}") from None


def _check_batch(batch_size: int) -> None:
    at_least(1, batch_size=batch_size)
    if batch_size > _MOST_ROWS:
        raise UsageError(f"batch_size is {batch_size}: Milvus answers with at most {_MOST_ROWS:,}")


def _n_rows(client: Any, collection: str) -> int:
    found = client.query(collection, filter="", output_fields=["count(*)"])
    return int(found[0]["count(*)"])


# -- export ----------------------------------------------------------------------------------------


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
    _check_batch(batch_size)
    if not isinstance(index, Index):
        with Index(index) as opened:
            return export_index(
                opened, uri, collection, token=token, db_name=db_name, batch_size=batch_size
            )
    with _client(uri, token, db_name) as client:
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
    found = _n_rows(client, name)
    if found != rows:
        raise RemoteError(f"Milvus has {found} rows of {rows} that were sent")
    for sent in _rows(index, batch_size):
        received = {row["row"]: row for row in _range(client, name, sent[0][0], len(sent))}
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


def _range(client: Any, name: str, first: int, n: int) -> list[dict[str, Any]]:
    """Rows by their places in the order."""
    condition = f"row >= {first} and row < {first + n}"
    found = client.query(name, filter=condition, output_fields=[*_FIELDS, "vector"], limit=n)
    return sorted(found, key=lambda row: row["row"])


# -- import ----------------------------------------------------------------------------------------


def import_index(
    uri: str,
    collection: str,
    path: Path,
    *,
    token: str = "",
    db_name: str = "",
    vector: str | None = None,
    id: str | None = None,
    text: str | None = None,
    title: str | None = None,
    metadata: Sequence[str] | None = None,
    model: str | None = None,
    normalize: bool = False,
    language: str | None = None,
    metric: Metric | None = None,
    batch_size: int = 500,
    **kwargs: Any,
) -> Index:
    """Imports the rows of a collection of Milvus into a new index, and opens it.

    A collection that :func:`export_index` made has its rows in their order again. Each is a
    document of its own: those of one document keep its id as ``doc_id`` in the metadata, and have
    ``#0`` behind their ids. Rows of others come in the order of their
    primary keys, and all fields but id, text and title become metadata.

    Args:
        uri: Address of the server, or a file for Milvus Lite.
        collection: Name of the collection.
        path: Folder of the index, which must not exist.
        token: Token, or ``user:password``.
        db_name: Name of the database.
        vector: Field with the vectors (float32); by default the only one.
        id: Field with the id, by default the primary key.
        text: Field with the text, by default the first of the names that :meth:`Index.add` knows;
            `title` likewise.
        metadata: Fields to keep as metadata, by default all others.
        model: Model that made the vectors, which is needed to search by text.
        normalize: True to scale the vectors to unit length.
        language: See :meth:`Index.create`.
        metric: ``"cosine"``, which scales them too, or ``"inner_product"``. By default that of the
            collection's index; one by L2 distance is refused unless all vectors have unit length.
        batch_size: Rows that are read at a time, at most 16,384.
        kwargs: Further arguments of :class:`Index`.

    Raises:
        UsageError: If there is no such collection, or its vectors or metric cannot be imported.
        RemoteError: If Milvus fails, or if rows are added or deleted meanwhile.
    """
    _check_batch(batch_size)
    if not isinstance(uri, str):
        raise UsageError(f"uri must be a text, found {type(uri).__name__}")
    if metric not in (None, "cosine", "inner_product"):
        raise UsageError(f"metric={metric!r}: use 'cosine' or 'inner_product'")
    folder = path_of(path)
    if os.path.islink(folder) or (
        os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder))
    ):
        raise UsageError(f"{folder} is there already: name a folder that does not exist")
    names = {"id": id, "text": text, "title": title, "metadata": metadata}
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
    except OSError as error:
        raise IndexIOError(f"{folder}: {error}", exit_code=8, file=folder) from None
    with (
        _client(uri, token, db_name) as client,
        # Beside the index, to which it is renamed when all rows are in it.
        tempfile.TemporaryDirectory(prefix=".warpseek-", dir=os.path.dirname(folder)) as place,
    ):
        if not client.has_collection(collection):
            found = ", ".join(sorted(client.list_collections())) or "none"
            raise UsageError(f"Milvus at {uri} has no collection '{collection}'; it has {found}")
        layout = _Layout(client, collection, vector, names)
        client.load_collection(collection)
        wanted = layout.metric if metric is None else metric
        if normalize and wanted == "L2":
            # As Index.import_faiss has it: scaled vectors rank by the cosine.
            wanted = "cosine"
        made = os.path.join(place, "index")
        settings = {"model": model, "language": language, **kwargs}
        _receive(client, layout, made, wanted, settings, normalize, batch_size)
        if os.path.isdir(folder):
            os.rmdir(folder)
        os.rename(made, folder)
    return Index(folder, **kwargs)


def _receive(
    client: Any,
    layout: _Layout,
    folder: str,
    metric: str,
    settings: dict[str, Any],
    normalize: bool,
    batch_size: int,
) -> None:
    """Makes an index of the rows of a collection."""
    n = _n_rows(client, layout.collection)
    if n == 0:
        raise UsageError(f"the collection '{layout.collection}' has no rows")
    written = 0
    index: Index | None = None
    try:
        for rows in _batches(client, layout, n, batch_size):
            vectors = np.array([row.pop(layout.vector) for row in rows], np.float32)
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
            is_unit = np.abs(lengths - 1) < (_UNIT_HALF if layout.is_own else _UNIT_SINGLE)
            if metric == "L2" and not is_unit.all():
                raise UsageError(
                    f"the collection '{layout.collection}' ranks by L2, and its vectors are not "
                    "of unit length: only for those does the inner product give the same order. "
                    'metric="cosine" scales them, which changes it'
                )
            if metric == "cosine" or normalize:
                # Vectors of unit length keep their last bits, which scaling can change.
                scaled = ~is_unit & (lengths > 0)
                vectors[scaled] = vectors[scaled] / lengths[scaled, None]
            records = [layout.record(row) for row in rows]
            if index is None:
                file = f"{folder}.npy"
                np.save(file, vectors)
                given: Any = "inner_product" if metric == "inner_product" else None
                index = Index.import_faiss(
                    file, folder, documents=records, metric=given, **settings
                )
                if index.metric != ("inner_product" if metric == "inner_product" else "cosine"):
                    raise UsageError(
                        f"the collection '{layout.collection}' ranks by the cosine, and the model "
                        "is compared by the inner product: name the metric with metric="
                    )
            else:
                index.add(records, vectors=vectors)
            written += len(rows)
            if written > n:
                break
        if index is not None and len(index) < written == n:
            raise UsageError(
                f"the field '{layout.id}' of the collection '{layout.collection}' has "
                "values that occur twice: name another one with id="
            )
        if index is None or written != n or n != _n_rows(client, layout.collection):
            raise RemoteError(
                f"the collection '{layout.collection}' had {n} rows and gave {written}: it "
                "changes, or its server does not read it whole; try again when nothing writes to it"
            )
    finally:
        if index is not None:
            index.close()


class _Layout:
    """The fields of a collection, and its metric: ``cosine``, ``inner_product`` or ``L2``."""

    def __init__(
        self, client: Any, collection: str, vector: str | None, names: dict[str, Any]
    ) -> None:
        from pymilvus import DataType

        self.collection = collection
        found = client.describe_collection(collection)
        fields = {field["name"]: field for field in found["fields"]}
        kinds = {name: f["type"] for name, f in fields.items() if "VECTOR" in f["type"].name}
        usable = [name for name, type in kinds.items() if type == DataType.FLOAT_VECTOR]
        have = ", ".join(f"{name} ({type.name})" for name, type in kinds.items()) or "none"
        if vector is not None and vector not in usable:
            raise UsageError(f"vector='{vector}': use a FLOAT_VECTOR; the collection has {have}")
        if not usable:
            raise UsageError(f"the collection '{collection}' has no FLOAT_VECTOR; it has {have}")
        if vector is None and len(usable) != 1:
            raise UsageError(
                f"name the FLOAT_VECTOR to use with vector=; the collection has {have}"
            )
        self.vector = vector or usable[0]
        own = {name: getattr(fields.get(name, {}).get("type"), "name", "") for name in _FIELDS}
        self.is_own = set(fields) == {*_FIELDS, "vector"} and (
            own["row"] == "INT64" and own["metadata"] == "JSON" and own["id"] == "VARCHAR"
        )
        if self.is_own and any(name is not None for name in names.values()):
            raise UsageError(
                f"the collection '{collection}' was made by export_index, which says what its "
                "fields are: leave id, text, title and metadata out"
            )
        key = next(name for name, field in fields.items() if field.get("is_primary"))
        self.key: str = key
        self.id: str = names["id"] or key
        self._fields = fields
        self._given = names
        kept = names["metadata"]
        is_list = isinstance(kept, Sequence) and not isinstance(kept, (str, bytes))
        if kept is not None and not (is_list and all(isinstance(name, str) for name in kept)):
            raise UsageError("metadata must be a list of field names: use metadata=[...]")
        for role, given in [("text", names["text"]), ("title", names["title"])] + [
            ("metadata", name) for name in kept or ()
        ]:
            # Dynamic fields are not known beforehand.
            if given is not None and given not in fields and not found["enable_dynamic_field"]:
                raise UsageError(f"{role}: the collection '{collection}' has no field {given!r}")
        self._others = [name for name in kinds if name != self.vector]
        described = [
            client.describe_index(collection, name) for name in client.list_indexes(collection)
        ]
        metrics = [d["metric_type"] for d in described if d.get("field_name") == self.vector]
        known = {"COSINE": "cosine", "IP": "inner_product"}
        self.metric = known.get(metrics[0], metrics[0]) if metrics else "L2"

    def record(self, row: dict[str, Any]) -> Any:
        """A row without its vector as a record of :meth:`Index.add`."""
        if self.is_own:
            told = row["metadata"]
            metadata = json.loads(told) if isinstance(told, (str, bytes)) else told
            if row["doc_id"] != row["id"]:
                metadata = {"doc_id": row["doc_id"], **metadata}
            return row["id"], row["text"], row["title"], metadata
        if row.get(self.id) is None:
            where = f"the row with {self.key} = {row.get(self.key)!r}"
            raise UsageError(f"{where} has no value in '{self.id}': name another field with id=")
        roles = {role: self._field_of(role, row) for role in ("text", "title")}
        named = {role: row.get(name or "") for role, name in roles.items()}
        for role, value in named.items():
            if value is not None and not isinstance(value, str):
                found = type(value).__name__
                raise UsageError(f"the field '{roles[role]}' is no {role}: it has {found}")
        taken = {self.id, *roles.values(), *self._others}
        kept = self._given["metadata"]
        metadata = {
            name: value
            for name, value in row.items()
            if name not in taken and (kept is None or name in kept)
        }
        return str(row[self.id]), named["text"] or "", named["title"] or "", metadata

    def _field_of(self, role: str, row: dict[str, Any]) -> str | None:
        """The field with text or title: the given one, or the first of the known names.

        Fields of all rows go before dynamic ones, which are looked for in each row.
        """
        given: str | None = self._given[role]
        if given is not None:
            return given
        known = [name for name in _NAMES[role] if name in self._fields]
        return next((name for name in known or _NAMES[role] if name in row), None)


def _batches(client: Any, layout: _Layout, n: int, batch_size: int) -> Iterator[list[Any]]:
    if layout.is_own:
        first, step, received = 0, batch_size, 0
        # Rows that were deleted in Milvus leave gaps, which are passed over in growing steps.
        while received < n and first < 2**32:
            if step > batch_size:
                condition = f"row >= {first} and row < {first + step}"
                if client.query(
                    layout.collection, filter=condition, output_fields=["row"], limit=1
                ):
                    step = max(batch_size, step // 2)
                else:
                    first, step = first + step, 2 * step
                continue
            found = _range(client, layout.collection, first, step)
            first, step = first + step, batch_size if found else 2 * batch_size
            received += len(found)
            if found:
                yield found
        return
    rows = client.query_iterator(layout.collection, batch_size=batch_size, output_fields=["*"])
    try:
        while batch := rows.next():
            last = batch[-1].get(layout.key)
            if isinstance(last, str) and not {'"', "\\"}.isdisjoint(last) and len(batch) < n:
                raise UsageError(
                    f"the key {last!r} ends an answer, and pymilvus cannot go on after a quote or "
                    "a backslash: use another batch_size, or rename the key"
                )
            yield [dict(row) for row in batch]
    finally:
        rows.close()
