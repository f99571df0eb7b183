"""Records of all kinds as one iterator: dicts, data frames, Arrow tables, datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from warpseek.errors import UsageError

Record = Mapping[str, Any]
Part = str | Callable[[Any], Any] | None

# Rows of a frame that are converted at a time.
_ROWS = 1024


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


def made(
    records: Iterable[Any],
    parts: Mapping[str, Part],
    metadata: Callable[[Any], Mapping[str, Any]] | None,
) -> Iterator[Any]:
    """Yields records with the results of functions in fields such as ``id()``.

    With a function for the metadata, pairs of a record and its metadata.
    """
    functions = {f"{role}()": part for role, part in parts.items() if callable(part)}
    for record in records:
        if isinstance(record, Mapping):
            fields = dict(record)
        elif "text()" in functions:
            fields = {}
        else:
            raise UsageError(
                f"records are {type(record).__name__} and not dicts: pass text= a function of a "
                "record"
            )
        fields.update((name, function(record)) for name, function in functions.items())
        yield fields if metadata is None else (fields, metadata(record))


def _pandas(frame: Any) -> tuple[Iterable[Record], int]:
    if not (hasattr(frame, "columns") and hasattr(frame, "iloc") and hasattr(frame, "to_dict")):
        kind = type(frame).__name__
        raise UsageError(f"records is a pandas {kind}: pass a DataFrame")
    if any(name is not None for name in frame.index.names):
        # A named index is a column that was set aside, often the ids.
        frame = frame.reset_index()
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
        raise UsageError("records is a polars Series: pass a DataFrame")

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
    schema = getattr(table, "schema", None)
    names = list(getattr(schema, "names", None) or [])
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"records has two columns {twice!r}: rename one")
    if type(table).__name__ == "Table":
        batches: Iterable[Any] = table.to_batches(max_chunksize=_ROWS)
    elif hasattr(table, "to_batches"):
        batches = table.to_batches()
    else:
        import pyarrow

        batches = pyarrow.RecordBatchReader.from_stream(table)

    def rows() -> Iterator[Record]:
        for batch in batches:
            yield from batch.to_pylist()

    return rows(), n
