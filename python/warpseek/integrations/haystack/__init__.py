"""Document store, retrievers, embedders and ranker for Haystack.

    from haystack import Document, Pipeline
    from warpseek.integrations.haystack import (
        WarpseekDocumentEmbedder,
        WarpseekDocumentStore,
        WarpseekEmbeddingRetriever,
        WarpseekTextEmbedder,
    )

    store = WarpseekDocumentStore("notes.warpseek")
    documents = [Document(content="The heat pump hums at night.", meta={"year": 2024})]
    store.write_documents(WarpseekDocumentEmbedder().run(documents)["documents"])

    search = Pipeline()
    search.add_component("embedder", WarpseekTextEmbedder())
    search.add_component("retriever", WarpseekEmbeddingRetriever(store))
    search.connect("embedder.embedding", "retriever.query_embedding")
    search.run({"embedder": {"text": "noise"}})

Haystack loads components of other packages from YAML where they are allowed:
`Pipeline.loads(yaml, allowed_modules=["warpseek.*"])`.
"""

from __future__ import annotations

from .document_store import WarpseekDocumentStore
from .embedders import WarpseekDocumentEmbedder, WarpseekTextEmbedder
from .index_retriever import WarpseekIndexRetriever
from .ranker import WarpseekRanker
from .retrievers import (
    WarpseekBM25Retriever,
    WarpseekEmbeddingRetriever,
    WarpseekHybridRetriever,
)

__all__ = [
    "WarpseekBM25Retriever",
    "WarpseekDocumentEmbedder",
    "WarpseekDocumentStore",
    "WarpseekEmbeddingRetriever",
    "WarpseekHybridRetriever",
    "WarpseekIndexRetriever",
    "WarpseekRanker",
    "WarpseekTextEmbedder",
]
