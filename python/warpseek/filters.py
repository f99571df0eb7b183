"""Translation of dict filters to warpseek's filter text.

The dicts are those of Chroma, Pinecone, LangChain and MongoDB::

    to_filter({"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"tags": {"$contains": "x"}}]})
    # '("year" >= 2020 AND ("lang" = \\'en\\' OR "tags" CONTAINS \\'x\\'))'

Operators of a field:

| operator | passes |
| --- | --- |
| a plain value, `$eq` | values equal to it; `None`: documents without a value |
| `$ne` | all that `$eq` does not pass |
| `$gt`, `$gte`, `$lt`, `$lte`, `$between: [low, high]` | values in that order; both ends included |
| `$in`, `$nin` | values in the list, all others; an empty `$in` passes nothing |
| `$exists: True`, `False` | documents with a value, without one; null is no value |
| `$like`, `$ilike` | texts of a pattern: `%` any text, `_` a character; `$ilike` ignores case |
| `$text_match`, `$text_match_insensitive` | texts that hold this text, as it is written |
| `$contains`, `$not_contains` | arrays that hold the value, all others |
| `$not: {...}` | all that the inner operators do not pass |

`$and`, `$or`, `$nor` take lists of filters, `$not` a filter. Several fields in one dict, and
several operators of one field, are joined by AND.

Missing fields: a negation (`$ne`, `$nin`, `$not`, `$nor`, `$not_contains`) passes documents without
the field, as in MongoDB, Chroma and LlamaIndex. Everything else needs a value. Two kinds of values
pass neither a condition nor its negation: values that have no order with the operand (text beside
`{"$gt": 4}`; the search warns of them), and values that are no array beside `$contains`.

A field that no document of the index has is an error of the search, which names similar fields.
Values are compared by the type of the whole field (docs/filters.md): in a field of numbers, or of
texts that all are written as numbers, `"1.50"` equals 1.5. `$eq` and `$in` do not look into arrays:
`$contains` does.

Names: `a.b` is the member `b` of the object `a`, else the field of that whole name. `id`, `doc_id`
and `title` are those of the document, and `metadata.id` is the field. A name with a quote, a
backslash or NUL cannot be filtered.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from warpseek.errors import UsageError

__all__ = ["to_filter"]

#: Names of the fields that every document has, whatever its metadata.
_BUILT_IN = frozenset(["id", "doc_id", "title"])

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_FIELD_OPERATORS = (
    "$eq",
    "$ne",
    *_COMPARISONS,
    "$between",
    "$in",
    "$nin",
    "$exists",
    "$like",
    "$ilike",
    "$text_match",
    "$text_match_insensitive",
    "$contains",
    "$not_contains",
    "$not",
)

_JOINING_OPERATORS = ("$and", "$or", "$nor", "$not")

#: Levels of dicts. The filter text allows about as many parentheses.
_MAX_DEPTH = 32


def to_filter(where: str | Mapping[str, Any] | None, *, metadata_only: bool = False) -> str | None:
    """Translates a dict filter; filter text is returned as it is.

    Args:
        where: A dict filter, filter text, or None. An empty dict is no filter.
        metadata_only: True if `id`, `doc_id` and `title` are metadata fields, as stores mean that
            know no other fields; the id of the document is `document.id` in filter text.

    Returns:
        The filter text; None for no filter.

    Raises:
        UsageError: For an unknown operator, an operand that the operator does not take, and a name
            that cannot be filtered.
    """
    if where is None or isinstance(where, str):
        return where
    if not isinstance(where, Mapping):
        raise UsageError(
            f"a filter is a dict or filter text, not {_type_name(where)}; functions cannot be "
            "used, as the filter is evaluated inside of the index"
        )
    if not where:
        return None
    return _Translator(metadata_only).condition(where, False, 1)


class _Translator:
    """Translates dicts; negations are pushed down to the comparisons.

    SQL's NOT of a missing value passes nothing. With the negation at the comparison, the documents
    without a value are added there.
    """

    def __init__(self, metadata_only: bool) -> None:
        self._metadata_only = metadata_only

    def condition(self, where: Mapping[str, Any], negated: bool, depth: int) -> str:
        """The condition of a filter dict."""
        if depth > _MAX_DEPTH:
            raise UsageError(f"the filter is nested more than {_MAX_DEPTH} deep")
        if not where:
            raise UsageError("an empty dict inside a filter has no meaning: leave it out")
        parts = []
        for key, value in where.items():
            if not isinstance(key, str):
                raise UsageError(f"a filter names fields by text, not by {_type_name(key)}")
            if key.startswith("$"):
                parts.append(self._joined(key, value, negated, depth))
            else:
                parts.append(self._field(key, value, negated, depth))
        return _join("OR" if negated else "AND", parts)

    def _joined(self, operator: str, operand: Any, negated: bool, depth: int) -> str:
        """`$and`, `$or`, `$nor` and `$not` over whole filters."""
        if operator not in _JOINING_OPERATORS:
            if operator in _FIELD_OPERATORS:
                raise UsageError(
                    f"filter operator '{operator}' stands behind a field: "
                    f'{{"year": {{"{operator}": ...}}}}'
                )
            raise UsageError(
                _unknown(operator, _JOINING_OPERATORS)
                + f"; a field of that name is written 'metadata.{operator}'"
            )
        if operator == "$not":
            if not isinstance(operand, Mapping):
                raise UsageError(f"filter operator '$not' takes a dict, not {_type_name(operand)}")
            return self.condition(operand, not negated, depth + 1)
        if not isinstance(operand, (list, tuple)) or not operand:
            given = _type_name(operand) if operand else "an empty one"
            raise UsageError(f"filter operator '{operator}' takes a list of dicts, not {given}")
        negated ^= operator == "$nor"
        is_and = (operator == "$and") != negated
        parts = []
        for inner in operand:
            if not isinstance(inner, Mapping):
                raise UsageError(
                    f"filter operator '{operator}' takes a list of dicts, and one item is "
                    f"{_type_name(inner)}"
                )
            parts.append(self.condition(inner, negated, depth + 1))
        return _join("AND" if is_and else "OR", parts)

    def _field(self, name: str, value: Any, negated: bool, depth: int) -> str:
        """The condition for one field: a plain value, or a dict of operators."""
        field = self._quoted(name)
        if not isinstance(value, Mapping):
            return _comparison(name, field, "$eq", value, negated)
        if depth > _MAX_DEPTH:
            raise UsageError(f"the filter is nested more than {_MAX_DEPTH} deep")
        if not value:
            raise UsageError(f"filter field '{name}': an empty dict compares nothing")
        parts = []
        for operator, operand in value.items():
            if operator == "$not":
                if not isinstance(operand, Mapping):
                    raise UsageError(
                        f"filter field '{name}': '$not' takes a dict of operators, not "
                        f'{_type_name(operand)}; {{"$ne": value}} is all but a value'
                    )
                parts.append(self._field(name, operand, not negated, depth + 1))
            elif operator in _FIELD_OPERATORS:
                parts.append(_comparison(name, field, operator, operand, negated))
            elif isinstance(operator, str) and operator.startswith("$"):
                raise UsageError(f"filter field '{name}': {_unknown(operator, _FIELD_OPERATORS)}")
            else:
                raise UsageError(
                    f"filter field '{name}': {operator!r} is not an operator; the member of an "
                    f"object is written '{name}.{operator}'"
                )
        return _join("OR" if negated else "AND", parts)

    def _quoted(self, name: str) -> str:
        """The name as filter text. Quotes keep keywords and blanks from being read as such."""
        if not name:
            raise UsageError("a filter field has an empty name")
        for char, called in (('"', "a quote"), ("\\", "a backslash"), ("\0", "NUL")):
            if char in name:
                raise UsageError(f"field {name!r} cannot be filtered: its name holds {called}")
        _check_text(name, f"field {name!r} cannot be filtered: its name")
        parts = name.split(".")
        if self._metadata_only:
            behind = parts[1:] if parts[0] == "document" else parts
            if len(behind) == 1 and behind[0] in _BUILT_IN:
                parts.insert(0, "metadata")
        return ".".join(f'"{part}"' for part in parts)


def _comparison(name: str, field: str, operator: str, operand: Any, negated: bool) -> str:
    """The condition for one operator of a field that is no `$not`."""
    where = f"filter field '{name}': '{operator}'"
    if operator == "$ne":
        return _comparison(name, field, "$eq", operand, not negated)
    if operator == "$nin":
        return _membership(where, field, operand, not negated)
    if operator == "$not_contains":
        return _comparison(name, field, "$contains", operand, not negated)
    if operator == "$eq":
        if operand is None:
            return _existence(field, negated)
        return _leaf(
            f"{field} {'<>' if negated else '='} {_literal(where, operand)[1]}",
            field,
            negated,
            is_inverted=True,
        )
    if operator == "$in":
        return _membership(where, field, operand, negated)
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise UsageError(f"{where} takes True or False, not {_type_name(operand)}")
        return _existence(field, operand != negated)
    if operator in _COMPARISONS:
        literal = _ordered(where, operand)[1]
        return _leaf(f"{field} {_COMPARISONS[operator]} {literal}", field, negated)
    if operator == "$between":
        if not isinstance(operand, (list, tuple)) or len(operand) != 2:
            raise UsageError(f"{where} takes a list of two values, [low, high]")
        (low_kind, low), (high_kind, high) = (_ordered(where, end) for end in operand)
        if low_kind != high_kind:
            raise UsageError(
                f"{where} takes two values of one type, not {low_kind} and {high_kind}"
            )
        return _leaf(f"{field} BETWEEN {low} AND {high}", field, negated)
    if operator == "$contains":
        return _leaf(f"{field} CONTAINS {_literal(where, operand)[1]}", field, negated)
    if not isinstance(operand, str):
        raise UsageError(f"{where} takes text, not {_type_name(operand)}")
    like = "ILIKE" if operator in ("$ilike", "$text_match_insensitive") else "LIKE"
    if operator in ("$like", "$ilike"):
        return _leaf(f"{field} {like} {_literal(where, operand)[1]}", field, negated)
    escaped = operand.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    pattern = _literal(where, f"%{escaped}%")[1]
    return _leaf(f"{field} {like} {pattern} ESCAPE '!'", field, negated)


def _leaf(condition: str, field: str, negated: bool, *, is_inverted: bool = False) -> str:
    """A comparison, or its negation, which passes missing values too.

    `is_inverted`: the condition is the negated comparison already.
    """
    if not negated:
        return condition
    if not is_inverted:
        condition = f"NOT ({condition})"
    return f"({condition} OR {field} IS NULL)"


def _existence(field: str, exists: bool) -> str:
    return f"{field} IS NOT NULL" if exists else f"{field} IS NULL"


def _membership(where: str, field: str, operand: Any, negated: bool) -> str:
    """`$in`, or with `negated` all values that are not in the list."""
    if isinstance(operand, (str, bytes, Mapping)) or not isinstance(operand, Iterable):
        raise UsageError(f"{where} takes a list of values, not {_type_name(operand)}")
    has_null = False
    kinds: dict[str, dict[str, None]] = {}
    for value in operand:
        if value is None:
            has_null = True
            continue
        kind, literal = _literal(where, value)
        # A list has one type in filter text, and no value twice.
        kinds.setdefault(kind, {})[literal] = None
    inside = "NOT IN" if negated else "IN"
    parts = [f"{field} {inside} ({', '.join(literals)})" for literals in kinds.values()]
    if has_null:
        parts.append(_existence(field, negated))
    elif not parts:
        # Nothing is in an empty list. The field is looked up all the same.
        null, value = _existence(field, False), _existence(field, True)
        return f"({null} OR {value})" if negated else f"({null} AND {value})"
    if not negated:
        return _join("OR", parts)
    condition = _join("AND", parts)
    return condition if has_null else f"({condition} OR {field} IS NULL)"


def _ordered(where: str, value: Any) -> tuple[str, str]:
    """Kind and text of a literal that has an order."""
    if value is None or isinstance(value, bool):
        raise UsageError(f"{where} takes numbers, texts and times, not {value}")
    return _literal(where, value)


def _literal(where: str, value: Any) -> tuple[str, str]:
    """Kind and text of a literal; `where` begins the messages."""
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()  # A scalar of numpy.
    if isinstance(value, bool):
        return "a boolean", "TRUE" if value else "FALSE"
    if isinstance(value, str):
        text = str.__str__(value)
        _check_text(text, where)
        return "text", _quote(text)
    if isinstance(value, int):
        try:
            return "a number", int.__repr__(value)
        except ValueError as error:
            raise UsageError(f"{where}: the number has too many digits to be compared") from error
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{where}: {value} cannot be compared; NaN is a missing value")
        return "a number", float.__repr__(value)
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise UsageError(f"{where}: {value} cannot be compared; NaN is a missing value")
        return "a number", str(value)
    if isinstance(value, datetime.datetime):
        return "a time", f"TIMESTAMP {_quote(_timestamp(where, value))}"
    if isinstance(value, datetime.date):
        return "a time", f"DATE {_quote(value.isoformat())}"
    if isinstance(value, (list, tuple, set, frozenset)):
        raise UsageError(
            f'{where} takes one value, not a list; {{"$in": [...]}} is any value of a list, '
            '{"$contains": value} looks into arrays'
        )
    raise UsageError(
        f"{where} takes text, numbers, booleans, dates and times, not {_type_name(value)}"
    )


def _timestamp(where: str, value: datetime.datetime) -> str:
    """A time in the notation of filters, whose offsets have whole minutes below 19 hours."""
    if value != value:  # pandas.NaT
        raise UsageError(f"{where}: NaT cannot be compared; it is a missing value")
    offset = value.utcoffset()
    minute = datetime.timedelta(minutes=1)
    if offset is not None and (offset % minute or abs(offset) > 18 * 60 * minute):
        value = value.astimezone(datetime.timezone.utc)
    return value.isoformat()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check_text(text: str, where: str) -> None:
    """Refuses text that is not Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} holds a surrogate, which is no Unicode character") from error


def _join(operator: str, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({f' {operator} '.join(parts)})"


def _unknown(operator: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(operator.lower(), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"unknown filter operator '{operator}'; {hint}"


def _type_name(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
