"""Fixtures: the embedding model, a small corpus, an index of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpseek

ROOT = Path(__file__).resolve().parents[2]

# The model is fetched once, to where the tests of the Rust library look for it too.
os.environ.setdefault("WARPSEEK_MODELS_DIR", str(ROOT / "models"))
subprocess.run(
    [sys.executable, "-m", "warpseek", "models", "pull", "all-MiniLM-L6-v2"],
    env={**os.environ, "WARPSEEK_OFFLINE": "0"},
    stdout=subprocess.DEVNULL,
    check=True,
)


# Ray reads these when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A Ray cluster: a head without shards, and two nodes that hold three and two of them."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    nodes.parts = [
        {f"{i:05}.ws": 1 for i in range(3)},
        {f"{i:05}.ws": 1 for i in range(3, 5)},
    ]

    def add(**options: Any) -> Any:
        # Ray gives a node 30 seconds to start, which a busy machine can exceed.
        for _ in range(2):
            with contextlib.suppress(Exception):
                return nodes.add_node(**options)
        return nodes.add_node(**options)

    add(num_cpus=1)
    nodes.workers = [add(num_cpus=8, resources=part) for part in nodes.parts]
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="session")
def corpus() -> list[dict[str, object]]:
    """The demo's 150 passages."""
    lines = (ROOT / "examples/demo/corpus.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def embedder() -> warpseek.Embedder:
    return warpseek.Embedder()


@pytest.fixture(scope="session")
def demo(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[dict[str, object]]
) -> Iterator[warpseek.Index]:
    """An index of the corpus that tests only read."""
    with warpseek.Index.create(tmp_path_factory.mktemp("demo") / "index") as index:
        index.add(corpus)
        yield index


@pytest.fixture
def vectors(tmp_path: Path) -> warpseek.Index:
    """An empty index of vectors of 4 dimensions."""
    return warpseek.Index.create(tmp_path / "index", model=None, dim=4)


@pytest.fixture
def unit() -> np.ndarray:
    return np.eye(4, dtype=np.float32)
