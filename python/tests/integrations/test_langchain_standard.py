"""The standard suites of langchain-tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from warpseek.integrations.langchain import WarpseekEmbeddings, WarpseekVectorStore

# The suites leave it to the configuration to run their coroutines.
for suite in (VectorStoreIntegrationTests, EmbeddingsIntegrationTests, RetrieversIntegrationTests):
    for name, function in inspect.getmembers(suite, inspect.iscoroutinefunction):
        if name.startswith("test_"):
            pytest.mark.asyncio(function)


class TestVectorsOfAnEmbedding(VectorStoreIntegrationTests):
    """The vectors come from an embedding object."""

    @pytest.fixture()
    def vectorstore(self, tmp_path: Path) -> WarpseekVectorStore:
        return WarpseekVectorStore(self.get_embeddings(), path=tmp_path / "index")


class TestVectorsOfTheIndex(VectorStoreIntegrationTests):
    """The index embeds by a model of its own, in a temporary folder."""

    @pytest.fixture()
    def vectorstore(self) -> WarpseekVectorStore:
        return WarpseekVectorStore()


class TestHybridAndReranked(VectorStoreIntegrationTests):
    """Hybrid search and reranking over given vectors."""

    @pytest.fixture()
    def vectorstore(self, tmp_path: Path) -> WarpseekVectorStore:
        embedding = self.get_embeddings()
        return WarpseekVectorStore(embedding, path=tmp_path / "index", hybrid=True, rerank=True)


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return WarpseekEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "all-MiniLM-L6-v2"}


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return WarpseekEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "all-MiniLM-L6-v2", "device": "cpu"}


class TestRetriever(RetrieversIntegrationTests):
    """The retriever of `as_retriever`; `k` is one of its search options."""

    @pytest.fixture(autouse=True)
    def _store(self) -> Iterator[None]:
        documents = [Document(page_content=f"text {i}", metadata={"i": i}) for i in range(6)]
        self._vectorstore = WarpseekVectorStore.from_documents(
            documents, DeterministicFakeEmbedding(size=6)
        )
        yield

    @property
    def retriever_constructor(self) -> Callable[..., BaseRetriever]:  # type: ignore[override]
        def retriever(**options: Any) -> BaseRetriever:
            return self._vectorstore.as_retriever(search_kwargs=options)

        return retriever

    @property
    def retriever_query_example(self) -> str:
        return "text 3"
