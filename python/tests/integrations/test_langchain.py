"""The LangChain integration beyond the standard suites."""

from __future__ import annotations

import asyncio
import gc
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from warpseek import Index
from warpseek.errors import ModelUnavailableError, UsageError
from warpseek.integrations.langchain import (
    WarpseekEmbeddings,
    WarpseekReranker,
    WarpseekVectorStore,
)

TEXTS = [
    "The reactor was shut down after a leak in the cooling circuit.",
    "A recipe for lentil soup with cumin and lemon.",
    "The court ruled that the contract was void.",
    "Cooling towers release water vapour, not smoke.",
    "Bake the bread for forty minutes at 230 degrees.",
]
METADATAS: list[dict[str, Any]] = [
    {"year": 2019, "topic": "energy", "tags": ["news", "water"], "id": 7},
    {"year": 2021, "topic": "food", "tags": ["soup"], "o": {"a": 1}},
    {"topic": "law", "tags": []},
    {"year": 2023, "topic": "energy", "tags": ["water"]},
    {"year": 2024, "topic": "food", "tags": ["bread"], "title": "Bread"},
]
IDS = ["a", "b", "c", "d", "e"]


class Vectors(Embeddings):
    """Vectors that are set by hand: a text is its numbers."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(number) for number in text.split()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WarpseekVectorStore:
    """A store that embeds by a model of its own."""
    path = tmp_path_factory.mktemp("langchain") / "index"
    return WarpseekVectorStore.from_texts(TEXTS, None, METADATAS, ids=IDS, path=path)


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_documents_come_back_as_they_were_added(tmp_path: Path) -> None:
    metadata = {
        "int": 1,
        "float": 1.0,
        "none": None,
        "yes": True,
        "nested": {"b": [1, {"a": "x"}], "a": {}},
        "empty": [],
        "text": "text",
        "id": "another",
        "title": "T",
        "doc_id": 3,
        "naïve key with blanks.and.dots": "ü",
        "large": 2**63,
        'say "x"': "a quote",
        "NUL": "a\0b",
    }
    text = "  Two lines\n\nand\ttabs,  blanks \n"
    documents = [
        Document(page_content=text, metadata=metadata, id="1"),
        Document("second"),
        Document(""),
    ]
    store = WarpseekVectorStore(DeterministicFakeEmbedding(size=8), path=tmp_path / "index")
    added = store.add_documents(documents)
    for found in (store.get_by_ids(added), store.similarity_search(text, k=2)):
        assert found[0] == documents[0]
        assert list(found[0].metadata) == list(metadata)
        assert [type(value) for value in found[0].metadata.values()] == [
            type(value) for value in metadata.values()
        ]
    assert [doc.page_content for doc in store.get_by_ids(added)] == [text, "second", ""]
    reopened = WarpseekVectorStore(DeterministicFakeEmbedding(size=8), path=tmp_path / "index")
    assert reopened.get_by_ids(["1"]) == [documents[0]]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"topic": "food"}, "be"),
        ({"year": {"$gte": 2020, "$lt": 2024}}, "bd"),
        ({"year": {"$ne": 2019}}, "bcde"),
        ({"$or": [{"topic": "law"}, {"tags": {"$contains": "water"}}]}, "acd"),
        ({"o.a": 1}, "b"),
        ({"id": 7}, "a"),
        ({"title": "Bread"}, "e"),
        ("year < 2022 AND topic = 'food'", "b"),
        ("document.id IN ('a', 'c')", "ac"),
        ({}, "abcde"),
        ({"topic": {"$in": []}}, ""),
    ],
)
def test_filters(store: WarpseekVectorStore, where: Any, expected: str) -> None:
    found = store.similarity_search("water", k=5, filter=where)
    assert sorted(ids(found)) == list(expected)
    retriever = store.as_retriever(search_kwargs={"k": 5, "filter": where})
    assert ids(retriever.invoke("water")) == ids(found)


def test_filter_of_an_empty_store_passes_nothing(tmp_path: Path) -> None:
    store = WarpseekVectorStore(Vectors(), path=tmp_path / "index")
    store.add_texts(["1 0"], [{"a": 1}], ids=["x"])
    for _ in range(2):
        store.delete(filter={"a": 1})
        assert store.similarity_search("1 0", filter={"a": 1}) == []
        assert store.max_marginal_relevance_search("1 0", filter={"a": 1}) == []
    store.add_texts(["1 0"])
    with pytest.raises(UsageError, match="no field is called 'a'"):
        store.similarity_search("1 0", filter={"a": 1})


def test_filter_with_an_unknown_field_or_a_function_is_refused(store: WarpseekVectorStore) -> None:
    with pytest.raises(UsageError, match="did you mean topic"):
        store.similarity_search("water", filter={"topics": "food"})
    with pytest.raises(UsageError, match="functions cannot be used"):
        store.similarity_search("water", filter=lambda document: True)


def test_scores_are_cosines_and_relevance_lies_between_0_and_1(store: WarpseekVectorStore) -> None:
    query = "cooling of a nuclear plant"
    found = store.similarity_search_with_score(query, k=5)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0][0].id in ("a", "d")
    embeddings = WarpseekEmbeddings()
    expected = np.dot(embeddings.embed_query(query), embeddings.embed_documents(TEXTS[:1])[0])
    assert {doc.id: score for doc, score in found}["a"] == pytest.approx(expected, abs=2e-3)
    relevant = store.similarity_search_with_relevance_scores(query, k=5, score_threshold=scores[1])
    assert len(relevant) == 2
    retriever = store.as_retriever(
        search_type="similarity_score_threshold",
        search_kwargs={"k": 5, "score_threshold": scores[1]},
    )
    assert ids(retriever.invoke(query)) == [doc.id for doc, _ in relevant]
    assert ids(store.similarity_search(query, k=5, score_threshold=scores[1])) == [
        doc.id for doc, _ in relevant
    ]
    low = store.similarity_search_with_relevance_scores("zzz", k=5)
    assert all(0 <= score <= 1 for _, score in low)


def test_inner_products_without_normalization() -> None:
    texts = ["3 0", "0 1", "1 1"]
    cosines = WarpseekVectorStore.from_texts(texts, Vectors(), ids=["x", "y", "z"])
    products = WarpseekVectorStore.from_texts(
        texts, Vectors(), ids=["x", "y", "z"], normalize=False
    )
    found = cosines.similarity_search_with_score("1 1", k=3)
    assert [(doc.id, round(score, 3)) for doc, score in found] == [
        ("z", 1.0),
        ("x", 0.707),
        ("y", 0.707),
    ]
    found = products.similarity_search_with_score("1 1", k=3)
    assert [(doc.id, score) for doc, score in found] == [("x", 3.0), ("z", 2.0), ("y", 1.0)]
    assert [doc.id for doc, _ in products.similarity_search_with_score_by_vector([0, 2], k=2)] == [
        "y",
        "z",
    ]
    assert cosines.index is not None and cosines.index.metric == "cosine"
    assert products.index is not None and products.index.metric == "inner_product"
    # Inner products of vectors of any length are no relevance from 0 to 1.
    with pytest.raises(UsageError, match="no scale from 0 to 1"):
        products.similarity_search("1 1", score_threshold=0.5)
    with pytest.raises(UsageError, match="no scale from 0 to 1"):
        products.similarity_search_with_relevance_scores("1 1")
    found = products.max_marginal_relevance_search("1 1", k=2, fetch_k=3, lambda_mult=0.9)
    assert len(found) == 2


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 0.8])
def test_mmr_selects_what_langchain_selects(lambda_mult: float) -> None:
    numbers = np.random.default_rng(3).normal(size=(40, 5))
    texts = [" ".join(map(str, row)) for row in numbers]
    texts, queries = texts[:35], texts[35:]
    ours = WarpseekVectorStore.from_texts(texts, Vectors())
    theirs = InMemoryVectorStore.from_texts(texts, Vectors())
    for query in queries:
        options = {"k": 6, "fetch_k": 15, "lambda_mult": lambda_mult}
        found = ours.max_marginal_relevance_search(query, **options)
        expected = theirs.max_marginal_relevance_search(query, **options)
        assert [doc.page_content for doc in found] == [doc.page_content for doc in expected]
        vector = Vectors().embed_query(query)
        assert ours.max_marginal_relevance_search_by_vector(vector, **options) == found
        relevant = ours.max_marginal_relevance_search(query, k=6, lambda_mult=1.0)
        assert relevant == ours.similarity_search(query, k=6)


def test_mmr_of_the_own_model_and_of_hybrid_search(store: WarpseekVectorStore) -> None:
    retriever = store.as_retriever(
        search_type="mmr", search_kwargs={"k": 3, "fetch_k": 5, "lambda_mult": 1.0}
    )
    query = "cooling water"
    assert ids(retriever.invoke(query)) == ids(store.similarity_search(query, k=3))
    fused = store.max_marginal_relevance_search(query, k=3, lambda_mult=1.0, hybrid=True)
    assert ids(fused) == ids(store.similarity_search(query, k=3, hybrid=True))
    with pytest.raises(UsageError, match="MMR and reranking"):
        store.max_marginal_relevance_search(query, rerank=True)


def test_hybrid_search_finds_rare_words(store: WarpseekVectorStore) -> None:
    found = store.similarity_search("forty", k=1, hybrid=True)
    assert ids(found) == ["e"]
    ranked = store.similarity_search_with_score("forty", k=1, hybrid=True, fusion="rrf")
    assert ranked[0][0].id == "e" and ranked[0][1] < 2 / 61 + 1e-6
    with pytest.raises(UsageError, match="no threshold"):
        store.similarity_search_with_relevance_scores("forty", hybrid=True)
    with pytest.raises(UsageError, match="no threshold"):
        store.similarity_search("forty", hybrid=True, score_threshold=0.5)


def test_reranking(store: WarpseekVectorStore) -> None:
    query = "which document is about nuclear accidents"
    found = store.similarity_search_with_score(query, k=5, rerank=True)
    assert found[0][0].id == "a"
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    relevant = store.similarity_search_with_relevance_scores(query, k=5, rerank=True, hybrid=True)
    assert all(0 <= score <= 1 for _, score in relevant)
    reranker = WarpseekReranker(top_n=None)
    read = {
        doc.id: doc.metadata["relevance_score"]
        for doc in reranker.compress_documents([doc for doc, _ in relevant], query)
    }
    assert read == pytest.approx({doc.id: score for doc, score in relevant}, abs=1e-3)
    with pytest.raises(UsageError, match="at least k"):
        store.similarity_search(query, k=5, rerank=True, rerank_depth=2)
    with pytest.raises(UsageError, match="rerank_depth needs"):
        store.similarity_search(query, k=5, rerank_depth=20)
    with pytest.raises(UsageError, match="the text of the query"):
        store.similarity_search_by_vector([1.0] * 384, rerank=True)


def test_reranker_keeps_the_documents_that_it_read() -> None:
    documents = [
        Document(text, metadata=dict(data)) for text, data in zip(TEXTS, METADATAS, strict=True)
    ]
    best = WarpseekReranker(top_n=2).compress_documents(documents, "how to cook soup")
    assert len(best) == 2
    assert best[0].page_content == TEXTS[1]
    assert 0 <= best[1].metadata["relevance_score"] <= best[0].metadata["relevance_score"] <= 1
    assert all("relevance_score" not in document.metadata for document in documents)
    plain = WarpseekReranker(score_field=None).compress_documents(documents, "soup")
    assert len(plain) == 3
    assert all("relevance_score" not in document.metadata for document in plain)
    assert WarpseekReranker().compress_documents([], "soup") == []
    with pytest.raises(ValueError, match="top_n"):
        WarpseekReranker(top_n=0)
    with pytest.raises(ValueError, match="topn"):
        WarpseekReranker(topn=1)  # type: ignore[call-arg]


@pytest.mark.asyncio
async def test_async_variants_find_the_same(store: WarpseekVectorStore) -> None:
    query = "water"
    assert await store.asimilarity_search(query, k=3) == store.similarity_search(query, k=3)
    assert await store.asimilarity_search_with_score(query) == store.similarity_search_with_score(
        query
    )
    assert await store.asimilarity_search_with_relevance_scores(
        query
    ) == store.similarity_search_with_relevance_scores(query)
    vector = WarpseekEmbeddings().embed_query(query)
    assert await store.asimilarity_search_by_vector(vector) == store.similarity_search(query)
    assert await store.amax_marginal_relevance_search(query, k=2) == (
        store.max_marginal_relevance_search(query, k=2)
    )
    assert await store.amax_marginal_relevance_search_by_vector(vector, k=2) == (
        store.max_marginal_relevance_search(query, k=2)
    )
    assert await store.as_retriever(search_type="mmr").ainvoke(query)
    made = await WarpseekVectorStore.afrom_texts(["1 0", "0 1"], Vectors(), ids=["x", "y"])
    assert ids(await made.asimilarity_search("0 2", k=1)) == ["y"]
    assert await made.adelete(["y"])
    assert ids(await made.asimilarity_search("0 2", k=2)) == ["x"]


def test_delete() -> None:
    texts = [f"{i} 1" for i in range(6)]
    metadatas = [{"i": i} for i in range(6)]
    store = WarpseekVectorStore.from_texts(texts, Vectors(), metadatas, ids=list("abcdef"))

    def left() -> list[str | None]:
        return sorted(ids(store.similarity_search("1 1", k=9)))

    assert store.delete(["a", "unknown"])
    assert left() == list("bcdef")
    store.delete([])
    assert left() == list("bcdef")
    store.delete(filter={"i": {"$lt": 3}})
    assert left() == list("def")
    for wrong in ({"ids": ["d"], "filter": {"i": 3}}, {"filter": {}}, {"ids": "def"}):
        with pytest.raises(UsageError):
            store.delete(**wrong)
    store.delete()
    assert left() == []
    store.delete()
    assert store.add_texts(["1 1"], ids=["a"]) == ["a"]
    assert left() == ["a"]


def test_equal_ids_in_one_call_leave_the_last() -> None:
    store = WarpseekVectorStore(Vectors())
    added = store.add_texts(
        ["1 0", "0 1", "1 1"], [{"n": n} for n in range(3)], ids=["x", "y", "x"]
    )
    assert added == ["x", "y", "x"]
    assert {doc.id: doc.page_content for doc in store.get_by_ids(["x", "y", "x"])} == {
        "x": "1 1",
        "y": "0 1",
    }


def test_batches_and_generated_ids() -> None:
    store = WarpseekVectorStore(Vectors())
    documents = [Document(f"{i} 1", id=None if i % 2 else f"id {i}") for i in range(7)]
    added = store.add_documents(documents, batch_size=3)
    assert len(set(added)) == 7
    assert added[::2] == ["id 0", "id 2", "id 4", "id 6"]
    assert len(store.get_by_ids(added)) == 7
    with pytest.raises(UsageError, match="batch_size"):
        store.add_documents(documents, batch_size=0)


def test_indexing_api_adds_changes_and_deletes() -> None:
    store = WarpseekVectorStore(DeterministicFakeEmbedding(size=6))
    manager = InMemoryRecordManager("warpseek")
    manager.create_schema()
    documents = [Document(f"text {i}", metadata={"source": f"{i}"}) for i in range(4)]
    options: dict[str, Any] = {"source_id_key": "source", "key_encoder": "sha256"}
    result = index(documents, manager, store, cleanup="full", **options)
    assert (result["num_added"], result["num_deleted"]) == (4, 0)
    documents[1] = Document("changed", metadata={"source": "1"})
    result = index(documents[:3], manager, store, cleanup="full", **options)
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (1, 2, 2)
    texts = {doc.page_content for doc in store.similarity_search("text", k=9)}
    assert texts == {"text 0", "changed", "text 2"}


@pytest.mark.asyncio
async def test_async_indexing_api() -> None:
    store = WarpseekVectorStore(DeterministicFakeEmbedding(size=6))
    manager = InMemoryRecordManager("warpseek")
    await manager.acreate_schema()
    documents = [Document(f"text {i}", metadata={"source": f"{i}"}) for i in range(4)]
    result = await aindex(documents, manager, store, cleanup="full", key_encoder="sha256")
    assert result["num_added"] == 4
    result = await aindex([], manager, store, cleanup="full", key_encoder="sha256")
    assert result["num_deleted"] == 4
    assert await store.asimilarity_search("text") == []


def test_chain_of_retriever_prompt_and_model(store: WarpseekVectorStore) -> None:
    def joined(documents: list[Document]) -> str:
        return "\n".join(document.page_content for document in documents)

    prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"topic": "food"}})
    chain = (
        {"context": retriever | joined, "question": RunnablePassthrough()}
        | prompt
        | FakeListChatModel(responses=["forty minutes"])
        | StrOutputParser()
    )
    assert chain.invoke("How long does bread bake?") == "forty minutes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fliter": {}}, "no option 'fliter'; did you mean filter"),
        ({"where": {}}, "no option 'where'"),
        ({"fetch_k": 20}, "no option 'fetch_k'"),
    ],
)
def test_unknown_options_are_refused(
    store: WarpseekVectorStore, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        store.similarity_search("water", **options)


def test_wrong_input_is_refused(store: WarpseekVectorStore, tmp_path: Path) -> None:
    for wrong in (
        {"texts": "one text"},
        {"texts": ["1 0"], "metadatas": [{}, {}]},
        {"texts": ["1 0"], "ids": ["a", "b"]},
        {"texts": ["1 0"], "ids": [1]},
        {"texts": ["1 nan"]},
        {"texts": ["1 0", "1"]},
    ):
        with pytest.raises(ValueError):
            WarpseekVectorStore(Vectors()).add_texts(**wrong)  # type: ignore[arg-type]
    for k in (0, -1):
        with pytest.raises(UsageError, match="k must be at least 1"):
            store.similarity_search("water", k=k)
    with pytest.raises(UsageError, match="True or False"):
        store.similarity_search("water", rerank="yes")
    with pytest.raises(UsageError, match="not both"):
        WarpseekVectorStore(path=tmp_path, index=store.index)
    vectors = WarpseekVectorStore.from_texts(["1 0"], Vectors(), path=tmp_path / "two")
    with pytest.raises(UsageError, match="3 dimensions"):
        vectors.similarity_search("1 0 0")
    with pytest.raises(UsageError, match="3 dimensions"):
        vectors.add_texts(["1 0 0"])
    with pytest.raises(UsageError, match="give `embedding`"):
        WarpseekVectorStore(path=tmp_path / "two")


def test_model_of_an_index(tmp_path: Path) -> None:
    made = WarpseekVectorStore.from_texts(TEXTS, WarpseekEmbeddings(), ids=IDS, path=tmp_path / "x")
    assert made.embeddings is not None
    opened = WarpseekVectorStore(path=tmp_path / "x", model="all-MiniLM-L6-v2")
    assert opened.embeddings is None
    query = "how to cook soup"
    assert ids(opened.similarity_search(query)) == ids(made.similarity_search(query))
    with pytest.raises(UsageError, match="embedding or model"):
        WarpseekVectorStore(WarpseekEmbeddings(), model="all-MiniLM-L6-v2")
    with pytest.raises(UsageError, match="index or model"):
        WarpseekVectorStore(index=opened.index, model="all-MiniLM-L6-v2")
    with pytest.raises(UsageError, match="needs `embedding`"):
        WarpseekVectorStore(path=tmp_path / "y", normalize=False)
    assert not (tmp_path / "y").exists()


def test_model_of_the_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = WarpseekEmbeddings().embedder
    assert WarpseekEmbeddings(embedder=embedder, batch_size=2).embedder is embedder
    for given in ({"model": "all-MiniLM-L6-v2"}, {"device": "cpu"}, {"offline": True}):
        with pytest.raises(UsageError, match=f"embedder or {next(iter(given))}"):
            WarpseekEmbeddings(embedder=embedder, **given)  # type: ignore[arg-type]
    monkeypatch.setenv("WARPSEEK_MODEL", "no-such-model")
    with pytest.raises(ModelUnavailableError, match="no-such-model"):
        WarpseekEmbeddings()


def test_what_is_not_kept_is_told() -> None:
    store = WarpseekVectorStore()
    with pytest.warns(UserWarning, match="became null"):
        store.add_texts(["text"], [{"x": float("nan"), "day": date(2024, 1, 31)}], ids=["a"])
    assert store.get_by_ids(["a"])[0].metadata == {"x": None, "day": "2024-01-31"}
    assert ids(store.similarity_search("text", filter={"day": {"$lt": date(2024, 2, 1)}})) == ["a"]
    with pytest.warns(UserWarning, match="split the texts first"):
        store.add_texts(["word " * 600])


@pytest.mark.asyncio
async def test_concurrent_calls_share_a_store() -> None:
    store = WarpseekVectorStore(DeterministicFakeEmbedding(size=16))

    async def add(n: int) -> list[Document]:
        await store.aadd_texts([f"{n} {i}" for i in range(20)], ids=[f"{n}-{i}" for i in range(20)])
        return await store.asimilarity_search(f"{n} 7", k=1)

    found = await asyncio.gather(*(add(n) for n in range(8)))
    assert [documents[0].id for documents in found] == [f"{n}-7" for n in range(8)]
    assert store.index is not None
    assert len(store.index) == 160


def test_temporary_store_is_deleted_with_its_folder() -> None:
    store = WarpseekVectorStore.from_texts(["1 0"], Vectors())
    assert store.index is not None
    folder = Path(store.index.path)
    assert folder.exists()
    del store
    gc.collect()
    assert not folder.parent.exists()


def test_pickle(tmp_path: Path) -> None:
    store = WarpseekVectorStore(Vectors(), path=tmp_path / "index", normalize=False)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(store))
        store.add_texts(["3 0"], ids=["x"])
        copy = pickle.loads(pickle.dumps(store))
        assert [score for _, score in copy.similarity_search_with_score("1 0")] == [3.0]
    with pytest.raises(TypeError, match="give it a path"):
        pickle.dumps(WarpseekVectorStore(Vectors()))
    embeddings = WarpseekEmbeddings()
    copy = pickle.loads(pickle.dumps(embeddings))
    assert copy.embed_query("x") == embeddings.embed_query("x")
    document = [Document("soup"), Document("law")]
    reranker = pickle.loads(pickle.dumps(WarpseekReranker(top_n=1)))
    assert reranker.compress_documents(document, "soup")[0].page_content == "soup"


def test_open_index_is_shared(tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model=None, dim=2) as opened:
        store = WarpseekVectorStore(Vectors(), index=opened)
        assert store.similarity_search("1 0") == []
        store.add_texts(["1 0"], ids=["a"])
        assert len(opened) == 1
        assert "a" in opened
