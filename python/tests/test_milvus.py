"""Rows, ids, vectors and metadata go to a Milvus server and come back as they were."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

import warpseek
from warpseek.errors import InputError, RemoteError, UsageError
from warpseek.milvus import export_index, import_index


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus Lite server."""
    program = shutil.which("milvus-lite", path=str(Path(sys.executable).parent))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(tmp_path_factory.mktemp("milvus"))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


METADATA: list[dict[str, Any]] = [
    {"big": 2**53 + 1, "least": -(2**63), "one": 1, "float": 1.0, "true": True, "small": 5e-324},
    {"none": None, "nested": {"list": [1, "x", None, {"deep": []}]}, "text": "\u0000 \U0001f600 é"},
    {"": "", "a.b": "dots", "$meta": 1, "id": "a field", "vector": [1, 2]},
    {},
]


def index_of(place: Path, n: int = 700, dim: int = 24, metric: str = "cosine") -> warpseek.Index:
    """An index of which some rows are deleted and replaced."""
    vectors = np.random.default_rng(7).standard_normal((n, dim)).astype("f4")
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0, 0], vectors[1, 1] = -0.0, 6e-8
    records = [
        (f"d{i}", f"text {i}\n'quoted' \"{i}\"", f"title {i}", METADATA[i % 4]) for i in range(n)
    ]
    index = warpseek.Index.create(place, model=None, dim=dim, metric=metric)
    index.add(records, vectors=vectors)
    index.delete([f"d{i}" for i in range(0, n, 9)])
    index.add(records[9:12], vectors=vectors[12:15])
    return index


def rows_of(index: warpseek.Index) -> list[tuple[Any, ...]]:
    return [
        (hit.id, hit.title, hit.text, repr(hit.metadata), hit.vector.tobytes())
        for hit in index.get(include_vectors=True)
    ]


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_rows_go_there_and_back(tmp_path, uri, metric):
    with index_of(tmp_path / "a", metric=metric) as index:
        report = export_index(index, uri, f"t_{metric}", batch_size=64)
        assert report == {"collection": f"t_{metric}", "rows": len(index)}
        with import_index(uri, f"t_{metric}", tmp_path / "b", batch_size=50) as back:
            assert rows_of(back) == rows_of(index)
            assert back.metric == index.metric
            query = index.get(["d5"], include_vectors=True)[0].vector
            found, wanted = (i.search(query, 20, rerank=False) for i in (back, index))
            assert [(h.id, h.score) for h in found] == [(h.id, h.score) for h in wanted]
        with pytest.raises(UsageError, match="already"):
            export_index(index, uri, f"t_{metric}")
        with pytest.raises(UsageError, match="is there already"):
            import_index(uri, f"t_{metric}", tmp_path / "b")
    assert not MilvusClient(uri).has_collection(f"t_{metric}_partial")


def test_gaps_and_odd_keys(tmp_path, uri):
    client = MilvusClient(uri)
    with index_of(tmp_path / "a", n=90) as index:
        export_index(index, uri, "gaps")
        client.delete("gaps", filter="row >= 5 and row < 50")
        with import_index(uri, "gaps", tmp_path / "b", batch_size=4) as back:
            rows = rows_of(index)
            assert rows_of(back) == rows[:5] + rows[50:]
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=99)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
    indexes = client.prepare_index_params()
    indexes.add_index("v", index_type="FLAT", metric_type="IP")
    client.create_collection("keys", schema=schema, index_params=indexes)
    rows = [{"key": key, "v": [1.0, 0.0]} for key in ("a", 'b"', "c\\n", "d")]
    texts = [{"text": "x"}, {"content": "y"}, {"text": "z", "content": "m"}, {"name": "t"}]
    client.insert("keys", [row | text for row, text in zip(rows, texts, strict=True)])
    with import_index(uri, "keys", tmp_path / "c") as index:
        found = [(hit.doc_id, hit.title, hit.text, hit.metadata) for hit in index.get()]
        assert found == [
            ("a", "", "x", {}),
            ('b"', "", "y", {}),
            ("c\\n", "", "z", {"content": "m"}),
            ("d", "t", "", {}),
        ]
    with pytest.raises(UsageError, match="ends an answer"):
        import_index(uri, "keys", tmp_path / "d", batch_size=1)
    with pytest.raises(UsageError, match="has no value in 'text'"):
        import_index(uri, "keys", tmp_path / "d", id="text")
    for name, value in (("text", "txet"), ("metadata", ["nmae"])):
        with pytest.raises(UsageError, match=f"{name}: .* has no field"):
            import_index(uri, "keys", tmp_path / "d", **{name: value})
    assert not (tmp_path / "d").exists()
    with pytest.raises(UsageError, match="metadata must be a list"):
        import_index(uri, "keys", tmp_path / "d", metadata="text")


def test_chunks_keep_the_id_of_their_document(tmp_path, uri):
    model = str(Path(__file__).resolve().parents[2] / "tests/golden/models/e5-like")
    options = {"split_records": True, "chunk_tokens": 16, "chunk_overlap": 0}
    with warpseek.Index.create(tmp_path / "a", model=model, **options) as index:
        index.add([{"id": "long", "text": "one two three four five. " * 20, "year": 2020}])
        assert index.stats()["rows"] > 3
        export_index(index, uri, "chunks")
        with import_index(uri, "chunks", tmp_path / "b", model=model) as back:
            ids = [hit.id for hit in index.get()]
            # Each is a document now, whose only row has `#0` behind the id.
            assert [hit.id for hit in back.get()] == [f"{id}#0" for id in ids]
            assert [hit.id for hit in back.get(ids[:2])] == [f"{id}#0" for id in ids[:2]]
            assert all(hit.metadata == {"doc_id": "long", "year": 2020} for hit in back.get())
            assert back.search("three", 2, where="year = 2020", rerank=False)


def test_what_milvus_cannot_hold_is_named(tmp_path, uri):
    for name, metadata, text, match in [
        ("big", {"a": {"b": [2**63]}}, "x", r"row 'r': metadata\.a\.b\[0\]: 9223372036854775808"),
        ("long", {}, "é" * 40_000, r"row 'r': text: 80,000 bytes"),
        ("wide", {"a": "x" * 70_000}, "x", r"row 'r': metadata: 70,\d+ bytes"),
    ]:
        with warpseek.Index.create(tmp_path / name, model=None, dim=2) as index:
            index.add([("r", text, "", metadata)], vectors=np.eye(2, dtype="f4")[:1])
            with pytest.raises(InputError, match=match):
                export_index(index, uri, name)
    assert not {"big", "big_partial"} & set(MilvusClient(uri).list_collections())
    with pytest.raises(UsageError, match="no collection 'nothing'"):
        import_index(uri, "nothing", tmp_path / "n")
    with pytest.raises(RemoteError, match="Milvus at"):
        import_index("http://127.0.0.1:9", "x", tmp_path / "n")


def test_collections_of_others(tmp_path, uri):
    client = MilvusClient(uri)
    vectors = np.random.default_rng(1).standard_normal((300, 6)).astype("f2").astype("f4")

    def create(name: str, metric: str) -> None:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("number", DataType.INT64, is_primary=True)
        schema.add_field("content", DataType.VARCHAR, max_length=99)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=6)
        indexes = client.prepare_index_params()
        indexes.add_index("embedding", index_type="FLAT", metric_type=metric)
        client.create_collection(name, schema=schema, index_params=indexes)
        rows = [
            {"number": i, "content": f"text {i}", "embedding": vectors[i], "lang": "en", "n": i / 2}
            for i in range(300)
        ]
        client.insert(name, rows)

    create("others", "IP")
    with import_index(uri, "others", tmp_path / "a", batch_size=64) as index:
        hits = index.get(include_vectors=True)
        assert [hit.id for hit in hits] == [str(i) for i in range(300)]
        assert hits[7].text == "text 7" and hits[7].metadata == {"lang": "en", "n": 3.5}
        assert np.array_equal([hit.vector for hit in hits], vectors)
        assert index.metric == "inner_product"
    create("cosine", "COSINE")
    with import_index(uri, "cosine", tmp_path / "b", metadata=["lang"]) as index:
        assert index.metric == "cosine" and index.get(["7"])[0].metadata == {"lang": "en"}
        found = index.search(vectors[9] / np.linalg.norm(vectors[9]), 5, rerank=False)
        wanted = client.search("cosine", [vectors[9]], limit=5)[0]
        assert [hit.id for hit in found] == [str(hit["number"]) for hit in wanted]
    create("l2", "L2")
    with pytest.raises(UsageError, match="ranks by L2"):
        import_index(uri, "l2", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with import_index(uri, "l2", tmp_path / "d", metric="cosine", batch_size=7) as index:
        lengths = np.linalg.norm([hit.vector for hit in index.get(include_vectors=True)], axis=1)
        assert np.abs(lengths - 1).max() < 1e-3
    with pytest.raises(UsageError, match="metric='ip'"):
        import_index(uri, "l2", tmp_path / "c", metric="ip")
    with pytest.raises(InputError, match=r"the id 'en' occurs twice"):
        import_index(uri, "others", tmp_path / "c", id="lang")
    with pytest.raises(UsageError, match=r"the field 'lang' .* occur twice"):
        import_index(uri, "others", tmp_path / "c", id="lang", batch_size=1)
    assert not (tmp_path / "c").exists()
    with pytest.raises(UsageError, match="use a FLOAT_VECTOR"):
        import_index(uri, "l2", tmp_path / "c", vector="content")
