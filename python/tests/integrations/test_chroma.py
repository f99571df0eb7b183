"""The embedding function in collections of a real Chroma client."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api.types import EmbeddingFunction
from chromadb.config import Settings
from chromadb.utils.embedding_functions import known_embedding_functions

from warpseek import Embedder, ModelUnavailableError
from warpseek.integrations.chroma import WarpseekEmbeddingFunction

TEXTS = [
    "A heat pump moves heat from the air outside into the house.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "Sourdough bread needs flour, water, salt and patience.",
]


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return open_client(tmp_path)


def open_client(path: Path) -> Any:
    settings = Settings(anonymized_telemetry=False)
    return chromadb.PersistentClient(str(path / "chroma"), settings=settings)


def fill(client: Any, **settings: Any) -> Any:
    function = WarpseekEmbeddingFunction(**settings)
    collection = client.create_collection("notes", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    return collection


def test_collection(client: Any) -> None:
    collection = fill(client)
    found = collection.query(query_texts=["warming a home", "baking"], n_results=1)
    assert found["ids"] == [["0"], ["2"]]
    model = Embedder("all-MiniLM-L6-v2")
    kept = collection.get(include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(kept, model.encode_document(TEXTS), atol=1e-6)
    wanted = 1 - model.encode_query("baking") @ kept[2]
    assert found["distances"][1][0] == pytest.approx(wanted, abs=1e-5)
    assert collection.configuration["hnsw"]["space"] == "cosine"


def test_collection_is_opened_again(client: Any, tmp_path: Path) -> None:
    fill(client, device="cpu", batch_size=2)
    script = """
import sys, chromadb
from chromadb.config import Settings
import warpseek.integrations.chroma
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
collection = client.get_collection("notes")
assert collection.query(query_texts=["baking"], n_results=1)["ids"] == [["2"]]
print(collection.configuration["embedding_function"].get_config())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "chroma")]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert result.returncode == 0, result.stderr
    assert "'batch_size': 2" in result.stdout


def test_configuration() -> None:
    function = WarpseekEmbeddingFunction("all-MiniLM-L6-v2", normalize_embeddings=False)
    assert isinstance(function, EmbeddingFunction)
    assert not function.is_legacy()
    assert known_embedding_functions["warpseek"] is WarpseekEmbeddingFunction
    config = function.get_config()
    again = WarpseekEmbeddingFunction.build_from_config(config)
    assert again.get_config() == config
    assert function.default_space() in function.supported_spaces()
    partial = WarpseekEmbeddingFunction.build_from_config({"model": "all-MiniLM-L6-v2"})
    assert partial.get_config() == WarpseekEmbeddingFunction().get_config()


def test_vectors() -> None:
    function, model = WarpseekEmbeddingFunction(), Embedder("all-MiniLM-L6-v2")
    for vectors, wanted in [
        (function(TEXTS), model.encode_document(TEXTS)),
        (function.embed_query(TEXTS), model.encode_query(TEXTS)),
    ]:
        assert all(vector.dtype == np.float32 for vector in vectors)
        np.testing.assert_array_equal(vectors, wanted)
    plain = WarpseekEmbeddingFunction(normalize_embeddings=False)(TEXTS)
    np.testing.assert_array_equal(plain, model.encode_document(TEXTS, normalize_embeddings=False))


def test_default_model_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARPSEEK_MODEL", raising=False)
    kept = WarpseekEmbeddingFunction()
    assert kept.get_config()["model"] == "all-MiniLM-L6-v2"
    monkeypatch.setenv("WARPSEEK_MODEL", "no-such-model")
    with pytest.raises(ModelUnavailableError, match="no-such-model"):
        WarpseekEmbeddingFunction().get_config()
    again = WarpseekEmbeddingFunction.build_from_config(kept.get_config())
    np.testing.assert_array_equal(again(TEXTS), kept(TEXTS))


def test_truncation_is_told(caplog: pytest.LogCaptureFixture) -> None:
    WarpseekEmbeddingFunction()(["short", "word " * 300])
    assert "1 of 2 texts are longer than 256 tokens" in caplog.text


def test_threads_share_the_model() -> None:
    function = WarpseekEmbeddingFunction(batch_size=7)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(function(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": ""}, "name of a model"),
        ({"normalize_embeddings": 1}, "'normalize_embeddings' must be bool"),
        ({"batch_size": 0}, "'batch_size' must be at least 1"),
        ({"batch_size": True}, "'batch_size' must be int or None"),
        ({"device": 0}, "'device' must be str or None"),
    ],
)
def test_odd_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        WarpseekEmbeddingFunction(**settings)


def test_odd_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown setting 'modell'"):
        WarpseekEmbeddingFunction.build_from_config({"model": "a", "modell": "b"})
    with pytest.raises(ValueError, match="name of a model"):
        WarpseekEmbeddingFunction.build_from_config({})
    with pytest.raises(ValueError, match="name of a model"):
        WarpseekEmbeddingFunction.build_from_config({"model": None})


def test_change_of_the_configuration() -> None:
    function = WarpseekEmbeddingFunction()
    old = function.get_config()
    function.validate_config_update(old, {**old, "device": "cpu", "models_dir": "/elsewhere"})
    for name, value in [("model", "bge-small-en-v1.5"), ("normalize_embeddings", False)]:
        with pytest.raises(ValueError, match="make a new collection"):
            function.validate_config_update(old, {**old, name: value})


def test_change_of_a_collection(client: Any) -> None:
    collection = fill(client)
    other = WarpseekEmbeddingFunction("bge-small-en-v1.5")
    with pytest.raises(ValueError, match="make a new collection"):
        collection.modify(configuration={"embedding_function": other})
    collection.modify(configuration={"embedding_function": WarpseekEmbeddingFunction(device="cpu")})
    assert collection.query(query_texts=["baking"], n_results=1)["ids"] == [["2"]]


def test_inputs_that_are_no_texts_are_refused() -> None:
    function = WarpseekEmbeddingFunction()
    with pytest.raises(TypeError, match="not ndarray"):
        function([np.zeros((2, 2))])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not int"):
        function.embed_query([1])  # type: ignore[list-item]
