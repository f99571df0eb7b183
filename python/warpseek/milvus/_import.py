"""Import of a collection: its rows as an index."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from warpseek._arguments import Path, path_of
from warpseek.errors import IndexIOError, RemoteError, UsageError
from warpseek.index import Index, Metric
from warpseek.milvus._client import FIELDS, check_batch, connected, n_rows, rows_between

# The most by which the lengths of unit vectors differ from 1, in half and in single precision.
_UNIT_HALF, _UNIT_SINGLE = 1e-3, 1e-5

# Fields that have the text or the title, as Index.add knows them.
_NAMES = {
    "text": ("text", "contents", "content", "body", "passage", "chunk", "abstract"),
    "title": ("title", "headline", "name"),
}


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
    check_batch(batch_size)
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
        connected(uri, token, db_name) as client,
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
    n = n_rows(client, layout.collection)
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
                    f"the collection '{layout.collection}' ranks by L2 or has no index that tells, "
                    "and its vectors are not of unit length: only for those does the inner product "
                    "give the same order. "
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
        layout.check_seen()
        if index is not None and len(index) < written == n:
            raise UsageError(
                f"the field '{layout.id}' of the collection '{layout.collection}' has "
                "values that occur twice: name another one with id="
            )
        if index is None or written != n or n != n_rows(client, layout.collection):
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
        own = {name: getattr(fields.get(name, {}).get("type"), "name", "") for name in FIELDS}
        self.is_own = set(fields) == {*FIELDS, "vector"} and (
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
        self._unseen: dict[str, str] = {}
        kept = names["metadata"]
        is_list = isinstance(kept, Sequence) and not isinstance(kept, (str, bytes))
        if kept is not None and not (is_list and all(isinstance(name, str) for name in kept)):
            raise UsageError("metadata must be a list of field names: use metadata=[...]")
        for role, given in [("text", names["text"]), ("title", names["title"])] + [
            ("metadata", name) for name in kept or ()
        ]:
            if given is not None and given not in fields:
                # Dynamic fields are not known before all rows are read.
                self._unseen[given] = role
        if not found["enable_dynamic_field"]:
            self.check_seen()
        self._others = [name for name in kinds if name != self.vector]
        described = [
            client.describe_index(collection, name) for name in client.list_indexes(collection)
        ]
        metrics = [d["metric_type"] for d in described if d.get("field_name") == self.vector]
        known = {"COSINE": "cosine", "IP": "inner_product"}
        self.metric = known.get(metrics[0], metrics[0]) if metrics else "L2"

    def check_seen(self) -> None:
        """Refuses names of fields that the collection does not have, after all rows if need be."""
        for name, role in self._unseen.items():
            raise UsageError(f"{role}: the collection '{self.collection}' has no field {name!r}")

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
        for name in self._unseen.keys() & row.keys():
            del self._unseen[name]
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
            found = rows_between(client, layout.collection, first, step)
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
