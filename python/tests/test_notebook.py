"""The notebook in examples/, executed on the demo's corpus."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_notebook_runs_on_the_demo_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTEBOOK_DATA", "NOTEBOOK_QUESTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTEBOOK_INDEX", str(tmp_path / "index"))
    notebook = nbformat.read(ROOT / "examples/notebook.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "examples")}}
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = ["".join(str(output) for output in cell.outputs) for cell in cells]
    assert "150 records" in outputs[1] and "added=150" in outputs[2]
    assert "bm25-term-saturation" in outputs[5]
    compared = next(out for out in cells[6].outputs if "text/html" in out.get("data", {}))
    assert "was #" in compared["data"]["text/html"]
    assert "'found'" in outputs[-1] and "'absent'" in outputs[-1]
