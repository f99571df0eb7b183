"""The retriever over an index that warpseek made itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline
from haystack.components.retrievers import MultiQueryTextRetriever
from haystack.errors import FilterError

from warpseek import Index, IndexNotFoundError, UsageError
from warpseek.integrations.haystack import WarpseekDocumentStore, WarpseekIndexRetriever

RECORDS: list[dict[str, Any]] = [
    {
        "id": "pump",
        "title": "Heat pumps",
        "text": "A heat pump moves heat from the air outside into the house. " * 12,
        "year": 2020,
        "tags": {"field": "physics"},
    },
    {"id": "plant", "title": "", "text": "Photosynthesis turns light into sugar.", "year": 2021},
    {"id": "violin", "title": "Music", "text": "The orchestra tuned its violins.", "year": 2022},
    {"id": "bread", "title": "Baking", "text": "Sourdough needs flour and water.", "year": None},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("haystack") / "index")
    chunks = {"split_records": True, "chunk_tokens": 40, "chunk_overlap": 4}
    with Index.create(path, **chunks) as index:
        index.add(RECORDS)
    return path


def found(path: str, query: str, filters: Any = None, **options: Any) -> list[Any]:
    retriever = WarpseekIndexRetriever(path, **options)
    documents: list[Any] = retriever.run(query, filters)["documents"]
    retriever.close()
    return documents


def test_documents_are_the_hits(path: str) -> None:
    for options in [
        {},
        {"rerank": False},
        {"rerank": False, "hybrid": True},
        {"rerank": True, "rerank_depth": 2, "retriever_weight": 0.0},
        {"rerank": False, "max_per_doc": 1, "mmr": 0.7},
        {"rerank": False, "min_score": 0.2},
    ]:
        documents = found(path, "how is a home kept warm", top_k=6, **options)
        with Index.open(path) as index:
            hits = list(index.search("how is a home kept warm", 6, **options))
        assert [d.id for d in documents] == [hit.id for hit in hits], options
        assert [d.content for d in documents] == [hit.text for hit in hits]
        assert [d.score for d in documents] == [hit.final_score for hit in hits]
        assert documents[0].meta == {
            "doc_id": "pump",
            "title": "Heat pumps",
            "year": 2020,
            "tags": {"field": "physics"},
        }


@pytest.mark.parametrize(
    ("field", "operator", "value", "wanted"),
    [
        ("meta.year", ">=", 2021, {"plant", "violin"}),
        ("meta.year", "==", None, {"bread"}),
        ("meta.year", "!=", 2020, {"plant", "violin", "bread"}),
        ("meta.title", "==", "Music", {"violin"}),
        ("meta.title", "in", ["Music", "Baking"], {"violin", "bread"}),
        ("meta.doc_id", "not in", ["pump", "bread"], {"plant", "violin"}),
        ("meta.tags.field", "==", "physics", {"pump"}),
        ("meta.unknown", "==", 1, set()),
        ("content", "!=", None, {"pump", "plant", "violin", "bread"}),
    ],
)
def test_filters(path: str, field: str, operator: str, value: Any, wanted: set[str]) -> None:
    filters = {"field": field, "operator": operator, "value": value}
    documents = found(path, "anything", filters, top_k=20)
    assert {d.meta["doc_id"] for d in documents} == wanted


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "id", "operator": "==", "value": "pump"},
        {"field": "meta.title", "operator": ">", "value": 1},
        {"field": "meta.year", "operator": ">", "value": "recent"},
        {"operator": "AND"},
    ],
)
def test_odd_filters_are_refused(path: str, filters: Any) -> None:
    with pytest.raises(FilterError):
        found(path, "anything", filters)


def test_pipeline(path: str) -> None:
    pipeline = Pipeline()
    retriever = WarpseekIndexRetriever(path, top_k=3, rerank=False, filter_policy="merge")
    pipeline.add_component("retriever", retriever)
    inputs = {"retriever": {"query": "musical instruments"}}
    first = pipeline.run(inputs)["retriever"]["documents"]
    assert first[0].meta["doc_id"] == "violin"
    text = pipeline.dumps()
    again = Pipeline.loads(text, allowed_modules=["warpseek.*"])
    assert again.dumps() == text
    assert again.run(inputs)["retriever"]["documents"] == first
    several = asyncio.run(retriever.run_async("musical instruments"))["documents"]
    assert several == first


def test_haystacks_own_components(path: str) -> None:
    retriever = MultiQueryTextRetriever(retriever=WarpseekIndexRetriever(path, top_k=1))
    documents = retriever.run(queries=["musical instruments", "baking"])["documents"]
    assert {d.meta["doc_id"] for d in documents} == {"violin", "bread"}


def test_changes_are_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    with Index.create(path) as index:
        retriever = WarpseekIndexRetriever(path, rerank=False)
        assert retriever.run("violin")["documents"] == []
        index.add([{"id": "1", "text": "a violin"}])
        assert [d.id for d in retriever.run("violin")["documents"]] == ["1"]


def test_what_cannot_be_done_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="query"):
        found(path, " ")
    with pytest.raises(ValueError, match="top_k"):
        WarpseekIndexRetriever(path, top_k=0)
    with pytest.raises(IndexNotFoundError):
        found(str(tmp_path / "nothing"), "a")
    for filters in (None, {"field": "meta.year", "operator": ">", "value": 2020}):
        with pytest.raises(UsageError, match="MMR"):
            found(path, "a", filters, mmr=2.0)
        with pytest.raises(UsageError, match="top_k"):
            WarpseekIndexRetriever(path, filters=filters).run("a", top_k=0)
    with pytest.raises(ValueError, match="WarpseekIndexRetriever searches it"):
        WarpseekDocumentStore(path).count_documents()
