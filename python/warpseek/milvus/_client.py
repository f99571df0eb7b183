"""The connection to Milvus, and what export and import share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from warpseek._arguments import at_least
from warpseek.errors import RemoteError, UsageError

# Rows of an answer.
_MOST_ROWS = 16_384

# The fields of a collection that export_index makes, but for the vectors.
FIELDS = ("id", "row", "doc_id", "title", "text", "metadata")


@contextlib.contextmanager
def connected(uri: str, token: str, db_name: str) -> Iterator[Any]:
    """A client, whose errors are exceptions of warpseek."""
    try:
        import pymilvus
    except ImportError:
        raise UsageError("warpseek.milvus needs pymilvus: pip install pymilvus") from None
    try:
        client = pymilvus.MilvusClient(uri, token=token, db_name=db_name)
        with contextlib.closing(client):
            yield client
    except pymilvus.MilvusException as error:
        raise RemoteError(f"Milvus at {uri}: {error.message}") from None


def check_batch(batch_size: int) -> None:
    """Refuses a number of rows that no answer holds."""
    at_least(1, batch_size=batch_size)
    if batch_size > _MOST_ROWS:
        raise UsageError(f"batch_size is {batch_size}: Milvus answers with at most {_MOST_ROWS:,}")


def n_rows(client: Any, collection: str) -> int:
    """The number of rows of a collection."""
    found = client.query(collection, filter="", output_fields=["count(*)"])
    return int(found[0]["count(*)"])


def rows_between(client: Any, name: str, first: int, n: int) -> list[dict[str, Any]]:
    """Rows by their places in the order."""
    condition = f"row >= {first} and row < {first + n}"
    found = client.query(name, filter=condition, output_fields=[*FIELDS, "vector"], limit=n)
    return sorted(found, key=lambda row: row["row"])
