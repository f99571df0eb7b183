"""Records of every kind, and their values."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import warpseek
from warpseek import Index

ROWS = [
    {"id": "a", "text": "one", "year": 2020, "note": "x"},
    {"id": "b", "text": "two", "year": 2021, "note": None},
]


def add(index: Index, records: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """Adds records with vectors, and returns their metadata in order."""
    n = kwargs.pop("n", 2)
    vectors = np.eye(4, dtype=np.float32)[:n]
    index.add(records, vectors=vectors, **kwargs)
    return [hit.metadata for hit in index.get()]


def test_every_kind_of_table_gives_the_same_records(vectors: Index) -> None:
    expected = [{"year": 2020, "note": "x"}, {"year": 2021, "note": None}]
    table = pyarrow.Table.from_pylist(ROWS)
    kinds = [
        ROWS,
        tuple(ROWS),
        iter(ROWS),
        (dict(row) for row in ROWS),
        pandas.DataFrame(ROWS),
        polars.DataFrame(ROWS),
        polars.DataFrame(ROWS).lazy(),
        table,
        table.to_batches()[0],
        table.to_reader(),
    ]
    for records in kinds:
        assert add(vectors, records) == expected, type(records)
        assert [hit.text for hit in vectors.get()] == ["one", "two"]


def test_named_indexes_are_columns_and_equal_names_are_refused(vectors: Index) -> None:
    frame = pandas.DataFrame(ROWS).set_index("id")
    assert add(vectors, frame) == [{"year": 2020, "note": "x"}, {"year": 2021, "note": None}]
    assert [hit.id for hit in vectors.get()] == ["a", "b"]
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    with pytest.raises(warpseek.UsageError, match="two columns 'text'"):
        vectors.add(table)


def test_fields_are_named_or_made_by_functions(vectors: Index) -> None:
    rows = [{"key": 1, "body": "one", "head": "H", "n": 1}, {"key": 2, "body": "two", "n": 2}]
    assert add(vectors, rows, id="key", text="body", title="head") == [{"n": 1}, {"n": 2}]
    assert [(hit.id, hit.title) for hit in vectors.get()] == [("1", "H"), ("2", "")]
    kept = add(
        vectors,
        rows,
        id=lambda row: f"k{row['key']}",
        text=lambda row: row["body"].upper(),
        metadata=lambda row: {"text": row["n"], "id": "own"},
    )
    assert kept[-2:] == [{"text": 1, "id": "own"}, {"text": 2, "id": "own"}]
    assert vectors.get("k1")[0].text == "ONE"
    assert add(vectors, rows, id="key", text="body", metadata=["n"])[-1] == {"n": 2}
    objects = [complex(1, 2), complex(3, 4)]
    add(vectors, objects, id=lambda z: str(z.real), text=str, metadata=lambda z: {"imag": z.imag})
    assert vectors.get("3.0")[0].metadata == {"imag": 4.0}


def test_metadata_comes_back_exactly(vectors: Index) -> None:
    metadata = {
        "none": None,
        "flag": True,
        "int": 1,
        "float": 1.0,
        "big": 2**64 - 1,
        "negative": -(2**63),
        "text": "a\u00e9\U0001f600\n",
        "empty": {},
        "list": [],
        "nested": {"a.b": [1, {"c": "d"}], 'quo"te': 0.1},
        "z": 0,
        "a": 1e-300,
    }
    vectors.add([("x", "", None, metadata)], vectors=np.eye(4, dtype=np.float32)[:1])
    kept = vectors.get("x")[0].metadata
    assert kept == metadata and list(kept) == list(metadata)
    assert isinstance(kept["int"], int) and isinstance(kept["float"], float)


def test_values_of_other_types_become_text_or_null_and_are_told(vectors: Index) -> None:
    key = uuid.uuid4()
    metadata = {
        "date": dt.date(2024, 2, 29),
        "time": dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone.utc),
        "decimal": decimal.Decimal("12345678901234567890.10"),
        "huge": 2**70,
        "uuid": key,
        "path": pathlib.PurePosixPath("/a/b"),
        "set": frozenset([3]),
        "numpy": np.float32(0.5),
        "array": np.array([[1, 2], [3, 4]]),
        "bool": np.bool_(True),
        "nan": float("nan"),
        "inf": np.float64("inf"),
        "NA": pandas.NA,
        "NaT": pandas.NaT,
        "stamp": pandas.Timestamp("2024-01-01"),
        "ns": np.datetime64("2024-01-01T00:00:00.000000001"),
        "days": np.array(["2024-01-01", "NaT"], dtype="datetime64[D]"),
    }
    report = vectors.add([("x", "", None, metadata)], vectors=np.eye(4, dtype=np.float32)[:1])
    assert vectors.get("x")[0].metadata == {
        "date": "2024-02-29",
        "time": "2024-02-29T12:30:00+00:00",
        "decimal": "12345678901234567890.10",
        "huge": str(2**70),
        "uuid": str(key),
        "path": "/a/b",
        "set": [3],
        "numpy": 0.5,
        "array": [[1, 2], [3, 4]],
        "bool": True,
        "nan": None,
        "inf": None,
        "NA": None,
        "NaT": None,
        "stamp": "2024-01-01T00:00:00",
        "ns": "2024-01-01T00:00:00.000000001",
        "days": ["2024-01-01", None],
    }
    assert (
        report.notes_total == 2 and "records, field 'nan': 1 value became null" in report.notes[0]
    )


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({"id": 1.5, "text": "x"}, "an id must be a string or a 64-bit integer, found 1.5"),
        ({"id": None, "text": "x"}, "an id must be a string or an integer, found null"),
        ({"id": "a", "text": "x", "b": b"raw"}, "record 1, field 'b': bytes have no place in JSON"),
        ({"id": "a", "text": "x", 7: 1}, "names of fields must be strings, found int"),
        ({"id": "a", "text": "x", "f": print}, "builtin_function_or_method has no place in JSON"),
        ({"id": "a", "text": "half \ud800"}, "half of a surrogate pair"),
        ({"id": "a\tb", "text": "x"}, "control characters"),
        ("a text", "a record must be a dict"),
        (("a", "text"), "a record must be a dict"),
        (("a", "text", None), "(id, text, title, metadata)"),
    ],
)
def test_records_that_cannot_be_used_are_named(vectors: Index, record: Any, part: str) -> None:
    with pytest.raises(warpseek.InputError) as caught:
        vectors.add([record], vectors=np.eye(4, dtype=np.float32)[:1])
    assert part in str(caught.value) and caught.value.exit_code == 7 and len(vectors) == 0
    assert caught.value.file == "records" and isinstance(caught.value, ValueError)


def test_inputs_that_are_no_records_are_refused(vectors: Index) -> None:
    for records in ("papers.jsonl", {"id": "a"}, 7, pandas.Series([1])):
        with pytest.raises(warpseek.UsageError, match="records"):
            vectors.add(records)
    with pytest.raises(warpseek.InputError, match="no such field"):
        vectors.add(pandas.DataFrame(ROWS), text="body", vectors=np.eye(4)[:2])
    with pytest.raises(warpseek.UsageError, match="two columns 'text'"):
        vectors.add(pandas.DataFrame([["a", "b"]], columns=["text", "text"]))
    with pytest.raises(warpseek.UsageError, match="metadata must be a list"):
        vectors.add(ROWS, metadata="year")


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.eye(4)[0], "two dimensions [n, dim], found the shape (4,): use array[None]"),
        (np.eye(4, dtype=int), "must hold floating-point numbers, found int64"),
        (np.zeros((4, 2)), "has the shape (4, 2), and 4 columns are needed: transpose it with .T"),
        (np.full((2, 4), np.nan), "vectors[0, 0] is nan"),
        (np.full((2, 4), 1e300), "is 1e+300: vectors must be finite float32"),
        (np.eye(4)[:1], "vectors has 1 rows, and there are more records"),
        ("text", "must hold floating-point numbers"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: Index, array: Any, part: str) -> None:
    with pytest.raises(warpseek.UsageError) as caught:
        vectors.add(ROWS, vectors=array)
    assert part in str(caught.value) and len(vectors) == 0


def test_queries_that_do_not_fit_are_refused(vectors: Index) -> None:
    vectors.add(ROWS, vectors=np.eye(4)[:2])
    for queries in (np.eye(4)[0], np.eye(4, dtype=int), np.zeros((4, 3)), np.full((1, 4), np.inf)):
        with pytest.raises(warpseek.UsageError, match="quer"):
            vectors.search_vectors(queries, 1)
    with pytest.raises(warpseek.UsageError, match="transpose"):
        vectors.search(np.zeros((4, 3), dtype=np.float32))
    for k in (0, -1, 2.5, True, "3"):
        with pytest.raises(warpseek.UsageError, match="k "):
            vectors.search_vectors(np.eye(4), k)
    with pytest.raises(warpseek.UsageError, match=r"ids\[0\] must be a string, found int"):
        vectors.get([1])
    assert vectors.search_vectors(np.eye(4, dtype=np.float16), 1)[1].tolist()[:2] == [[0], [1]]


def test_zero_vectors_are_kept_and_normalize_scales(vectors: Index) -> None:
    rows = np.array([[0, 0, 0, 0], [3, 0, 4, 0]], dtype=np.float32)
    vectors.add(ROWS, vectors=rows)
    assert [hit.vector.tolist() for hit in vectors.get(include_vectors=True)] == rows.tolist()
    with pytest.raises(warpseek.InputError, match="zero"):
        vectors.add(ROWS, vectors=rows, normalize=True)
    vectors.add(ROWS[1:], vectors=rows[1:], normalize=True)
    assert vectors.get("b", include_vectors=True)[0].vector == pytest.approx(
        [0.6, 0, 0.8, 0], abs=1e-3
    )


def test_bad_records_are_skipped_and_counted_if_asked(tmp_path: pathlib.Path) -> None:
    index = Index.create(tmp_path / "i")
    with pytest.raises(
        warpseek.InputError, match="no text field: it has 'id'; name one with text="
    ):
        index.add([{"id": "a"}])
    rows = [ROWS[0], {"id": "x", "text": ""}, {"id": "y", "text": "t", "f": print}, ROWS[1]]
    report = index.add(rows, on_error="skip")
    assert (report.added, report.skipped, len(report.messages)) == (2, 2, 2)
    assert "records, record 2, field 'text': the text is empty" in report.messages[0]
    with pytest.raises(warpseek.InputError, match="occurs twice"):
        index.add([{"id": "z", "text": "1"}, {"id": "z", "text": "2"}])
    with pytest.raises(warpseek.UsageError, match="on_error"):
        index.add(rows, on_error="ignore")  # type: ignore[arg-type]


def test_an_exception_of_the_iterator_passes_and_commits_nothing_by_halves(
    tmp_path: pathlib.Path,
) -> None:
    index = Index.create(tmp_path / "i")

    def rows() -> Iterator[dict[str, str]]:
        yield {"id": "a", "text": "one"}
        raise KeyError("broken source")

    with pytest.raises(KeyError, match="broken source"):
        index.add(rows())
    assert all(check["problem"] is None for check in index.verify())
    assert index.add([{"id": "b", "text": "two"}]).added == 1


def test_records_without_ids_do_not_replace_each_other(tmp_path: pathlib.Path) -> None:
    index = Index.create(tmp_path / "i")
    index.add([{"text": "one"}, {"text": "two"}])
    assert [hit.id for hit in index.get()] == ["records:1", "records:2"]
    assert index.add([{"text": "one"}]).unchanged == 1
    with pytest.raises(warpseek.InputError, match="id="):
        index.add([{"text": "another"}])


def test_functions_obey_on_error_and_need_no_text_beside_vectors(tmp_path: pathlib.Path) -> None:
    index = Index.create(tmp_path / "i")
    rows = [{"k": 1, "text": "one"}, {"k": 2}, {"k": 3, "text": "three"}]
    report = index.add(rows, id=lambda row: f"r{row['k']}", on_error="skip")
    assert (report.added, report.skipped) == (2, 1)
    assert [hit.metadata for hit in index.get()] == [{"k": 1}, {"k": 3}]
    with pytest.raises(warpseek.UsageError, match="metadata must be a list"):
        index.add(rows, id=lambda row: "x", metadata="k")
    vectors = Index.create(tmp_path / "v", model=None, dim=4)
    vectors.add([{"k": 1}], id=lambda row: "a", vectors=np.eye(4, dtype=np.float32)[:1])
    assert vectors.get("a")[0].text == ""
    with pytest.raises(warpseek.UsageError, match="normalize is for vectors"):
        index.add(rows, normalize=True)
