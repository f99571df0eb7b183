"""Dict filters: their translation, and what passes them in an index."""

from __future__ import annotations

import datetime as dt
import enum
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpseek import Index
from warpseek.errors import UsageError
from warpseek.filters import to_filter

UTC = dt.timezone.utc


class Color(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, None),
        ({}, None),
        ("year > 2000", "year > 2000"),
        ({"year": 2020}, '"year" = 2020'),
        ({"year": {"$eq": 2020}}, '"year" = 2020'),
        ({"year": {"$gte": 2020, "$lt": 2024}}, '("year" >= 2020 AND "year" < 2024)'),
        ({"a": 1, "b": "x"}, '("a" = 1 AND "b" = \'x\')'),
        ({"a": "it's"}, "\"a\" = 'it''s'"),
        ({"a": True}, '"a" = TRUE'),
        ({"a": np.bool_(False)}, '"a" = FALSE'),
        ({"a": np.int64(7)}, '"a" = 7'),
        ({"a": np.float64(0.1)}, '"a" = 0.1'),
        ({"a": -1e-05}, '"a" = -1e-05'),
        ({"a": Decimal("19.90")}, '"a" = 19.90'),
        ({"a": Color.RED}, "\"a\" = 'red'"),
        ({"a": Level.HIGH}, '"a" = 3'),
        ({"a": dt.date(2024, 1, 31)}, "\"a\" = DATE '2024-01-31'"),
        (
            {"a": {"$lt": dt.datetime(2024, 1, 31, 12, 0, 0, 500000)}},
            "\"a\" < TIMESTAMP '2024-01-31T12:00:00.500000'",
        ),
        (
            {"a": dt.datetime(2024, 1, 31, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))},
            "\"a\" = TIMESTAMP '2024-01-31T12:00:00+02:00'",
        ),
        # Offsets with seconds, and beyond those of filter text, are brought to UTC.
        (
            {"a": dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=75)))},
            "\"a\" = TIMESTAMP '1899-12-31T23:58:45+00:00'",
        ),
        (
            {"a": dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-23)))},
            "\"a\" = TIMESTAMP '2000-01-01T23:00:00+00:00'",
        ),
        ({"a": None}, '"a" IS NULL'),
        ({"a": {"$ne": None}}, '"a" IS NOT NULL'),
        ({"a": {"$ne": 1}}, '("a" <> 1 OR "a" IS NULL)'),
        ({"a": {"$not": {"$ne": 1}}}, '"a" = 1'),
        ({"a": {"$in": [1, 2, 2]}}, '"a" IN (1, 2)'),
        ({"a": {"$in": (1, "x")}}, '("a" IN (1) OR "a" IN (\'x\'))'),
        ({"a": {"$in": [1, None]}}, '("a" IN (1) OR "a" IS NULL)'),
        ({"a": {"$in": []}}, '("a" IS NULL AND "a" IS NOT NULL)'),
        ({"a": {"$nin": []}}, '("a" IS NULL OR "a" IS NOT NULL)'),
        ({"a": {"$nin": [1]}}, '("a" NOT IN (1) OR "a" IS NULL)'),
        ({"a": {"$nin": [1, None]}}, '("a" NOT IN (1) AND "a" IS NOT NULL)'),
        ({"a": {"$exists": True}}, '"a" IS NOT NULL'),
        ({"a": {"$exists": False}}, '"a" IS NULL'),
        ({"a": {"$between": [1, 2.5]}}, '"a" BETWEEN 1 AND 2.5'),
        ({"a": {"$like": "x%"}}, "\"a\" LIKE 'x%'"),
        ({"a": {"$ilike": "x_"}}, "\"a\" ILIKE 'x_'"),
        ({"a": {"$text_match": "50%_!"}}, "\"a\" LIKE '%50!%!_!!%' ESCAPE '!'"),
        ({"a": {"$text_match_insensitive": "x"}}, "\"a\" ILIKE '%x%' ESCAPE '!'"),
        ({"a": {"$contains": "x"}}, "\"a\" CONTAINS 'x'"),
        ({"a": {"$not_contains": "x"}}, '(NOT ("a" CONTAINS \'x\') OR "a" IS NULL)'),
        ({"a": {"$not": {"$gt": 1}}}, '(NOT ("a" > 1) OR "a" IS NULL)'),
        ({"$and": [{"a": 1}, {"$or": [{"b": 2}, {"c": 3}]}]}, '("a" = 1 AND ("b" = 2 OR "c" = 3))'),
        (
            {"$not": {"$or": [{"a": {"$ne": 1}}, {"b": {"$lt": 2}}]}},
            '("a" = 1 AND (NOT ("b" < 2) OR "b" IS NULL))',
        ),
        ({"$nor": [{"a": {"$ne": 1}}, {"b": {"$ne": 2}}]}, '("a" = 1 AND "b" = 2)'),
        ({"o.a": 1}, '"o"."a" = 1'),
        ({"id": "x"}, "\"id\" = 'x'"),
        ({"metadata.$price": 1}, '"metadata"."$price" = 1'),
    ],
)
def test_translation(where: Any, expected: str | None) -> None:
    assert to_filter(where) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", '"metadata"."id" = 1'),
        ("title", '"metadata"."title" = 1'),
        ("document.id", '"metadata"."document"."id" = 1'),
        ("year", '"year" = 1'),
        ("o.id", '"o"."id" = 1'),
    ],
)
def test_metadata_only_names_no_field_of_the_document(name: str, expected: str) -> None:
    assert to_filter({name: 1}, metadata_only=True) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": {"$gtt": 1}}, r"'\$gtt'; did you mean \$gt"),
        ({"a": {"$regex": "x"}}, r"unknown filter operator '\$regex'"),
        ({"$xor": [{"a": 1}]}, r"'\$xor'; did you mean \$or"),
        ({"$gt": 1}, r"'\$gt' stands behind a field"),
        ({"a": {"b": 1}}, r"the member of an object is written 'a\.b'"),
        ({"a": {}}, "an empty dict"),
        ({"$and": []}, r"'\$and' takes a list of dicts, not an empty one"),
        ({"$or": {"a": 1}}, r"'\$or' takes a list of dicts"),
        ({"$or": [1]}, "one item is a value of type int"),
        ({"$or": [{}]}, "an empty dict"),
        ({"$not": [{"a": 1}]}, r"'\$not' takes a dict"),
        ({"a": {"$not": 1}}, r"\$ne"),
        ({"a": [1, 2]}, r"\$in"),
        ({"a": {"$in": "xyz"}}, "takes a list"),
        ({"a": {"$in": 1}}, "takes a list"),
        ({"a": {"$gt": None}}, "takes numbers, texts and times, not None"),
        ({"a": {"$gt": True}}, "not True"),
        ({"a": {"$between": [1]}}, "two values"),
        ({"a": {"$between": [1, "x"]}}, "one type, not a number and text"),
        ({"a": {"$exists": 1}}, "True or False"),
        ({"a": {"$like": 1}}, "takes text"),
        ({"a": float("nan")}, "NaN is a missing value"),
        ({"a": float("inf")}, "inf cannot be compared"),
        ({"a": b"x"}, "not a value of type bytes"),
        ({"a": dt.time(12)}, "not a value of type time"),
        ({"a": "\ud800"}, "surrogate"),
        ({'say "x"': 1}, "holds a quote"),
        ({"a\\b": 1}, "backslash"),
        ({"a\0b": 1}, "NUL"),
        ({"": 1}, "empty name"),
        ({1: 1}, "by text"),
        ([{"a": 1}], "a dict or filter text"),
        (lambda document: True, "functions cannot be used"),
    ],
)
def test_refusals(where: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_filter(where)


def test_recursive_dict_is_refused() -> None:
    where: dict[str, Any] = {}
    where["$not"] = where
    with pytest.raises(UsageError, match="deep"):
        to_filter(where)
    where = {"$not": {}}
    where["$not"]["a"] = where["$not"]
    with pytest.raises(UsageError):
        to_filter(where)


# What passes in an index, beside an oracle in Python.

LANGUAGES = ["en", "de", "it's", "50%", "fr_", "'"]
NAMES = ["order", "select", "weird name", "x.y", "ключ", "a-b", "true", "$cost", "date", "[0]"]


def records() -> list[dict[str, Any]]:
    """Documents of all types of values; every field misses in some."""
    chance = random.Random(1)

    def some(value: Any) -> Any:
        return value if chance.random() < 0.8 else None

    made = []
    for i in range(60):
        metadata = {
            "year": some(chance.randrange(2018, 2026)),
            "price": some(chance.randrange(-8, 8) / 4),
            "lang": some(chance.choice(LANGUAGES)),
            "flag": some(chance.random() < 0.5),
            "tags": some(chance.sample(["x", "y", "it's", "2020"], chance.randrange(4))),
            "sizes": some(chance.sample([1, 2, 2.5], chance.randrange(3))),
            "day": some((dt.date(2024, 1, 1) + dt.timedelta(days=chance.randrange(9))).isoformat()),
            "when": some(dt.datetime(2024, 1, 1, chance.randrange(24), tzinfo=UTC).isoformat()),
            "o": {"a": chance.randrange(3)} if chance.random() < 0.7 else {},
            "mixed": some(chance.choice([1, 2, "1", "b", True, [1]])),
            "id": chance.randrange(5),
            **{name: some(chance.randrange(3)) for name in NAMES},
        }
        present = {name: value for name, value in metadata.items() if value is not None}
        if chance.random() < 0.3:
            present["lang"] = None
        made.append({"id": f"d{i}", "text": "", "metadata": present})
    return made


RECORDS = records()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    path: Path = tmp_path_factory.mktemp("filters") / "index"
    with Index.create(path, model=None, dim=4) as index:
        vectors = np.eye(4, dtype=np.float32)[np.arange(len(RECORDS)) % 4]
        index.add(RECORDS, vectors=vectors, metadata=lambda record: record["metadata"])
        yield index


def value_of(metadata: dict[str, Any], name: str) -> Any:
    name = name.removeprefix("metadata.")
    if name in metadata:
        return metadata[name]
    value: Any = metadata
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def as_stored(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value


def leaf(value: Any, operator: str, operand: Any) -> bool | None:
    """True, False, or None where neither a condition nor its negation holds."""
    if operator == "$exists":
        return (value is not None) == operand
    if operator in ("$eq", "$in"):
        operands = operand if operator == "$in" else [operand]
        operands = [as_stored(one) for one in operands]
        if value is None:
            return None in operands
        return any(kind(value) == kind(one) and value == one for one in operands)
    if value is None:
        return False
    if operator == "$contains":
        if not isinstance(value, list):
            return None
        return any(kind(one) == kind(operand) and one == operand for one in value)
    if operator == "$between":
        low, high = map(as_stored, operand)
        return low <= value <= high if kind(value) == kind(low) else None
    operand = as_stored(operand)
    if kind(value) != kind(operand):
        return None
    if operator == "$text_match":
        return operand in value
    if operator == "$text_match_insensitive":
        return operand.lower() in value.lower()
    return {
        "$gt": value > operand,
        "$gte": value >= operand,
        "$lt": value < operand,
        "$lte": value <= operand,
    }[operator]


NEGATIONS = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}


def passes(metadata: dict[str, Any], where: dict[str, Any], negated: bool = False) -> bool:
    join = any if negated else all
    return join(passes_one(metadata, key, value, negated) for key, value in where.items())


def passes_one(metadata: dict[str, Any], key: str, value: Any, negated: bool) -> bool:
    if key == "$not":
        return passes(metadata, value, not negated)
    if key in ("$and", "$or", "$nor"):
        negated ^= key == "$nor"
        join = all if (key == "$and") != negated else any
        return join(passes(metadata, inner, negated) for inner in value)
    if not isinstance(value, dict):
        value = {"$eq": value}
    results = []
    for operator, operand in value.items():
        if operator == "$not":
            results.append(passes_one(metadata, key, operand, not negated))
            continue
        inverted = negated != (operator in NEGATIONS)
        result = leaf(value_of(metadata, key), NEGATIONS.get(operator, operator), operand)
        results.append(False if result is None else result != inverted)
    return (any if negated else all)(results)


def random_condition(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth < 3 and chance.random() < 0.45:
        operator = chance.choice(["$and", "$or", "$nor", "$not"])
        if operator == "$not":
            return {"$not": random_condition(chance, depth + 1)}
        many = range(chance.randrange(1, 4))
        return {operator: [random_condition(chance, depth + 1) for _ in many]}
    values: dict[str, Any] = {
        "year": lambda: chance.randrange(2017, 2027),
        "price": lambda: chance.choice([chance.randrange(-8, 8) / 4, Decimal("0.50"), 1]),
        "lang": lambda: chance.choice(LANGUAGES),
        "o.a": lambda: chance.randrange(3),
        "metadata.id": lambda: chance.randrange(5),
        "day": lambda: dt.date(2024, 1, 1) + dt.timedelta(days=chance.randrange(9)),
        "when": lambda: dt.datetime(2024, 1, 1, chance.randrange(24), tzinfo=UTC),
        "mixed": lambda: chance.choice([1, 2, "1", "b"]),
        **{name: (lambda: chance.randrange(3)) for name in NAMES if not name.startswith("$")},
        "metadata.$cost": lambda: chance.randrange(3),
    }
    name = chance.choice([*values, "flag", "tags", "sizes"])
    if name == "flag":
        return {name: {chance.choice(["$eq", "$ne"]): chance.random() < 0.5}}
    if name in ("tags", "sizes"):
        value = chance.choice(["x", "it's", "2020", "q"] if name == "tags" else [1, 2.5, 9])
        return {name: {chance.choice(["$contains", "$not_contains"]): value}}
    make = values[name]
    operator = chance.choice(
        [
            "plain",
            "$eq",
            "$ne",
            "$gt",
            "$gte",
            "$lt",
            "$lte",
            "$in",
            "$nin",
            "$exists",
            "$between",
            "$not",
            "$text_match",
        ]
    )
    if operator == "plain":
        return {name: chance.choice([make(), None])}
    if operator == "$exists":
        return {name: {operator: chance.random() < 0.5}}
    if operator in ("$in", "$nin"):
        nulls = [None] if chance.random() < 0.2 else []
        return {name: {operator: [make() for _ in range(chance.randrange(4))] + nulls}}
    if operator == "$between":
        low, high = make(), make()
        if type(low) is not type(high):
            low, high = 1, 2
        return {name: {operator: [low, high]}}
    if operator == "$text_match":
        return {"lang": {operator: chance.choice(["e", "%", "_", "'", ""])}}
    if operator == "$not":
        return {name: {"$not": {chance.choice(["$gt", "$eq", "$ne"]): make()}}}
    return {name: {operator: make()}}


def float_decimals(where: Any) -> Any:
    """The filter with floats in place of decimals, for the oracle."""
    if isinstance(where, dict):
        return {key: float_decimals(value) for key, value in where.items()}
    if isinstance(where, list):
        return [float_decimals(value) for value in where]
    return float(where) if isinstance(where, Decimal) else where


def test_filters_pass_what_the_oracle_passes(index: Index) -> None:
    chance = random.Random(7)
    n_empty = 0
    for _ in range(600):
        where = random_condition(chance)
        expected = {
            record["id"] for record in RECORDS if passes(record["metadata"], float_decimals(where))
        }
        found = {hit.id for hit in index.get(where=where)}
        assert found == expected, (where, to_filter(where))
        n_empty += not expected
    assert n_empty < 300


def test_unknown_field_is_an_error_that_names_similar_ones(index: Index) -> None:
    with pytest.raises(UsageError, match="did you mean year"):
        index.get(where={"yeer": 2020})


def test_dict_of_the_documents_id(index: Index) -> None:
    text = to_filter({"document.id": {"$in": ["d3", "d5"]}})
    assert {hit.id for hit in index.get(where=text)} == {"d3", "d5"}
