"""LlamaIndex: nodes as records of an index, and its metadata filters.

A record has the metadata of its node, `ref_doc_id` unless the node has such a field itself, and the
object `_node`:

- `type`, `content`: the class and the JSON text of the node, without its text and vector, so that
  the node is read back as it was;
- `source`: `ref:` and the id of the source document. The prefix keeps ids that are written as
  numbers or dates from being compared as such;
- `empty`: the names of fields with an empty text or an empty list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.integrations._store import Record
from warpseek.results import Hit

#: Metadata field with what the node has beside metadata and text.
NODE_FIELD = "_node"
SOURCE_FIELD = f"{NODE_FIELD}.source"

#: Bytes of a list of ids. Filter text is limited to 32 KiB, and may hold two lists.
_MAX_LIST_BYTES = 12_000

_NODE_CLASSES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind
    for kind in (Node, TextNode, IndexNode, ImageNode, Document, ImageDocument)
}

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$text_match_insensitive",
}

_CONDITIONS = {
    FilterCondition.AND: "$and",
    FilterCondition.OR: "$or",
    FilterCondition.NOT: "$nor",
}


def to_record(node: BaseNode) -> Record:
    """The record of a node."""
    if NODE_FIELD in node.metadata:
        raise UsageError(
            f"node '{node.node_id}' has the metadata field '{NODE_FIELD}', which holds the node "
            "itself in an index: give it another name"
        )
    content = node.model_dump(mode="json", exclude={"embedding"})
    metadata = dict(content["metadata"])
    empty = [name for name, value in metadata.items() if value in ("", [])]
    if content.get("text"):
        content["text"] = ""
    if content.get("text_resource"):
        content["text_resource"]["text"] = None
    source = node.ref_doc_id
    if source is not None:
        metadata.setdefault("ref_doc_id", source)
    # A class that LlamaIndex does not know is read back as the one that it extends.
    names = (kind.class_name() for kind in type(node).__mro__ if issubclass(kind, BaseNode))
    metadata[NODE_FIELD] = {
        "type": next(name for name in names if name in _NODE_CLASSES),
        "content": json.dumps(content, ensure_ascii=False),
        "source": None if source is None else _source(source),
        "empty": empty,
    }
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return node.node_id, text, "", metadata


def to_node(hit: Hit) -> BaseNode:
    """The node of a hit. A document that is no node of LlamaIndex becomes a `TextNode`."""
    stored = hit.metadata.get(NODE_FIELD)
    if not isinstance(stored, dict) or "content" not in stored:
        metadata = dict(hit.metadata)
        if hit.title:
            metadata.setdefault("title", hit.title)
        return TextNode(id_=hit.id, text=hit.text, metadata=metadata)
    content = json.loads(stored["content"])
    if "text_resource" in content:
        content.pop("text", None)
        if content["text_resource"] is not None:
            content["text_resource"]["text"] = hit.text
    else:
        content["text"] = hit.text
    return _NODE_CLASSES[stored["type"]].from_dict(content)


def to_where(filters: MetadataFilters | None) -> str | None:
    """Filter text of metadata filters; None for none."""
    if filters is None or not filters.filters:
        return None
    return to_filter(_conditions(filters), metadata_only=True)


def _conditions(filters: MetadataFilters) -> dict[str, Any]:
    """The dict filter of metadata filters. NOT passes where none of them does."""
    operator = _CONDITIONS[filters.condition or FilterCondition.AND]
    return {
        operator: [
            _conditions(inner) if isinstance(inner, MetadataFilters) else _comparison(inner)
            for inner in filters.filters
        ]
    }


def _comparison(condition: MetadataFilter) -> dict[str, Any]:
    name, operator, value = condition.key, condition.operator, condition.value
    if operator == FilterOperator.IS_EMPTY:
        return {"$or": [{name: None}, {f"{NODE_FIELD}.empty": {"$contains": name}}]}
    if operator in (FilterOperator.ANY, FilterOperator.ALL):
        if not isinstance(value, list):
            raise UsageError(
                f"filter field '{name}': '{operator.value}' takes a list of values, not {value!r}"
            )
        is_all = operator == FilterOperator.ALL
        if not value:
            # Every array holds all values of an empty list, and none holds any of them.
            return {name: {"$exists": True} if is_all else {"$in": []}}
        return {"$and" if is_all else "$or": [{name: {"$contains": one}} for one in value]}
    return {name: {_OPERATORS[operator]: value}}


def of_sources(ref_doc_ids: Sequence[str]) -> list[str]:
    """Filters that pass the nodes of source documents, each within the limit of filter text."""
    return _lists(SOURCE_FIELD, [_source(id_) for id_ in ref_doc_ids])


def of_ids(node_ids: Sequence[str]) -> list[str]:
    """Filters that pass nodes by their ids, each within the limit of filter text."""
    return _lists("document.id", node_ids)


def _source(ref_doc_id: str) -> str:
    return f"ref:{ref_doc_id}"


def _lists(field: str, values: Sequence[str]) -> list[str]:
    lists: list[list[str]] = [[]]
    n_bytes = 0
    for value in dict.fromkeys(values):
        size = len(value.replace("'", "''").encode("utf-8", "surrogatepass")) + len("'', ")
        n_bytes += size
        if n_bytes > _MAX_LIST_BYTES and lists[-1]:
            lists.append([])
            n_bytes = size
        lists[-1].append(value)
    return [to_filter({field: {"$in": values}}) or "" for values in lists]


def joined(*filters: str | None) -> str | None:
    """The filters joined by AND; None for none."""
    present = [text for text in filters if text is not None]
    if len(present) < 2:
        return present[0] if present else None
    return " AND ".join(f"({text})" for text in present)
