"""Translation of Haystack's filters to filters of the index.

Haystack's conditions are either true or false: a field that a document lacks is `None`, equal to
`None` alone and unordered with anything. A condition of the index is unknown there. The
translation knows the fields of the index and the types of their values. It moves each `NOT` down
to the comparisons, writes those so that they are true exactly where Haystack's are, and decides
those that no document can meet (`True`: every document passes, `False`: none does).

    {"field": "meta.year", "operator": "!=", "value": 2020}
    ("year" IS NULL OR NOT ("year" = 2020))
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NoReturn

from haystack.errors import FilterError

from warpseek import Index, UsageError
from warpseek.filters import _quote

from .records import RESERVED, RESERVED_FLAGS

__all__ = [
    "Columns",
    "Condition",
    "Fields",
    "all_of",
    "count_of",
    "translate",
    "where_of",
]

#: A filter of the index; `True`: every document passes, `False`: none does.
Condition = str | bool

#: Number of values of each type by field, as `warpseek.Index.fields` returns it.
Fields = Mapping[str, Mapping[str, int]]

_LOGICAL = ("AND", "OR", "NOT")
_ORDERED = (">", ">=", "<", "<=")
_COMPARISONS = ("==", "!=", *_ORDERED, "in", "not in")
_BUILT_IN = ("id", "doc_id", "title")

#: Depth to which the index knows the types of members of objects.
_MAX_DEPTH = 4

#: ISO 8601 dates, with a time or without.
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)([.,]\d+)?)?([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)

#: Texts that the index reads as numbers.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")

#: Names of the index for fields of documents that are not metadata there.
Columns = Mapping[str, str]

STORE_COLUMNS: Columns = {"id": "document.id"}


def translate(
    filters: dict[str, Any] | None, fields: Fields, columns: Columns = STORE_COLUMNS
) -> Condition:
    """Returns the condition of the index for a filter.

    Args:
        filters: Filter of Haystack.
        fields: Fields of the index.
        columns: Fields that are columns of the index. Metadata of the same name goes before them.

    Raises:
        FilterError: If the filter is malformed or compares what has no order.
    """
    if not filters:
        return True
    return _node(filters, _Names(fields, columns), is_negated=False)


def all_of(conditions: list[Condition]) -> Condition:
    """Joins conditions with AND."""
    if False in conditions:
        return False
    texts = [condition for condition in conditions if isinstance(condition, str)]
    if len(texts) < 2:
        return texts[0] if texts else True
    return "(" + " AND ".join(texts) + ")"


def where_of(index: Index, condition: Condition) -> str | None:
    """Returns the `where` of a condition that some documents may pass.

    The documents that pass are looked up here, and the index remembers them for the search. So an
    error of the search is not one of the filter.

    Raises:
        FilterError: If the index refuses the condition.
    """
    if isinstance(condition, bool):
        return None
    count_of(index, condition)
    return condition


def count_of(index: Index, condition: Condition) -> int:
    """Returns the number of documents that pass a condition.

    Raises:
        FilterError: If the index refuses the condition.
    """
    if isinstance(condition, bool):
        return len(index) if condition else 0
    try:
        return index.count(condition)
    except UsageError as error:
        raise FilterError(str(error)) from error


def _any_of(conditions: list[Condition]) -> Condition:
    if True in conditions:
        return True
    texts = [condition for condition in conditions if isinstance(condition, str)]
    if len(texts) < 2:
        return texts[0] if texts else False
    return "(" + " OR ".join(texts) + ")"


def _node(node: Any, names: _Names, *, is_negated: bool) -> Condition:
    if not isinstance(node, Mapping):
        _refuse(f"a condition must be a dictionary, and {node!r} is none")
    if "field" in node:
        return _comparison(node, names, is_negated=is_negated)
    for key in ("operator", "conditions"):
        if key not in node:
            _refuse(f"'{key}' is missing in {dict(node)}")
    operator, conditions = node["operator"], node["conditions"]
    if operator not in _LOGICAL:
        _refuse(f"unknown logical operator {operator!r}: write one of {', '.join(_LOGICAL)}")
    if not isinstance(conditions, list):
        _refuse(f"'conditions' must be a list, and is {conditions!r}")
    # NOT (a AND b) is NOT a OR NOT b, and NOT (a OR b) is NOT a AND NOT b.
    is_inverted = is_negated != (operator == "NOT")
    inner = [_node(condition, names, is_negated=is_inverted) for condition in conditions]
    joins_all = (operator == "OR") == is_inverted
    return all_of(inner) if joins_all else _any_of(inner)


def _comparison(node: Mapping[str, Any], names: _Names, *, is_negated: bool) -> Condition:
    for key in ("operator", "value"):
        if key not in node:
            _refuse(f"'{key}' is missing in {dict(node)}")
    field, operator, value = node["field"], node["operator"], node["value"]
    if operator not in _COMPARISONS:
        _refuse(f"unknown operator {operator!r}: write one of {', '.join(_COMPARISONS)}")
    if not isinstance(field, str):
        _refuse(f"'field' must be a text, and is {field!r}")
    if operator in ("!=", "not in"):
        is_negated = not is_negated
    if "in" in operator and not isinstance(value, list):
        _refuse(f"operator '{operator}' takes a list, and field '{field}' got {value!r}")
    compared = _Field(field, *names.look_up(field))
    if operator in _ORDERED:
        return compared.order(operator, value, is_negated=is_negated)
    values = value if "in" in operator else [value]
    return compared.equal_to_any(values, is_negated=is_negated)


class _Names:
    """Names of fields in the index."""

    def __init__(self, fields: Fields, columns: Columns) -> None:
        self.fields = fields
        self.columns = columns

    def look_up(self, field: str) -> tuple[str, Mapping[str, int], bool]:
        """Returns the name of a field, the types of its values, and True for a column."""
        root, *path = field.split(".")
        is_metadata = root == "meta" and ".".join(path) in self.fields
        if field in self.columns and not is_metadata:
            return self.columns[field], {"texts": 1}, True
        if root == "meta" and path:
            return self._meta(field, path)
        if field in RESERVED_FLAGS:
            flag = RESERVED_FLAGS[field][0]
            counts = self.fields.get(f"{RESERVED}.{flag}", {})
            return f'"{RESERVED}"."{flag}"', counts, False
        if field in ("id", "meta", "score"):
            _refuse(f"field '{field}' cannot be compared here: compare members of 'meta'")
        if path:
            _refuse(f"field '{field}' is not one of a document: write 'meta.{field}'")
        return self._meta(field, [root])

    def _meta(self, field: str, path: list[str]) -> tuple[str, Mapping[str, int], bool]:
        for part in path:
            if not part or any(char in part for char in '"\\\0'):
                reason = "its name is empty, or holds a quote, a backslash or NUL"
                _refuse(f"field {field!r} cannot be filtered: {reason}")
        if path[0] == RESERVED:
            _refuse(f"field '{field}' is reserved for the store: compare other fields of meta")
        if len(path) > _MAX_DEPTH:
            _refuse(f"field '{field}' is nested too deeply: {_MAX_DEPTH} levels are filtered")
        known = ".".join(path)
        name = ".".join(f'"{part}"' for part in path)
        if path[0] in _BUILT_IN or path[0] == "document":
            if f"metadata.{known}" in self.fields:
                _refuse(f"field '{field}' cannot be told from 'meta.metadata.{known}'")
            name = "metadata." + name
        return name, self.fields.get(known, {}), False


class _Field:
    """A field of a comparison, with the types of its values in the index."""

    def __init__(self, field: str, name: str, counts: Mapping[str, int], is_column: bool) -> None:
        self.field = field
        self.name = name
        self.counts = counts
        self.is_column = is_column

    def n(self, *types: str) -> int:
        """Number of values of these types."""
        return sum(self.counts.get(name, 0) for name in types)

    @property
    def are_texts_times(self) -> bool:
        return 0 < self.n("texts") == self.n("dates", "times", "zoned_times")

    def equal_to_any(self, values: list[Any], *, is_negated: bool) -> Condition:
        """True where the field equals one of the values."""
        if self.field in RESERVED_FLAGS:
            return self._is_absent(values, is_negated=is_negated)
        texts, others = [], []
        for value in values:
            match value:
                case None:
                    continue
                case datetime() | date():
                    texts.append(value.isoformat())
                case bool() | int() | float():
                    others.append(self._equal(value))
                case str():
                    texts.append(value)
                case _:
                    kind = type(value).__name__
                    _refuse(f"field '{self.field}' is compared with a {kind}: give a plain value")
        equal = _any_of([*others, self._equal_to_any_text(texts)])
        is_null = f"{self.name} IS NULL" if self.counts else True
        if not is_negated:
            return _any_of([equal, is_null]) if None in values else equal
        differs = not equal if isinstance(equal, bool) else f"NOT ({equal})"
        if None not in values:
            # A comparison with a value that is missing is unknown, not false.
            return differs if isinstance(differs, bool) else _any_of([is_null, differs])
        return all_of([f"{self.name} IS NOT NULL" if self.counts else False, differs])

    def order(self, operator: str, value: Any, *, is_negated: bool) -> Condition:
        """True where the field has this order with the value."""
        if self.field in RESERVED_FLAGS or self.is_column:
            _refuse(f"field '{self.field}' has no order: compare it by '==' or '!='")
        literal, seen = self._ordered(operator, value)
        if literal is None or not self.counts:
            return is_negated
        if not self.n(*seen):
            if not self.n("texts", "numbers", "booleans", "arrays", "objects"):
                return is_negated
            _refuse(
                f"field '{self.field}' holds no value that has an order with {value!r}: numbers "
                "are compared with numbers, and ISO dates with dates"
            )
        condition = f"{self.name} {operator} {literal}"
        return f"({self.name} IS NULL OR NOT ({condition}))" if is_negated else condition

    def _ordered(self, operator: str, value: Any) -> tuple[str | None, tuple[str, ...]]:
        """Returns the literal of a value, and the types with which it has an order."""
        match value:
            case None:
                return None, ()
            case int() | float() if not isinstance(value, bool):
                return _number(self.field, value), ("numbers",)
            case datetime() | date():
                return f"TIMESTAMP {_quote(value.isoformat())}", ("dates", "times", "zoned_times")
            case str() if (time := _time(value)) is not None:
                return f"TIMESTAMP {_quote(time)}", ("dates", "times", "zoned_times")
            case _:
                _refuse(
                    f"operator '{operator}' of field '{self.field}' compares numbers and ISO "
                    f"dates, not {value!r}"
                )

    def _equal(self, value: bool | int | float) -> Condition:
        if isinstance(value, bool):
            return f"{self.name} = {str(value).upper()}" if self.n("booleans") else False
        literal = _number(self.field, value)
        return f"{self.name} = {literal}" if self.n("numbers") else False

    def _equal_to_any_text(self, values: list[str]) -> Condition:
        texts = self.n("texts")
        if not values or not texts:
            return False
        is_plain = not self.n("arrays", "objects")
        if is_plain and not self.n("numbers", "booleans") and self.are_texts_times:
            values = [time for time in map(_time, values) if time is not None]
        elif is_plain and not self.n("booleans") and self.n("numeric_texts") == texts:
            values = [value for value in values if _NUMBER.fullmatch(value)]
        elif is_plain and not self.n("numbers") and self.n("boolean_texts") == texts:
            values = [value for value in values if value.lower() in ("true", "false")]
        if not values:
            return False
        quoted = [_quote(value) for value in values]
        if len(quoted) == 1:
            return f"{self.name} = {quoted[0]}"
        return f"{self.name} IN ({', '.join(quoted)})"

    def _is_absent(self, values: list[Any], *, is_negated: bool) -> Condition:
        if values != [None]:
            message = f"field '{self.field}' can be compared with None alone"
            _refuse(f"{message}, by '==' or '!='")
        marks_presence = RESERVED_FLAGS[self.field][1]
        if not self.counts:
            return marks_presence != is_negated
        return f"{self.name} IS {'NOT ' if marks_presence == is_negated else ''}NULL"


def _number(field: str, value: int | float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(f"field '{field}' is compared with {value!r}: give a finite number, or None")
    return repr(value)


def _time(text: str) -> str | None:
    """Returns the ISO form of a text that is a full date, or a date and a time."""
    parts = _TIME.fullmatch(text)
    if parts is None:
        return None
    try:
        time = datetime(*(int(part or 0) for part in parts.groups()[:6]))  # type: ignore[arg-type]
    except ValueError:
        return None
    fraction = (parts[7] or "").replace(",", ".")
    offset = (parts[8] or "").upper().replace("Z", "+00:00").replace(":", "")
    if offset:
        offset = f"{offset[:3]}:{offset[3:] or '00'}"
    return time.isoformat() + fraction + offset


def _refuse(reason: str) -> NoReturn:
    raise FilterError(reason)
