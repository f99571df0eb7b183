"""Methods of the document store for event loops. Each one runs in a thread of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from haystack import Document
from haystack.document_stores.types import DuplicatePolicy

if TYPE_CHECKING:
    from .document_store import WarpseekDocumentStore

__all__ = ["AsyncMethods"]


class AsyncMethods:
    """The store's methods as coroutines, named with `_async` behind."""

    @property
    def _store(self) -> WarpseekDocumentStore:
        return cast("WarpseekDocumentStore", self)

    async def count_documents_async(self) -> int:
        """Runs `count_documents`."""
        return await asyncio.to_thread(self._store.count_documents)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Runs `count_documents_by_filter`."""
        return await asyncio.to_thread(self._store.count_documents_by_filter, filters)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Runs `filter_documents`."""
        return await asyncio.to_thread(self._store.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Runs `write_documents`."""
        return await asyncio.to_thread(self._store.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Runs `delete_documents`."""
        await asyncio.to_thread(self._store.delete_documents, document_ids)

    async def delete_all_documents_async(self, recreate_index: bool = False) -> None:
        """Runs `delete_all_documents`."""
        await asyncio.to_thread(self._store.delete_all_documents, recreate_index)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Runs `delete_by_filter`."""
        return await asyncio.to_thread(self._store.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Runs `update_by_filter`."""
        return await asyncio.to_thread(self._store.update_by_filter, filters, meta)

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Runs `count_unique_metadata_by_filter`."""
        count = self._store.count_unique_metadata_by_filter
        return await asyncio.to_thread(count, filters, metadata_fields)

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """Runs `get_metadata_fields_info`."""
        return await asyncio.to_thread(self._store.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """Runs `get_metadata_field_min_max`."""
        return await asyncio.to_thread(self._store.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """Runs `get_metadata_field_unique_values`."""
        values = self._store.get_metadata_field_unique_values
        return await asyncio.to_thread(values, metadata_field, search_term, from_, size, filters)
