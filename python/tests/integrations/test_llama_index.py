"""The LlamaIndex integration: what the vector stores of LlamaIndex do, and where it is refused."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from warpseek import Embedder, Index
from warpseek.errors import ModelUnavailableError, UsageError
from warpseek.integrations.llama_index import (
    WarpseekEmbedding,
    WarpseekReranker,
    WarpseekVectorStore,
)

Op = FilterOperator


def node(id_: str, vector: list[float], source: str | None, **metadata: Any) -> TextNode:
    made = TextNode(id_=id_, text=f"text of {id_}", embedding=vector, metadata=metadata)
    if source is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return made


def nodes() -> list[TextNode]:
    return [
        node("n1", [1.0, 0.0], "doc-1", weight=1.0, rank="a", quality=["medium", "high"]),
        node("n2", [0.8, 0.6], "doc-1", weight=2.0, rank="c", quality=["medium"], flag=""),
        node("n3", [0.6, 0.8], "2", weight=3.0, rank="b", quality=[], place="Old Town"),
        node("n4", [0.0, 1.0], "2.0", weight=2.5, identifier="6FTR78Y", place="Newtown"),
        node("n5", [-1.0, 0.0], None, rank=None, ref_doc_id="mine"),
    ]


@pytest.fixture()
def store(tmp_path: Path) -> WarpseekVectorStore:
    made = WarpseekVectorStore(tmp_path / "index")
    assert made.add(nodes()) == ["n1", "n2", "n3", "n4", "n5"]
    return made


def query(**options: Any) -> VectorStoreQuery:
    options = {"query_embedding": [1.0, 0.1], "similarity_top_k": 9, **options}
    return VectorStoreQuery(**options)


def found(store: WarpseekVectorStore, **options: Any) -> list[str]:
    result = store.query(query(**options))
    assert result.ids is not None
    return result.ids


def filters(*all_of: Any, condition: FilterCondition = FilterCondition.AND) -> MetadataFilters:
    made = [
        one
        if isinstance(one, MetadataFilters)
        else MetadataFilter(key=one[0], operator=one[1], value=one[2])
        for one in all_of
    ]
    return MetadataFilters(filters=made, condition=condition)


def test_query_gives_nodes_similarities_and_ids(store: WarpseekVectorStore) -> None:
    result = store.query(query(similarity_top_k=2))
    assert result.ids == ["n1", "n2"]
    assert result.similarities == pytest.approx([0.99504, 0.85573], abs=1e-3)
    assert result.nodes is not None
    for got, expected in zip(result.nodes, nodes()[:2], strict=True):
        expected.embedding = None
        assert type(got) is TextNode
        assert got == expected
        assert got.hash == expected.hash


def test_nodes_of_every_class_come_back_as_they_were(tmp_path: Path) -> None:
    text = "  Two lines\n\nand\ttabs \n"
    related = {
        NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d", metadata={"k": 1}, hash="h"),
        NodeRelationship.NEXT: RelatedNodeInfo(node_id="n"),
        NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c")],
    }
    common: dict[str, Any] = {
        "metadata": {"a": 1, "b": 1.0, "c": None, "d": {"e": [1]}, "doc_id": "x", "id": 3},
        "relationships": related,
        "excluded_embed_metadata_keys": ["a"],
        "excluded_llm_metadata_keys": ["b"],
        "metadata_template": "{key}={value}",
        "embedding": [1.0, 2.0],
    }
    made: list[BaseNode] = [
        TextNode(text=text, start_char_idx=3, end_char_idx=9, mimetype="text/html", **common),
        ImageNode(text="caption", image="aGFsbG8=", image_mimetype="image/png", **common),
        ImageNode(image_url="http://localhost/a.png", **common),
        IndexNode(text=text, index_id="other", obj=TextNode(text="inner", id_="i"), **common),
        Node(text_resource=MediaResource(text=text, mimetype="text/markdown"), **common),
        Node(image_resource=MediaResource(url="http://localhost/b.png"), **common),
        Document(text=text, **common),
        Document(text="", **common),
    ]
    store = WarpseekVectorStore(tmp_path / "index")
    ids = store.add(made)
    reopened = WarpseekVectorStore(tmp_path / "index")
    for one in (store, reopened):
        for got, expected in zip(one.get_nodes(ids), made, strict=True):
            assert type(got) is type(expected)
            assert got.model_dump(exclude={"embedding"}) == expected.model_dump(
                exclude={"embedding"}
            )


def test_added_nodes_are_left_alone(tmp_path: Path) -> None:
    made = nodes()
    WarpseekVectorStore(tmp_path / "index").add(made)
    assert made == nodes()


class Special(TextNode):
    """A class that LlamaIndex does not know."""

    @classmethod
    def class_name(cls) -> str:
        return "Special"


def test_unknown_classes_are_read_as_the_one_they_extend(tmp_path: Path) -> None:
    store = WarpseekVectorStore(tmp_path / "index")
    store.add([Special(text="text", id_="s", embedding=[1.0])])
    (got,) = store.get_nodes(["s"])
    assert type(got) is TextNode
    assert got.text == "text"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (filters(("rank", Op.EQ, "a")), "1"),
        (filters(("weight", Op.EQ, 2)), "2"),
        (filters(("weight", Op.NE, 2.0)), "1345"),
        (filters(("rank", Op.NE, "a")), "2345"),
        (filters(("weight", Op.GT, 1.5), ("weight", Op.LT, 3)), "24"),
        (filters(("weight", Op.GTE, 2.0), ("weight", Op.LTE, 2.5)), "24"),
        (filters(("rank", Op.IN, ["a", "c"])), "12"),
        (filters(("rank", Op.NIN, ["a", "c"])), "345"),
        (filters(("weight", Op.IN, [1, 3])), "13"),
        (filters(("rank", Op.IN, [])), ""),
        (filters(("quality", Op.CONTAINS, "high")), "1"),
        (filters(("quality", Op.ANY, ["high", "low"])), "1"),
        (filters(("quality", Op.ALL, ["high", "medium"])), "1"),
        (filters(("quality", Op.ANY, [])), ""),
        (filters(("quality", Op.ALL, [])), "123"),
        (filters(("place", Op.TEXT_MATCH, "Town")), "3"),
        (filters(("place", Op.TEXT_MATCH_INSENSITIVE, "TOWN")), "34"),
        (filters(("rank", Op.IS_EMPTY, None)), "45"),
        (filters(("flag", Op.IS_EMPTY, None)), "12345"),
        (filters(("quality", Op.IS_EMPTY, None)), "345"),
        (filters(("ref_doc_id", Op.EQ, "mine")), "5"),
        (filters(("rank", Op.EQ, "a"), ("rank", Op.EQ, "b"), condition=FilterCondition.OR), "13"),
        (
            filters(("rank", Op.EQ, "a"), ("weight", Op.GT, 2.7), condition=FilterCondition.NOT),
            "245",
        ),
        (
            filters(
                filters(("rank", Op.EQ, "a"), ("rank", Op.EQ, "c"), condition=FilterCondition.OR),
                filters(("weight", Op.EQ, 1.0), condition=FilterCondition.NOT),
            ),
            "2",
        ),
        (MetadataFilters(filters=[]), "12345"),
        (None, "12345"),
    ],
)
def test_filters(store: WarpseekVectorStore, where: MetadataFilters, expected: str) -> None:
    ids = [f"n{i}" for i in expected]
    assert sorted(found(store, filters=where)) == ids
    assert sorted(one.node_id for one in store.get_nodes(filters=where)) == ids
    some = store.get_nodes(["n4", "n2", "n1"], where)
    assert [one.node_id for one in some] == [id_ for id_ in ("n4", "n2", "n1") if id_ in ids]


#: Filters of which the store in memory knows every operator and has no type errors.
COMPARED = [
    filters((key, operator, value))
    for key, operator, value in [
        ("rank", Op.EQ, "a"),
        ("rank", Op.NE, "a"),
        ("weight", Op.GT, 2),
        ("weight", Op.GTE, 2),
        ("weight", Op.LT, 2),
        ("weight", Op.LTE, 2),
        ("weight", Op.NE, 2),
        ("rank", Op.IN, ["a", "b"]),
        ("rank", Op.NIN, ["a", "b"]),
        ("quality", Op.CONTAINS, "medium"),
        ("quality", Op.ANY, ["high", "x"]),
        ("quality", Op.ALL, ["high", "medium"]),
        ("place", Op.TEXT_MATCH, "town"),
        ("place", Op.TEXT_MATCH_INSENSITIVE, "town"),
        ("flag", Op.IS_EMPTY, None),
        ("rank", Op.IS_EMPTY, None),
    ]
]


@pytest.mark.parametrize("condition", list(FilterCondition))
def test_filters_pass_what_the_store_in_memory_passes(
    store: WarpseekVectorStore, condition: FilterCondition
) -> None:
    memory = SimpleVectorStore()
    memory.add(nodes())
    for first in COMPARED:
        for second in COMPARED:
            both = MetadataFilters(filters=[*first.filters, *second.filters], condition=condition)
            expected = memory.query(query(filters=both))
            assert found(store, filters=both) == expected.ids, both


def test_restriction_to_node_ids_and_source_documents(store: WarpseekVectorStore) -> None:
    assert found(store, node_ids=["n4", "n2", "unknown"]) == ["n2", "n4"]
    assert found(store, doc_ids=["doc-1"]) == ["n1", "n2"]
    # Ids are texts, whatever they look like.
    assert found(store, doc_ids=["2"]) == ["n3"]
    assert found(store, doc_ids=["2.0"]) == ["n4"]
    assert found(store, doc_ids=["doc-1", "2"], node_ids=["n3", "n4"]) == ["n3"]
    assert found(store, doc_ids=[], node_ids=[]) == ["n1", "n2", "n3", "n4", "n5"]
    where = filters(("weight", Op.GT, 1))
    assert found(store, doc_ids=["doc-1"], filters=where) == ["n2"]


def test_long_lists_of_ids(tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(3000, 4)).tolist()
    made = [TextNode(id_=f"it's a long id {i:08}", embedding=row) for i, row in enumerate(rows)]
    store = WarpseekVectorStore(tmp_path / "index")
    store.add(made)
    ids = [one.node_id for one in made[::2]]
    vector = [0.5, 0.1, -0.2, 0.3]
    everything = found(store, query_embedding=vector, similarity_top_k=3000)
    expected = [id_ for id_ in everything if id_ in set(ids)]
    options = {"query_embedding": vector, "similarity_top_k": 20, "node_ids": ids}
    assert found(store, **options) == expected[:20]
    mmr = VectorStoreQueryMode.MMR
    assert found(store, **options, mode=mmr, mmr_threshold=1.0) == expected[:20]
    assert [one.node_id for one in store.get_nodes(ids)] == ids
    with pytest.raises(UsageError, match="at most 12 KB"):
        found(store, **options, mode=VectorStoreQueryMode.HYBRID, query_str="x")
    store.delete_nodes(ids)
    assert len(store.get_nodes()) == 1500


def test_delete_by_source_document(store: WarpseekVectorStore) -> None:
    store.delete("2")
    assert found(store) == ["n1", "n2", "n4", "n5"]
    store.delete("doc-1")
    store.delete("unknown")
    store.delete("mine")
    assert found(store) == ["n4", "n5"]


def test_delete_nodes_and_clear(store: WarpseekVectorStore) -> None:
    store.delete_nodes(["n1", "unknown"])
    assert found(store) == ["n2", "n3", "n4", "n5"]
    store.delete_nodes([])
    store.delete_nodes(filters=filters(("rank", Op.EQ, "c")))
    assert found(store) == ["n3", "n4", "n5"]
    store.delete_nodes(["n3", "n5"], filters(("weight", Op.GT, 1)))
    assert found(store) == ["n4", "n5"]
    with pytest.raises(UsageError, match="clear"):
        store.delete_nodes()
    store.clear()
    assert found(store) == []
    assert store.get_nodes() == []
    store.add(nodes()[:1])
    assert found(store) == ["n1"]


def test_add_replaces_nodes_of_equal_ids(store: WarpseekVectorStore) -> None:
    store.add([node("n1", [0.0, 1.0], None, x=1), node("n1", [0.0, -1.0], None, x=2)])
    (got,) = store.get_nodes(["n1"])
    assert got.metadata == {"x": 2}
    assert len(store.get_nodes()) == 5
    assert found(store, query_embedding=[0.0, -1.0], similarity_top_k=1) == ["n1"]


def test_empty_store(tmp_path: Path) -> None:
    store = WarpseekVectorStore(tmp_path / "index")
    result = store.query(query(filters=filters(("unknown", Op.EQ, 1))))
    assert (result.nodes, result.similarities, result.ids) == ([], [], [])
    assert store.get_nodes() == []
    assert store.add([]) == []
    assert store.client is None
    store.delete("x")
    store.delete_nodes(["x"])
    store.clear()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, None])
def test_mmr_selects_what_llama_index_selects(tmp_path: Path, threshold: float | None) -> None:
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(30, 6)).tolist()
    store = WarpseekVectorStore(tmp_path / "index")
    ids = store.add([TextNode(id_=f"{i}", embedding=row) for i, row in enumerate(rows)])
    for vector in rng.normal(size=(4, 6)).tolist():
        options = {"query_embedding": vector, "similarity_top_k": 2}
        result = store.query(
            query(mode=VectorStoreQueryMode.MMR, mmr_threshold=threshold, **options),
            mmr_prefetch_k=30,
        )
        _, expected = get_top_k_mmr_embeddings(
            vector, rows, similarity_top_k=2, embedding_ids=list(ids), mmr_threshold=threshold
        )
        assert result.ids == expected
        by_kwarg = store.query(
            query(mode=VectorStoreQueryMode.MMR, **options),
            mmr_prefetch_factor=15,
            **({} if threshold is None else {"mmr_threshold": threshold}),
        )
        assert by_kwarg.ids == expected


def test_hybrid_search_finds_words(store: WarpseekVectorStore) -> None:
    options = {"mode": VectorStoreQueryMode.HYBRID, "query_str": "n4"}
    first = found(store, similarity_top_k=2, **options)
    assert "n4" in first
    assert len(found(store, similarity_top_k=2, hybrid_top_k=4, **options)) == 4
    assert "n4" in found(store, filters=filters(("weight", Op.GT, 2)), **options)


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH])
def test_search_by_words(store: WarpseekVectorStore, mode: VectorStoreQueryMode) -> None:
    options = {"mode": mode, "query_embedding": None}
    assert found(store, query_str="n3 or n4", similarity_top_k=9, **options)[:2] == ["n3", "n4"]
    assert found(store, query_str="nothing", **options) == []
    where = filters(("weight", Op.LT, 3))
    assert found(store, query_str="n3 n4", filters=where, node_ids=["n4"], **options) == ["n4"]
    if mode == VectorStoreQueryMode.SPARSE:
        assert len(found(store, query_str="text", sparse_top_k=2, **options)) == 2


@pytest.mark.parametrize(
    ("options", "kwargs", "message"),
    [
        ({"mode": VectorStoreQueryMode.SVM}, {}, "mode 'svm' is not supported"),
        ({"mode": VectorStoreQueryMode.SEMANTIC_HYBRID}, {}, "mode 'semantic_hybrid'"),
        ({"mode": VectorStoreQueryMode.TEXT_SEARCH}, {}, "query_str"),
        ({"mode": VectorStoreQueryMode.HYBRID}, {}, "query_str"),
        ({"mode": VectorStoreQueryMode.HYBRID, "query_str": "x", "alpha": 0.5}, {}, "'alpha'"),
        ({"mode": VectorStoreQueryMode.HYBRID, "query_str": "x", "sparse_top_k": 5}, {}, "sparse"),
        ({"hybrid_top_k": 5}, {}, "'hybrid_top_k'"),
        ({"mmr_threshold": 0.5}, {}, "'mmr_threshold'"),
        ({"output_fields": ["a"]}, {}, "'output_fields'"),
        ({"embedding_field": "a"}, {}, "'embedding_field'"),
        ({"query_embedding": None}, {}, "no embedding"),
        ({"query_embedding": [1.0, 2.0, 3.0]}, {}, "3 dimensions"),
        ({"similarity_top_k": 0}, {}, "at least 1"),
        ({"filters": filters(("wieght", Op.EQ, 1))}, {}, "did you mean weight"),
        ({"filters": filters(("rank", Op.ANY, "a"))}, {}, "takes a list"),
        ({"mode": VectorStoreQueryMode.MMR, "mmr_threshold": 2.0}, {}, "0..1"),
        (
            {"mode": VectorStoreQueryMode.MMR},
            {"mmr_prefetch_k": 9, "mmr_prefetch_factor": 2},
            "not both",
        ),
    ],
)
def test_queries_that_are_refused(
    store: WarpseekVectorStore, options: dict[str, Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        store.query(query(**options), **kwargs)


def test_unknown_options_and_nodes_that_are_refused(store: WarpseekVectorStore) -> None:
    with pytest.raises(TypeError, match="no option 'mmr_prefetch_k'"):
        store.query(query(), mmr_prefetch_k=3)
    with pytest.raises(TypeError, match="no option 'batch'"):
        store.add(nodes(), batch=3)
    with pytest.raises(UsageError, match="no embedding"):
        store.add([TextNode(text="x")])
    with pytest.raises(UsageError, match="3 dimensions"):
        store.add([TextNode(text="x", embedding=[1.0, 2.0, 3.0])])
    with pytest.raises(UsageError, match="field '_node'"):
        store.add([TextNode(text="x", embedding=[1.0, 2.0], metadata={"_node": 1})])
    with pytest.raises(TypeError, match="top_k"):
        WarpseekReranker(top_k=3)
    with pytest.raises(TypeError, match="batch_size"):
        WarpseekEmbedding(batch_size=3)


def test_async_variants(store: WarpseekVectorStore) -> None:
    async def run() -> None:
        assert await store.aquery(query()) == store.query(query())
        assert await store.aget_nodes(["n1"]) == store.get_nodes(["n1"])
        assert await store.async_add([node("n6", [1.0, 0.0], "d6")]) == ["n6"]
        await store.adelete("d6")
        await store.adelete_nodes(["n1"])
        assert found(store) == ["n2", "n3", "n4", "n5"]
        await store.aclear()
        assert found(store) == []

    asyncio.run(run())


def test_index_that_was_made_otherwise(tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model=None, dim=2) as index:
        index.add(
            [{"id": "a", "text": "text", "heading": "T", "year": 2020}],
            vectors=np.array([[1, 0]], dtype=np.float32),
            title="heading",
            metadata=["year"],
        )
        store = WarpseekVectorStore(index=index)
        (got,) = store.get_nodes()
        assert got == TextNode(id_="a", text="text", metadata={"year": 2020, "title": "T"})
        assert found(store, filters=filters(("year", Op.GT, 2000))) == ["a"]
        store.delete("a")
        assert found(store) == ["a"]


# With the models.

TEXTS = [
    "The reactor was shut down after a leak in the cooling circuit.",
    "A recipe for lentil soup with cumin and lemon.",
    "The court ruled that the contract was void.",
    "Bake the bread for forty minutes at 230 degrees.",
]


def documents() -> list[Document]:
    topics = ["energy", "food", "law", "food"]
    return [
        Document(text=text, id_=f"d{i}", metadata={"topic": topic})
        for i, (text, topic) in enumerate(zip(TEXTS, topics, strict=True))
    ]


@pytest.fixture(scope="module")
def embedding() -> WarpseekEmbedding:
    return WarpseekEmbedding("all-MiniLM-L6-v2", embed_batch_size=2)


def test_model_of_the_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARPSEEK_MODEL", raising=False)
    made = WarpseekEmbedding()
    assert made.model_name == "all-MiniLM-L6-v2"
    embedder = Embedder()
    assert WarpseekEmbedding(embedder=embedder).model_name == embedder.name
    for given in ({"model_name": "all-MiniLM-L6-v2"}, {"device": "cpu"}, {"precision": "f32"}):
        with pytest.raises(UsageError, match=f"embedder or {next(iter(given))}"):
            WarpseekEmbedding(embedder=embedder, **given)
    monkeypatch.setenv("WARPSEEK_MODEL", "no-such-model")
    with pytest.raises(ModelUnavailableError, match="no-such-model"):
        WarpseekEmbedding()
    again = WarpseekEmbedding.from_dict(made.to_dict())
    assert again.model_name == "all-MiniLM-L6-v2"


def test_embeddings_are_those_of_the_embedder(embedding: WarpseekEmbedding) -> None:
    embedder = Embedder("all-MiniLM-L6-v2")
    expected, query = embedder.encode_document(TEXTS), embedder.encode_query(TEXTS[0])
    assert embedding.model_name == "all-MiniLM-L6-v2"
    batch = embedding.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(batch, expected, atol=1e-5)
    assert all(isinstance(value, float) for value in batch[0])
    np.testing.assert_allclose(embedding.get_text_embedding(TEXTS[0]), expected[0], atol=1e-5)
    np.testing.assert_allclose(embedding.get_query_embedding(TEXTS[0]), query, atol=1e-5)

    async def run() -> None:
        np.testing.assert_allclose(
            await embedding.aget_text_embedding_batch(TEXTS), expected, atol=1e-5
        )
        np.testing.assert_allclose(await embedding.aget_query_embedding(TEXTS[0]), query, atol=1e-5)

    asyncio.run(run())


def test_index_end_to_end(tmp_path: Path, embedding: WarpseekEmbedding) -> None:
    store = WarpseekVectorStore(tmp_path / "index")
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(
        documents(), storage_context=context, embed_model=embedding
    )
    retriever = index.as_retriever(similarity_top_k=2)
    got = retriever.retrieve("how to cook a meal")
    assert {one.metadata["topic"] for one in got} == {"food"}
    assert got[0].score is not None and got[0].score >= (got[1].score or 0)
    assert got[0].node.ref_doc_id in ("d1", "d3")
    assert len(asyncio.run(retriever.aretrieve("how to cook a meal"))) == 2

    where = MetadataFilters(filters=[MetadataFilter(key="topic", value="law")])
    engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=4,
        filters=where,
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=-1)],
    )
    response = engine.query("What did the court decide?")
    assert TEXTS[2] in str(response)
    assert [one.node.ref_doc_id for one in response.source_nodes] == ["d2"]

    for mode in ("hybrid", "mmr"):
        retriever = index.as_retriever(similarity_top_k=1, vector_store_query_mode=mode)
        assert retriever.retrieve("forty minutes")[0].node.ref_doc_id == "d3"

    index.delete_ref_doc("d3")
    assert len(store.get_nodes()) == 3
    index.insert(Document(text="The pump failed.", id_="d4"))
    index.update_ref_doc(Document(text="The pump was repaired.", id_="d4"))
    assert len(store.get_nodes()) == 4

    reopened = VectorStoreIndex.from_vector_store(
        WarpseekVectorStore(tmp_path / "index"), embed_model=embedding
    )
    got = reopened.as_retriever(similarity_top_k=1).retrieve("pump")
    assert got[0].get_content() == "The pump was repaired."


def test_pickle(tmp_path: Path, embedding: WarpseekEmbedding) -> None:
    store = WarpseekVectorStore(tmp_path / "index", normalize=False)
    store.add(nodes())
    copy = pickle.loads(pickle.dumps(store))
    assert copy.normalize is False
    assert found(copy) == found(store)
    model = pickle.loads(pickle.dumps(embedding))
    assert model.embed_batch_size == 2
    assert model.get_query_embedding("x") == embedding.get_query_embedding("x")
    reranker = pickle.loads(pickle.dumps(WarpseekReranker(top_n=3, keep_retrieval_score=True)))
    assert (reranker.top_n, reranker.keep_retrieval_score) == (3, True)
    given = [NodeWithScore(node=TextNode(text="soup"))]
    assert len(reranker.postprocess_nodes(given, query_str="soup")) == 1


def test_ingestion_pipeline(tmp_path: Path) -> None:
    store = WarpseekVectorStore(tmp_path / "index")
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), MockEmbedding(8)],
        vector_store=store,
    )
    made = pipeline.run(documents=documents())
    assert sorted(one.node_id for one in store.get_nodes()) == sorted(one.node_id for one in made)


def test_reranker(tmp_path: Path) -> None:
    given = [
        NodeWithScore(node=TextNode(id_=f"{i}", text=text, metadata={"m": i}), score=0.1 * i)
        for i, text in enumerate(TEXTS)
    ]
    query_str = "how to cook soup"
    best = WarpseekReranker(top_n=2).postprocess_nodes(given, query_str=query_str)
    assert len(best) == 2
    assert best[0].node.node_id == "1"
    assert 0 <= (best[1].score or 0) <= (best[0].score or 0) <= 1
    assert [one.score for one in given] == [0.1 * i for i in range(4)]
    kept = WarpseekReranker(keep_retrieval_score=True).postprocess_nodes(given, query_str=query_str)
    assert kept[0].node.metadata == {"m": 1, "retrieval_score": 0.1}
    assert given[1].node.metadata == {"m": 1}
    assert len(kept) == 4
    assert WarpseekReranker().postprocess_nodes([], query_str=query_str) == []
    with pytest.raises(UsageError, match="query_str"):
        WarpseekReranker().postprocess_nodes(given)
    again = asyncio.run(WarpseekReranker(2).apostprocess_nodes(given, query_str=query_str))
    assert again == best
    assert best[0].node.get_content(metadata_mode=MetadataMode.EMBED).startswith("m: 1")
