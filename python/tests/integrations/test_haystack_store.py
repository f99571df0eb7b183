"""The document store, held to Haystack's own test classes and to what they leave out."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    DocumentStoreBaseExtendedTests,
    GetMetadataFieldMinMaxTest,
    GetMetadataFieldsInfoTest,
    GetMetadataFieldUniqueValuesTest,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    GetMetadataFieldsInfoAsyncTest,
    GetMetadataFieldUniqueValuesAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)

from warpseek import Index
from warpseek.integrations.haystack import WarpseekDocumentStore

HALF = 2.0**-11
"""Relative rounding of half precision."""


def assert_same(received: list[Document], expected: list[Document]) -> None:
    """Compares documents, embeddings within half precision."""
    assert len(received) == len(expected)
    for got, wanted in zip(received, expected, strict=True):
        assert (got.embedding is None) == (wanted.embedding is None)
        if wanted.embedding is not None:
            largest = np.linalg.norm(wanted.embedding)
            difference = np.subtract(got.embedding, wanted.embedding)
            assert np.abs(difference).max() <= HALF * largest
        assert replace(got, embedding=None) == replace(wanted, embedding=None)


class Store768:
    @pytest.fixture(params=["cosine", "dot_product"])
    def document_store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
        path = str(tmp_path / "store")
        store = WarpseekDocumentStore(path, embedding_dim=768, similarity=request.param)
        yield store
        store.close()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert_same(received, expected)


class TestStore(
    Store768,
    DocumentStoreBaseExtendedTests,
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    GetMetadataFieldsInfoTest,
    GetMetadataFieldMinMaxTest,
    GetMetadataFieldUniqueValuesTest,
):
    """Haystack's tests of all methods that a store may have."""

    def test_write_documents(self, document_store: WarpseekDocumentStore) -> None:
        document = Document(content="once")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError, match=document.id):
            document_store.write_documents([document])


# The classes need a plugin for coroutines, which reads this mark.
@pytest.mark.asyncio
class TestAsyncStore(
    Store768,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    GetMetadataFieldsInfoAsyncTest,
    GetMetadataFieldUniqueValuesAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    """Haystack's tests of the coroutines."""

    async def test_write_documents_async(self, document_store: WarpseekDocumentStore) -> None:
        document = Document(content="once")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = WarpseekDocumentStore(str(tmp_path / "store"), embedding_dim=4)
    yield store
    store.close()


RICH_META: dict[str, Any] = {
    "z_first": 1,
    "a_second": 1.0,
    "true": True,
    "none": None,
    "text": "1",
    "empty text": "",
    "empty": {},
    "none at all": [],
    "nested": {"list": [1, 1.0, "1", None, True, {"deep": {"deeper": {"deepest": [[]]}}}]},
    "with.dot": {"with.dot": 1},
    'with "quotes" and \\': "'",
    "id": "an id of meta",
    "title": 3,
    "doc_id": None,
    "large": 2**63 - 1,
    "larger": 2**64 - 1,
    "small": -(2**63),
    "float": 0.1 + 0.2,
    "tiny": 5e-324,
    "unicode \u2028 é 中": "\u0000 \u2028 é 中 \U0001f600",
    "date text": "2024-02-29T12:00:00",
}

PYTHON_META: dict[str, Any] = {
    "time": datetime(2024, 2, 29, 12, 0, 0, 123),
    "zoned": datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=2))),
    "date": date(2024, 2, 29),
    "tuple": (1, (2, [3])),
    "infinite": float("inf"),
    "$haystack": {"$haystack": "tuple", "value": [1]},
}


def exact(value: Any) -> Any:
    """Returns a value with the types of all of its parts and the order of members."""
    if isinstance(value, dict):
        return dict, [(name, exact(item)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [exact(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("meta", [RICH_META, PYTHON_META, {**RICH_META, **PYTHON_META}, {}])
def test_meta_comes_back_exactly(store: WarpseekDocumentStore, meta: dict[str, Any]) -> None:
    store.write_documents([Document(id="1", content="text", meta=meta)])
    store.close()
    (received,) = store.filter_documents()
    assert exact(received.meta) == exact(meta)
    store.update_by_filter({"field": "id", "operator": "==", "value": "1"}, {"added": 1})
    (received,) = store.filter_documents()
    assert exact(received.meta) == exact({**meta, "added": 1})


def test_nan_comes_back(store: WarpseekDocumentStore) -> None:
    store.write_documents([Document(content="a", meta={"x": float("nan"), "n": np.float32(0.5)})])
    (received,) = store.filter_documents({"field": "meta.x", "operator": "==", "value": None})
    assert np.isnan(received.meta["x"])
    assert received.meta["n"] == 0.5


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"x": {"y": {1, 2}}}, r"meta\.x\.y holds a set"),
        ({"x": [1, b"bytes"]}, r"meta\.x\[1\] holds a bytes"),
        ({1: 2}, r"meta has the name 1"),
        ({"": 2}, r"meta has the name ''"),
        ({"x": 2**64}, r"meta\.x holds an integer beyond 64 bits"),
        ({"x": "\ud800"}, r"meta\.x holds a text that is not valid Unicode"),
        ({"_haystack": 1}, r"'_haystack' is reserved: rename it"),
    ],
)
def test_meta_that_cannot_be_kept_is_refused(
    store: WarpseekDocumentStore, meta: dict[Any, Any], reason: str
) -> None:
    documents = [Document(id="fine", content="b"), Document(id="odd", content="a", meta=meta)]
    with pytest.raises(ValueError, match=reason):
        store.write_documents(documents)
    assert store.count_documents() == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (" ", "is blank: give another one"),
        ("x" * 513, "512 bytes: give a shorter one"),
        ("a\nb", "control .*: remove them"),
        ("\ud800", "Unicode"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused(
    store: WarpseekDocumentStore, name: str, reason: str
) -> None:
    documents = [Document(id="fine", content="b"), Document(id=name, content="a")]
    with pytest.raises(ValueError, match=reason):
        store.write_documents(documents)
    assert store.count_documents() == 0


def test_content_that_cannot_be_kept_is_refused(store: WarpseekDocumentStore) -> None:
    with pytest.raises(ValueError, match="document '1': the content holds a text"):
        store.write_documents([Document(id="1", content="\ud800")])


def test_all_fields_come_back(store: WarpseekDocumentStore) -> None:
    blob = ByteStream(b"\x00\xff bytes", meta={"page": (1, 2)}, mime_type="application/pdf")
    documents = [
        Document(id="blob", blob=blob, meta={"a": 1}),
        Document(id="empty text", content=""),
        Document(id="nothing"),
        Document(id="sparse", content="a", sparse_embedding=SparseEmbedding([1, 7], [0.1, 2.0])),
        Document(id="scored", content="a", score=0.1),
        Document(id="text", content="line\n\n  and \t more \u00a0"),
        Document(id="embedded", content="a", embedding=[0.5, -0.5, 0.5, -0.5]),
        Document(id="long", content="b", embedding=[300.0, 0.0, 400.0, 0.0]),
        Document(id="zero", content="b", embedding=[0.0] * 4),
    ]
    store.write_documents(documents)
    store.close()
    assert_same(store.filter_documents(), documents)
    for field in ("content", "embedding", "blob", "sparse_embedding"):
        for operator in ("==", "!="):
            filters = {"field": field, "operator": operator, "value": None}
            wanted = [d for d in documents if (getattr(d, field) is None) == (operator == "==")]
            assert [d.id for d in store.filter_documents(filters)] == [d.id for d in wanted]


def test_documents_without_embedding_are_never_retrieved(store: WarpseekDocumentStore) -> None:
    unit = np.eye(4)
    documents = [Document(id=f"none {i}", content="word", meta={"n": i}) for i in range(20)]
    documents += [
        Document(id=f"{i}", content="word", embedding=(-unit[i]).tolist(), meta={"n": i})
        for i in range(4)
    ]
    store.write_documents(documents)
    query = [1.0, 0.1, 0.01, 0.001]
    found = store.embedding_retrieval(query, top_k=10)
    assert [d.id for d in found] == ["3", "2", "1", "0"]
    assert all(d.score is not None and d.score < 0 for d in found)
    filters = {"field": "meta.n", "operator": "in", "value": [2, 3]}
    found = store.embedding_retrieval(query, filters=filters, top_k=10, return_embedding=True)
    assert [d.id for d in found] == ["3", "2"]
    assert found[0].embedding == (-unit[3]).tolist()
    found = store.hybrid_retrieval("word", query, top_k=30)
    assert sorted(d.id for d in found) == ["0", "1", "2", "3"]
    assert len(store.bm25_retrieval("word", top_k=30)) == 24


@pytest.mark.parametrize("similarity", ["cosine", "dot_product"])
def test_retrieval_is_exact(tmp_path: Path, similarity: Any) -> None:
    generator = np.random.default_rng(5)
    vectors = generator.normal(size=(400, 32)) * generator.uniform(0.1, 9, size=(400, 1))
    store = WarpseekDocumentStore(
        str(tmp_path / "store"), embedding_dim=32, similarity=similarity, return_embedding=False
    )
    documents = [
        Document(
            id=str(i), content=f"text {i}", embedding=vector.tolist(), meta={"even": i % 2 == 0}
        )
        for i, vector in enumerate(vectors)
    ]
    store.write_documents(documents)
    assert store.filter_documents()[0].embedding is None
    query = generator.normal(size=32)
    scores = vectors @ query
    if similarity == "cosine":
        scores /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    even = np.arange(400) % 2 == 0
    for filters, mask in [
        (None, np.ones(400, bool)),
        ({"field": "meta.even", "operator": "==", "value": True}, even),
    ]:
        found = store.embedding_retrieval(query.tolist(), filters=filters, top_k=25)
        best = np.argsort(-np.where(mask, scores, -np.inf))[:25]
        received = [d.score for d in found]
        np.testing.assert_allclose(received, scores[best], rtol=2e-3, atol=2e-3)
        assert len({d.id for d in found} & {str(i) for i in best}) >= 24
    store.close()


def test_bm25(store: WarpseekDocumentStore) -> None:
    texts = ["the heat pump hums", "a pump", "heat heat heat", "unrelated"]
    store.write_documents([Document(id=str(i), content=text) for i, text in enumerate(texts)])
    found = store.bm25_retrieval("Heat pump?")
    assert found[0].id == "0"
    assert {d.id for d in found} == {"0", "1", "2"}
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0
    filters = {"field": "id", "operator": "!=", "value": "0"}
    assert {d.id for d in store.bm25_retrieval("heat pump", filters=filters)} == {"1", "2"}
    assert store.bm25_retrieval("!?") == []
    with pytest.raises(ValueError, match="query"):
        store.bm25_retrieval(" ")


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_duplicates_within_a_list(store: WarpseekDocumentStore, policy: DuplicatePolicy) -> None:
    documents = [Document(id="1", content="first"), Document(id="1", content="second")]
    if policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
        with pytest.raises(DuplicateDocumentError):
            store.write_documents(documents, policy)
        assert store.count_documents() == 0
        return
    n = store.write_documents(documents, policy)
    (received,) = store.filter_documents()
    if policy == DuplicatePolicy.SKIP:
        assert (n, received.content) == (1, "first")
    else:
        assert (n, received.content) == (2, "second")


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        ([1.0] * 3, "3 dimensions, and the store has 4: .*embedding_dim=3"),
        ([1.0, float("nan"), 0.0, 0.0], "infinite or no number: leave the text out"),
        ([[1.0] * 4], "give one list of numbers"),
        (["a"] * 4, "not a list of numbers"),
    ],
)
def test_odd_embeddings_are_refused(
    store: WarpseekDocumentStore, embedding: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        store.write_documents([Document(id="odd", content="a", embedding=embedding)])
    with pytest.raises(ValueError, match=reason):
        store.embedding_retrieval(embedding)
    assert store.count_documents() == 0


def test_embedding_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    store = WarpseekDocumentStore(path, embedding_dim=1, similarity="dot_product")
    with pytest.raises(ValueError, match="at most 65504"):
        store.write_documents([Document(content="a", embedding=[65520.0])])


def test_arguments(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with pytest.raises(ValueError, match="embedding_dim"):
        WarpseekDocumentStore(path, embedding_dim=0)
    with pytest.raises(ValueError, match="similarity"):
        WarpseekDocumentStore(path, similarity="l2")  # type: ignore[arg-type]
    store = WarpseekDocumentStore(path, embedding_dim=8)
    assert not Path(path).exists()
    assert store.count_documents() == 0
    again = WarpseekDocumentStore.from_dict(store.to_dict())
    assert again.to_dict() == store.to_dict()
    with pytest.raises(ValueError, match="set embedding_dim=8"):
        WarpseekDocumentStore(path, embedding_dim=9).count_documents()
    for top_k in (0, -1):
        with pytest.raises(ValueError, match="top_k"):
            store.embedding_retrieval([1.0] * 8, top_k=top_k)
        with pytest.raises(ValueError, match="top_k"):
            store.bm25_retrieval("a", top_k=top_k)
    assert store.embedding_retrieval([1.0] * 8) == []


def test_folder_is_read_again_only_after_changes(
    store: WarpseekDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_documents([Document(id="1", content="a")])
    reads = []
    refresh = Index.refresh
    monkeypatch.setattr(Index, "refresh", lambda index: reads.append(1) or refresh(index))
    for file in Path(store.path).iterdir():
        os.utime(file, (1e9, 1e9))
    assert [store.count_documents() for _ in range(3)] == [1, 1, 1]
    assert len(reads) == 1
    with Index.open(store.path) as other:
        other.delete(["1"])
        assert store.count_documents() == 0
    assert len(reads) == 2


def test_recreated_index_has_no_rows(store: WarpseekDocumentStore) -> None:
    documents = [Document(content=str(i), embedding=[1.0] * 4) for i in range(9)]
    for recreate, n_rows in [(False, 9), (True, 0), (True, 0)]:
        store.write_documents(documents, DuplicatePolicy.OVERWRITE)
        store.delete_all_documents(recreate)
        assert store.count_documents() == 0
        assert len(store.index.vectors) == n_rows
    store.write_documents(documents)
    assert len(store.embedding_retrieval([1.0] * 4)) == 9


def test_two_stores_see_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    writer = WarpseekDocumentStore(path, embedding_dim=4)
    reader = WarpseekDocumentStore(path, embedding_dim=4)
    assert reader.count_documents() == 0
    writer.write_documents([Document(id="1", content="a", embedding=[1.0, 0.0, 0.0, 0.0])])
    assert [d.id for d in reader.filter_documents()] == ["1"]
    assert [d.id for d in reader.embedding_retrieval([1.0, 0.0, 0.0, 0.0])] == ["1"]
    with pytest.raises(DuplicateDocumentError):
        reader.write_documents([Document(id="1", content="b")])


def test_threads_share_a_store(store: WarpseekDocumentStore) -> None:
    def write(worker: int) -> None:
        for i in range(8):
            vector = [1.0, float(worker), float(i), 1.0]
            document = Document(id=f"{worker} {i}", content="word", embedding=vector)
            store.write_documents([document])
            assert document.id in {d.id for d in store.embedding_retrieval(vector, top_k=100)}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.count_documents() == 32
    assert len(store.bm25_retrieval("word", top_k=100)) == 32


def test_many_documents_change_at_random(tmp_path: Path) -> None:
    chance = random.Random(3)
    store = WarpseekDocumentStore(str(tmp_path / "store"), embedding_dim=4)
    known: dict[str, Document] = {}
    for step in range(60):
        names = [str(chance.randrange(40)) for _ in range(chance.randrange(1, 8))]
        if chance.random() < 0.3:
            store.delete_documents(names)
            for name in names:
                known.pop(name, None)
            continue
        documents = [
            Document(
                id=name,
                content=f"{name} {step}",
                meta={"step": step},
                embedding=None if chance.random() < 0.5 else [chance.gauss(0, 1) for _ in range(4)],
            )
            for name in names
        ]
        store.write_documents(documents, DuplicatePolicy.OVERWRITE)
        for document in documents:
            known.pop(document.id, None)
            known[document.id] = document
    received = sorted(store.filter_documents(), key=lambda d: d.id)
    assert_same(received, sorted(known.values(), key=lambda d: d.id))
    found = store.embedding_retrieval([1.0, 1.0, 1.0, 1.0], top_k=100)
    assert {d.id for d in found} == {d.id for d in known.values() if d.embedding is not None}
