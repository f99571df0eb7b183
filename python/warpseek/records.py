"""Records of all kinds as one iterator: dicts, data frames, Arrow tables, datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from warpseek.errors import InputError, UsageError

Record = Mapping[str, Any]
Part = str | Callable[[Any], Any] | None

# Rows of a frame that are converted at a time.
_ROWS = 1024

_ID_NAMES = ("id", "_id", "doc_id", "docid", "docno", "pid")
_TEXT_NAMES = ("text", "contents", "content", "body", "passage", "chunk", "abstract")
_TITLE_NAMES = ("title", "headline", "name")


def read(records: Any) -> tuple[Iterable[Any], int | None]:
    """Returns an iterable of records, and their number if it is known."""
    if isinstance(records, (str, bytes, os.PathLike)):
        raise UsageError(
            "records must be a list of dicts, a data frame or another iterable of records, found "
            f"{type(records).__name__}: add_files reads files"
        )
    if isinstance(records, Mapping):
        raise UsageError("records is one dict: pass a list of dicts")
    module = type(records).__module__.partition(".")[0]
    if module == "pandas":
        return _pandas(records)
    if module == "polars":
        return _polars(records)
    if module == "datasets":
        return _dataset(records)
    if module == "pyarrow" or hasattr(records, "__arrow_c_stream__"):
        return _arrow(records)
    if not isinstance(records, Iterable):
        raise UsageError(
            f"records must be iterable, found {type(records).__name__}: pass a list of dicts"
        )
    return records, len(records) if isinstance(records, Sequence) else None


def parts_of(
    records: Iterable[Any],
    *,
    id: Part,
    text: Part,
    title: Part,
    metadata: Sequence[str] | Callable[[Any], Mapping[str, Any]] | None,
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields ``(id, text, title, metadata)`` of records whose parts are made by callables."""
    names: dict[str, str | None] | None = None
    for i, record in enumerate(records):
        if names is None:
            names = {
                "id": _field(record, id, _ID_NAMES, "id", required=False),
                "text": _field(record, text, _TEXT_NAMES, "text", required=True),
                "title": _field(record, title, _TITLE_NAMES, "title", required=False),
            }
        values = {}
        for role, part in (("id", id), ("text", text), ("title", title)):
            name = names[role]
            values[role] = part(record) if callable(part) else _get(record, name, role, i)
        if callable(metadata):
            kept: Mapping[str, Any] = metadata(record) or {}
        elif metadata is not None:
            kept = {name: record[name] for name in metadata if name in record}
        elif isinstance(record, Mapping):
            used = set(names.values())
            kept = {name: value for name, value in record.items() if name not in used}
        else:
            kept = {}
        yield values["id"], values["text"], values["title"], kept


def _field(
    record: Any, part: Part, known: Sequence[str], role: str, *, required: bool
) -> str | None:
    """The name of a role's field, by the first record; None for a callable."""
    if callable(part):
        return None
    if not isinstance(record, Mapping):
        if part is None and not required:
            return None
        raise UsageError(
            f"records are {type(record).__name__} and not dicts: pass {role}= a function of a "
            "record"
        )
    if part is not None:
        if part not in record:
            fields = ", ".join(repr(name) for name in list(record)[:20])
            raise InputError(
                f"records, field '{part}': no such field in the first record ({role}=): it has "
                f"{fields or 'no fields at all'}",
                file="records",
                field=part,
            )
        return part
    for name in known:
        if name in record:
            return name
    if required:
        fields = ", ".join(repr(name) for name in list(record)[:20])
        raise InputError(
            f"records: no field for the {role}: name it with {role}=; the first record has "
            f"{fields}",
            file="records",
        )
    return None


def _get(record: Any, name: str | None, role: str, number: int) -> Any:
    if name is None:
        return None
    if role == "text" and name not in record:
        raise InputError(
            f"records, record {number + 1}, field '{name}': the record has no text",
            file="records",
            record=f"record {number + 1}",
            field=name,
        )
    return record.get(name)


def _pandas(frame: Any) -> tuple[Iterable[Record], int]:
    if not hasattr(frame, "columns"):
        raise UsageError("records is a pandas Series: pass a DataFrame, or series.to_frame()")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"records has two columns {twice!r}: rename one")

    def rows() -> Iterator[Record]:
        for start in range(0, len(frame), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            # NaN, NaT and NA are what pandas has for a missing value.
            part = part.astype(object).where(part.notna(), None)
            columns = [part.iloc[:, i].tolist() for i in range(len(names))]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))

    return rows(), len(frame)


def _polars(frame: Any) -> tuple[Iterable[Record], int]:
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    if type(frame).__name__ == "Series":
        raise UsageError("records is a polars Series: pass a DataFrame, or series.to_frame()")

    def rows() -> Iterator[Record]:
        yield from frame.iter_rows(named=True, buffer_size=_ROWS)

    return rows(), len(frame)


def _dataset(dataset: Any) -> tuple[Iterable[Record], int | None]:
    if isinstance(dataset, Mapping):
        names = ", ".join(repr(name) for name in dataset)
        raise UsageError(f"records is a DatasetDict: pass one of its splits ({names})")
    return dataset, len(dataset) if hasattr(dataset, "__len__") else None


def _arrow(table: Any) -> tuple[Iterable[Record], int | None]:
    n = getattr(table, "num_rows", None)
    if (
        hasattr(table, "to_pylist")
        and hasattr(table, "schema")
        and not hasattr(table, "to_batches")
    ):
        return table.to_pylist(), n
    if hasattr(table, "to_batches"):
        batches: Iterable[Any] = table.to_batches(max_chunksize=_ROWS)
    else:
        import pyarrow

        batches = pyarrow.RecordBatchReader.from_stream(table)

    def rows() -> Iterator[Record]:
        for batch in batches:
            yield from batch.to_pylist()

    return rows(), n
