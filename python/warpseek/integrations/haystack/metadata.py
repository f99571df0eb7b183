"""Methods of the document store that summarize metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from warpseek.results import Hit

from .records import meta_of

__all__ = ["MetadataMethods"]


class MetadataMethods(ABC):
    """Counts and lists the values of meta fields."""

    @abstractmethod
    def _hits(self, filters: dict[str, Any] | None, *, include_vectors: bool = False) -> list[Hit]:
        """Returns the hits of all documents that pass a filter."""

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Returns the number of distinct values of each field among the documents that pass."""
        names = [_own_name(field) for field in metadata_fields]
        values: dict[str, set[Any]] = {name: set() for name in names}
        for meta in self._metas(filters):
            for name in names:
                if meta.get(name) is not None:
                    values[name].add(_identity(meta[name]))
        return {name: len(seen) for name, seen in values.items()}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Returns the type of each meta field: `int`, `float`, `boolean` or `keyword`.

        A field of integers and floats is `float`; any other mixture is `keyword`.
        """
        types: dict[str, str] = {}
        for meta in self._metas(None):
            for name, value in meta.items():
                if value is None:
                    continue
                here = _type_name(value)
                before = types.setdefault(name, here)
                if before != here:
                    is_numeric = {before, here} == {"int", "float"}
                    types[name] = "float" if is_numeric else "keyword"
        return {name: {"type": kind} for name, kind in types.items()}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Returns the least and the greatest value of a field, or `None` without an order."""
        name = _own_name(metadata_field)
        found = (meta[name] for meta in self._metas(None) if meta.get(name) is not None)
        values = [value for value in found if not isinstance(value, (list, tuple, dict))]
        try:
            return {"min": min(values), "max": max(values)} if values else _NO_ORDER.copy()
        except TypeError:
            return _NO_ORDER.copy()

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """Returns a page of the distinct values of a field, and the number of all of them.

        Args:
            metadata_field: Name of the field, with or without `meta.`.
            search_term: Text that a value must contain, in any case.
            from_: Number of values before the page.
            size: Number of values of the page.
            filters: Filter of the documents.
        """
        if from_ < 0 or size < 0:
            raise ValueError(f"from_ and size must be at least 0, and are {from_} and {size}")
        name = _own_name(metadata_field)
        values: dict[Any, Any] = {}
        for meta in self._metas(filters):
            if (value := meta.get(name)) is not None:
                values.setdefault(_identity(value), value)
        term = (search_term or "").lower()
        found = [value for value in values.values() if term in str(value).lower()]
        found.sort(key=lambda value: (str(value), type(value).__name__))
        return found[from_ : from_ + size], len(found)

    def _metas(self, filters: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        for hit in self._hits(filters):
            yield meta_of(hit)


_NO_ORDER: dict[str, Any] = {"min": None, "max": None}


def _own_name(field: str) -> str:
    return field.removeprefix("meta.")


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "int"
        case float():
            return "float"
    return "keyword"


def _identity(value: Any) -> Any:
    """Returns a hashable key that differs for `1`, `1.0`, `True` and `"1"`."""
    match value:
        case list() | tuple():
            return type(value), tuple(_identity(item) for item in value)
        case dict():
            return dict, frozenset((name, _identity(item)) for name, item in value.items())
    return type(value), value
