"""The command that the package installs, and the package itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import warpseek

ROOT = Path(__file__).resolve().parents[2]


def command(*args: object) -> subprocess.CompletedProcess[str]:
    script = shutil.which("warpseek", path=str(Path(sys.executable).parent))
    assert script, "the package is not installed: pip install ./python"
    return subprocess.run([script, *map(str, args)], capture_output=True, text=True)


def test_the_command_is_the_one_of_the_library(tmp_path: Path) -> None:
    version = command("--version")
    assert version.stdout.strip() == f"warpseek {warpseek.__version__}"
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "bread and butter"}\n')
    indexed = command("index", tmp_path / "a.jsonl", "--into", tmp_path / "i", "--json")
    assert indexed.returncode == 0 and json.loads(indexed.stdout)["added"] == 1
    found = command("search", tmp_path / "i", "food", "--json", "--reranker", "none")
    hit = json.loads(found.stdout)["hits"][0]
    index = warpseek.Index.open(tmp_path / "i")
    here = index.search("food", 1, rerank=False)[0]
    assert (hit["id"], np.float32(hit["score"])) == (here.id, here.score)
    wrong = command("search", tmp_path / "nothing", "food")
    assert wrong.returncode == 8 and "no index here" in wrong.stderr
    module = subprocess.run([sys.executable, "-m", "warpseek", "search"], capture_output=True)
    assert module.returncode == 2


def test_the_version_is_that_of_the_library() -> None:
    assert metadata.version("warpseek") == warpseek.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", warpseek.__version__)


def test_every_public_name_is_there() -> None:
    for name in warpseek.__all__:
        assert getattr(warpseek, name) is not None, name
    assert set(warpseek.__all__) <= set(dir(warpseek))
