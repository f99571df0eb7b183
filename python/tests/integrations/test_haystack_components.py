"""Haystack's components: embedders, retrievers and ranker, alone and in pipelines."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import FilterRetriever, SentenceWindowRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy

from warpseek import CrossEncoder, Embedder, ModelUnavailableError
from warpseek.integrations.haystack import (
    WarpseekBM25Retriever,
    WarpseekDocumentEmbedder,
    WarpseekDocumentStore,
    WarpseekEmbeddingRetriever,
    WarpseekHybridRetriever,
    WarpseekRanker,
    WarpseekTextEmbedder,
)

TEXTS = [
    "A heat pump moves heat from the air outside into the house.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "The orchestra tuned its violins before the concert.",
    "Sourdough bread needs flour, water, salt and patience.",
    "Glaciers carve valleys as they slide down mountains.",
]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    plain = [Document(id=str(i), content=text, meta={"n": i}) for i, text in enumerate(TEXTS)]
    embedded: list[Document] = WarpseekDocumentEmbedder().run(plain)["documents"]
    return embedded


@pytest.fixture
def store(tmp_path: Path, documents: list[Document]) -> Any:
    store = WarpseekDocumentStore(str(tmp_path / "store"))
    store.write_documents(documents)
    yield store
    store.close()


def test_embedders_are_the_model(documents: list[Document]) -> None:
    model = Embedder("all-MiniLM-L6-v2")
    wanted = model.encode_document(TEXTS)
    np.testing.assert_array_equal([d.embedding for d in documents], wanted)
    result = WarpseekTextEmbedder().run("warm house")
    np.testing.assert_array_equal(result["embedding"], model.encode_query("warm house"))
    assert result["meta"] == {
        "model": "all-MiniLM-L6-v2",
        "sha256": model.sha256,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "truncated_tokens": 0,
    }
    assert all(isinstance(value, float) for value in result["embedding"])


def test_default_model_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARPSEEK_MODEL", raising=False)
    for make in (WarpseekTextEmbedder, WarpseekDocumentEmbedder):
        data = make().to_dict()
        assert data["init_parameters"]["model"] == "all-MiniLM-L6-v2"
        monkeypatch.setenv("WARPSEEK_MODEL", "no-such-model")
        with pytest.raises(ModelUnavailableError, match="no-such-model"):
            make().to_dict()
        assert make.from_dict(data).to_dict() == data
        monkeypatch.delenv("WARPSEEK_MODEL")


def test_document_embedder_options() -> None:
    model = Embedder("all-MiniLM-L6-v2")
    document = Document(content="body", meta={"a": 1, "b": None, "c": "head"})
    embedder = WarpseekDocumentEmbedder(
        prefix="passage: ",
        suffix=" end",
        meta_fields_to_embed=["c", "b", "missing"],
        embedding_separator=" | ",
        batch_size=1,
    )
    (embedded,) = embedder.run([document])["documents"]
    assert document.embedding is None
    wanted = model.encode("passage: head | body end")
    np.testing.assert_array_equal(embedded.embedding, wanted)
    assert embedder.run([])["documents"] == []
    (empty,) = WarpseekDocumentEmbedder().run([Document()])["documents"]
    assert empty.embedding is not None
    assert len(empty.embedding) == 384


def test_truncation_is_told(caplog: pytest.LogCaptureFixture) -> None:
    documents = [Document(content="word " * n) for n in (10, 300, 400)]
    meta = WarpseekDocumentEmbedder().run(documents)["meta"]
    assert meta["truncated_tokens"] == 300 + 400 - 2 * 254
    assert meta["usage"]["prompt_tokens"] == 12 + 2 * 256
    assert "2 of 3 documents are longer than 256 tokens" in caplog.text
    assert WarpseekTextEmbedder().run("word " * 300)["meta"]["truncated_tokens"] == 300 - 254


def test_embedders_refuse_each_others_input() -> None:
    with pytest.raises(TypeError, match="WarpseekDocumentEmbedder embeds documents"):
        WarpseekTextEmbedder().run([Document(content="a")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="WarpseekTextEmbedder embeds a text"):
        WarpseekDocumentEmbedder().run("a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="WarpseekTextEmbedder embeds a text"):
        WarpseekDocumentEmbedder().run(["a"])  # type: ignore[list-item]


def test_ranker_is_the_model(documents: list[Document]) -> None:
    query = "how do I warm my house?"
    logits = CrossEncoder().predict([(query, text) for text in TEXTS], activation_fn="identity")
    order = np.argsort(-logits, kind="stable")
    ranked = WarpseekRanker(scale_score=False).run(query, documents)["documents"]
    assert [d.id for d in ranked] == [str(i) for i in order]
    np.testing.assert_array_equal(np.float32([d.score for d in ranked]), logits[order])
    assert ranked[0].id == "0"
    assert documents[0].score is None
    scaled = WarpseekRanker(top_k=2).run(query, [*documents, *documents])["documents"]
    assert [d.id for d in scaled] == [str(i) for i in order[:2]]
    wanted = 1 / (1 + np.exp(-logits[order[:2]].astype(float)))
    np.testing.assert_allclose([d.score for d in scaled], wanted, rtol=1e-5)
    threshold = float(np.mean([d.score for d in scaled]))
    kept = WarpseekRanker(score_threshold=threshold).run(query, documents)["documents"]
    assert [d.id for d in kept] == ["0"]
    assert WarpseekRanker().run(query, [])["documents"] == []


def test_retrievers(store: WarpseekDocumentStore) -> None:
    query = "warming a home"
    embedding = WarpseekTextEmbedder().run(query)["embedding"]
    retriever = WarpseekEmbeddingRetriever(store, top_k=2)
    found = retriever.run(embedding)["documents"]
    assert len(found) == 2
    assert (found[0].id, found[0].embedding) == ("0", None)
    wanted = float(np.dot(embedding, store_vector(store, "0")))
    assert found[0].score == pytest.approx(wanted, abs=1e-3)
    assert len(retriever.run(embedding, top_k=4)["documents"]) == 4
    (bread,) = WarpseekBM25Retriever(store).run("sourdough")["documents"]
    assert bread.id == "3"
    hybrid = WarpseekHybridRetriever(store, top_k=3)
    fused = hybrid.run("violins", embedding)["documents"]
    assert {d.id for d in fused[:2]} == {"0", "2"}
    filters = {"field": "meta.n", "operator": ">=", "value": 3}
    assert {d.id for d in retriever.run(embedding, filters=filters)["documents"]} == {"3", "4"}


def store_vector(store: WarpseekDocumentStore, name: str) -> list[float]:
    (document,) = store.filter_documents({"field": "id", "operator": "==", "value": name})
    assert document.embedding is not None
    return document.embedding


def test_filter_policies(store: WarpseekDocumentStore) -> None:
    embedding = WarpseekTextEmbedder().run("anything")["embedding"]
    at_least_one = {"field": "meta.n", "operator": ">=", "value": 1}
    below_three = {"field": "id", "operator": "in", "value": ["0", "1", "2"]}
    for policy, wanted in [("replace", {"0", "1", "2"}), (FilterPolicy.MERGE, {"1", "2"})]:
        retriever = WarpseekEmbeddingRetriever(store, filters=at_least_one, filter_policy=policy)
        assert {d.id for d in retriever.run(embedding)["documents"]} == {"1", "2", "3", "4"}
        found = retriever.run(embedding, filters=below_three)["documents"]
        assert {d.id for d in found} == wanted


def test_odd_arguments(store: WarpseekDocumentStore) -> None:
    for kind in (WarpseekEmbeddingRetriever, WarpseekBM25Retriever, WarpseekHybridRetriever):
        with pytest.raises(TypeError, match="WarpseekDocumentStore"):
            kind("store")
        with pytest.raises(ValueError, match="top_k"):
            kind(store, top_k=0)
        with pytest.raises(ValueError, match="FilterPolicy"):
            kind(store, filter_policy="both")
    with pytest.raises(ValueError, match="top_k"):
        WarpseekRanker(top_k=0)


@pytest.mark.parametrize("make", [WarpseekTextEmbedder, WarpseekDocumentEmbedder, WarpseekRanker])
def test_models_are_serialized(make: Any) -> None:
    component = make(device="cpu", precision="f32", offline=True)
    data = component.to_dict()
    assert data["init_parameters"]["precision"] == "f32"
    assert make.from_dict(data).to_dict() == data
    empty = {"type": data["type"], "init_parameters": {}}
    assert make.from_dict(empty).to_dict() == make().to_dict()


def make_pipeline(store: WarpseekDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", WarpseekTextEmbedder())
    pipeline.add_component("retriever", WarpseekHybridRetriever(store, top_k=4))
    pipeline.add_component("ranker", WarpseekRanker(top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def inputs_of(query: str) -> dict[str, dict[str, str]]:
    return {"embedder": {"text": query}, "retriever": {"query": query}, "ranker": {"query": query}}


def test_pipelines(tmp_path: Path) -> None:
    store = WarpseekDocumentStore(str(tmp_path / "store"))
    indexing = Pipeline()
    indexing.add_component("embedder", WarpseekDocumentEmbedder())
    indexing.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    indexing.connect("embedder.documents", "writer.documents")
    plain = [Document(content=text, meta={"n": i}) for i, text in enumerate(TEXTS)]
    for _ in range(2):
        result = indexing.run({"embedder": {"documents": plain}})
        assert result["writer"]["documents_written"] == 5
    assert store.count_documents() == 5

    query = "what do glaciers do to mountains?"
    inputs = inputs_of(query)
    pipeline = make_pipeline(store)
    (first,) = pipeline.run(inputs)["ranker"]["documents"]
    assert first.content == TEXTS[4]
    text = pipeline.dumps()
    store.close()
    again = Pipeline.loads(text, allowed_modules=["warpseek.*"])
    assert again.dumps() == text
    (second,) = again.run(inputs)["ranker"]["documents"]
    assert second == first
    loaded = Pipeline.loads(indexing.dumps(), allowed_modules=["warpseek.*"])
    assert loaded.run({"embedder": {"documents": plain}})["writer"]["documents_written"] == 5
    with pytest.raises(DeserializationError, match="allow"):
        Pipeline.loads(text)


def test_coroutines(store: WarpseekDocumentStore) -> None:
    query = "what do glaciers do to mountains?"
    inputs = inputs_of(query)
    pipeline = make_pipeline(store)

    async def many() -> list[Any]:
        return await asyncio.gather(*(pipeline.run_async(inputs) for _ in range(4)))

    for result in asyncio.run(many()):
        assert [d.id for d in result["ranker"]["documents"]] == ["4"]
    embedding = asyncio.run(WarpseekTextEmbedder().run_async(query))["embedding"]
    retriever = WarpseekEmbeddingRetriever(store, top_k=1)
    (found,) = asyncio.run(retriever.run_async(embedding))["documents"]
    assert found.id == "4"
    (found,) = asyncio.run(WarpseekBM25Retriever(store, top_k=1).run_async("glaciers"))["documents"]
    assert found.id == "4"


def test_haystacks_own_retrievers(store: WarpseekDocumentStore) -> None:
    filters = {"field": "meta.n", "operator": "in", "value": [1, 2]}
    found = FilterRetriever(store).run(filters=filters)["documents"]
    assert [d.id for d in found] == ["1", "2"]
    parts = [
        Document(
            id=f"part {i}",
            content=f"part {i}",
            meta={"source_id": "s", "split_id": i, "split_idx_start": i},
        )
        for i in range(6)
    ]
    store.write_documents(parts)
    result = SentenceWindowRetriever(store, window_size=1).run(retrieved_documents=[parts[3]])
    assert [d.id for d in result["context_documents"]] == ["part 2", "part 3", "part 4"]
