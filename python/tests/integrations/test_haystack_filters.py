"""Filters of Haystack, held to Haystack's own evaluation of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from haystack import Document
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter

from warpseek.integrations.haystack import WarpseekDocumentStore
from warpseek.integrations.haystack.filters import translate

VALUES: dict[str, list[Any]] = {
    "n": [-3, 0, 1, 2, 2**62, None],
    "x": [-0.5, 0.0, 1.5, 2, 1e-5, 1e300, None],
    "s": ["a", "B", "it's", "", "100%", "a_b", '"q"', None],
    "digits": ["100", "90", "-1", "0.5", None],
    "day": ["2024-01-31", "1999-12-31", "2024-02-29", None],
    "time": ["2024-01-31T00:00:00", "2024-01-31T12:00:00.5", "1969-07-21T20:17:40", None],
    "flag": [True, False, None],
    "o.k": [1, 2, None],
    "o.p.q": ["deep", None],
    "id": ["meta id", "0"],
    "select": ["sql", None],
    "several words": [1, None],
    "unknown": [],
}
ORDERED = ("n", "x", "day", "time", "o.k", "several words", "unknown")


def make_documents(chance: random.Random, n: int) -> list[Document]:
    documents = []
    for i in range(n):
        meta: dict[str, Any] = {}
        for field, values in VALUES.items():
            if not values or chance.random() < 0.2:
                continue
            *path, last = field.split(".")
            inner = meta
            for name in path:
                inner = inner.setdefault(name, {})
            inner[last] = chance.choice(values)
        documents.append(Document(id=str(i), content=f"text {i}", meta=meta))
    return documents


def make_filter(chance: random.Random, depth: int) -> dict[str, Any]:
    if depth and chance.random() < 0.6:
        conditions = [make_filter(chance, depth - 1) for _ in range(chance.randrange(4))]
        return {"operator": chance.choice(["AND", "OR", "NOT"]), "conditions": conditions}
    field = chance.choice(list(VALUES))
    values = [*VALUES[field], None]
    odd = [1, "a", True, 2.5, "2024-01-31", "1"]
    operators = ["==", "!=", "in", "not in"]
    if field in ORDERED:
        operators += [">", ">=", "<", "<="]
    operator = chance.choice(operators)
    value: Any = chance.choice(values)
    if "in" in operator:
        value = [chance.choice(values + odd) for _ in range(chance.randrange(4))]
    elif operator in ("==", "!=") and chance.random() < 0.2:
        value = chance.choice(odd)
    return {"field": f"meta.{field}", "operator": operator, "value": value}


def has_odd_kinds(node: dict[str, Any]) -> bool:
    """True where Python's `True == 1` decides, which the store does not follow."""
    if "conditions" in node:
        return any(map(has_odd_kinds, node["conditions"]))
    values = node["value"] if isinstance(node["value"], list) else [node["value"]]
    kinds = {type(value) for value in [*values, *VALUES[node["field"].removeprefix("meta.")]]}
    return bool in kinds and bool(kinds & {int, float})


def test_random_filters(tmp_path: Path) -> None:
    chance = random.Random(11)
    store = WarpseekDocumentStore(str(tmp_path / "store"), embedding_dim=2)
    documents = make_documents(chance, 60)
    store.write_documents(documents)
    compared, sizes = 0, set()
    while compared < 600:
        filters = make_filter(chance, 3)
        if has_odd_kinds(filters):
            continue
        wanted = [d.id for d in documents if document_matches_filter(filters, d)]
        assert [d.id for d in store.filter_documents(filters)] == wanted, filters
        compared += 1
        sizes.add(len(wanted))
    assert len(sizes) > 20
    store.close()


MALFORMED: list[Any] = [
    {"field": "meta.n", "operator": "~", "value": 1},
    {"field": "meta.n", "operator": "AND", "value": 1},
    {"field": "meta.n", "operator": "==", "value": {"a": 1}},
    {"field": "meta.n", "operator": "==", "value": [1]},
    {"field": "meta.n", "operator": "in", "value": 1},
    {"field": "meta.n", "operator": "in", "value": "abc"},
    {"field": "meta.n", "operator": "in", "value": [[1]]},
    {"field": "meta.n", "operator": ">", "value": [1]},
    {"field": "meta.n", "operator": ">", "value": True},
    {"field": "meta.n", "operator": ">", "value": "1"},
    {"field": "meta.n", "operator": ">", "value": "2024-01-31"},
    {"field": "meta.n", "operator": ">", "value": float("nan")},
    {"field": "meta.n", "operator": "==", "value": float("inf")},
    {"field": "meta.s", "operator": ">", "value": "a"},
    {"field": "meta.s", "operator": ">", "value": 1},
    {"field": "meta.day", "operator": ">", "value": "2024"},
    {"field": "meta.day", "operator": ">", "value": "2024-13-01"},
    {"field": "meta.day", "operator": ">", "value": "2024-01-31T25:00"},
    {"field": "meta.day", "operator": ">", "value": "31 January 2024"},
    {"field": "meta.flag", "operator": "<", "value": 1},
    {"field": "meta.", "operator": "==", "value": 1},
    {"field": "meta.a\0b", "operator": "==", "value": 1},
    {"field": 'meta.a"b', "operator": "==", "value": 1},
    {"field": "meta.a.b.c.d.e", "operator": "==", "value": 1},
    {"field": "meta._haystack.norm", "operator": "==", "value": 1},
    {"field": "meta", "operator": "==", "value": None},
    {"field": "score", "operator": ">", "value": 0.5},
    {"field": "content", "operator": "==", "value": "text 1"},
    {"field": "content", "operator": ">", "value": "text 1"},
    {"field": "embedding", "operator": "in", "value": [None, 1]},
    {"field": "id", "operator": ">", "value": "1"},
    {"field": "person.name", "operator": "==", "value": "x"},
    {"field": 1, "operator": "==", "value": "x"},
    {"operator": "XOR", "conditions": []},
    {"operator": "and", "conditions": []},
    {"operator": "AND", "conditions": {}},
    {"operator": "AND", "conditions": ["x"]},
    {"operator": "AND"},
    {"conditions": []},
    ["x"],
    "n = 1",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = str(tmp_path_factory.mktemp("haystack") / "store")
    store = WarpseekDocumentStore(path, embedding_dim=2)
    store.write_documents(make_documents(random.Random(2), 40))
    yield store
    store.close()


@pytest.mark.parametrize("filters", MALFORMED, ids=str)
def test_malformed_filters_are_refused(filled: WarpseekDocumentStore, filters: Any) -> None:
    with pytest.raises(FilterError):
        filled.filter_documents(filters)
    with pytest.raises(FilterError):
        filled.embedding_retrieval([1.0, 0.0], filters=filters)
    with pytest.raises(FilterError):
        filled.delete_by_filter(filters)
    assert filled.count_documents() == 40


def test_too_long_a_filter_is_refused(filled: WarpseekDocumentStore) -> None:
    filters = {"field": "id", "operator": "in", "value": [f"{i:040}" for i in range(2000)]}
    with pytest.raises(FilterError, match="bytes"):
        filled.filter_documents(filters)


def test_filter_by_id(filled: WarpseekDocumentStore) -> None:
    def ids(operator: str, value: Any) -> list[str]:
        filters = {"field": "id", "operator": operator, "value": value}
        return [d.id for d in filled.filter_documents(filters)]

    assert ids("==", "7") == ["7"]
    assert ids("in", ["7", "39", "x"]) == ["7", "39"]
    assert len(ids("not in", ["7", "39", "x"])) == 38
    assert ids("==", None) == []
    assert ids("==", 7) == []


def test_dates(tmp_path: Path) -> None:
    from datetime import date, datetime, timezone

    store = WarpseekDocumentStore(str(tmp_path / "store"), embedding_dim=2)
    times = [datetime(2024, 1, day, 12, tzinfo=timezone.utc) for day in range(1, 6)]
    store.write_documents(
        [
            Document(id=str(i), content="a", meta={"t": time, "d": time.date()})
            for i, time in enumerate(times)
        ]
    )

    def ids(field: str, operator: str, value: Any) -> list[str]:
        filters = {"field": field, "operator": operator, "value": value}
        return [d.id for d in store.filter_documents(filters)]

    assert ids("meta.t", ">", times[2]) == ["3", "4"]
    assert ids("meta.t", "==", times[2]) == ["2"]
    assert ids("meta.t", "==", "2024-01-03T13:00:00+01:00") == ["2"]
    assert ids("meta.t", "<=", "2024-01-03T12:00:00Z") == ["0", "1", "2"]
    assert ids("meta.t", ">", "2024-01-04 13:59:59,5+0200") == ["3", "4"]
    assert ids("meta.t", ">", "2024-01-04T14:00+02") == ["4"]
    assert ids("meta.d", ">=", date(2024, 1, 4)) == ["3", "4"]
    assert ids("meta.d", "in", ["2024-01-04", date(2024, 1, 1)]) == ["0", "3"]
    assert ids("meta.d", "!=", "2024-01-04") == ["0", "1", "2", "4"]


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        (None, True),
        ({}, True),
        ({"field": "meta.y", "operator": "!=", "value": 1}, '("y" IS NULL OR NOT ("y" = 1))'),
        ({"field": "y", "operator": ">=", "value": 1.5}, '"y" >= 1.5'),
        ({"field": "meta.new", "operator": "==", "value": 1}, False),
        ({"field": "meta.new", "operator": "==", "value": None}, True),
        ({"field": "meta.t", "operator": "in", "value": ["it's"]}, "\"t\" = 'it''s'"),
        ({"operator": "AND", "conditions": []}, True),
        ({"operator": "OR", "conditions": []}, False),
        ({"operator": "NOT", "conditions": []}, False),
    ],
)
def test_translation(filters: Any, condition: Any) -> None:
    assert translate(filters, {"y": {"numbers": 2}, "t": {"texts": 1}}) == condition
