"""Indexing on two nodes of a Ray cluster makes the rows that one machine makes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from warpseek import _warpseek
from warpseek.errors import IndexIOError, InputError, ModelUnavailableError, UsageError
from warpseek.ray import index as index_all

ROOT = Path(__file__).resolve().parents[2]
MODEL = str(ROOT / "tests/golden/models/e5-like")


def index(inputs, into, nodes, **options):
    """Indexes on the nodes, two processes on each."""
    options = {"address": nodes.address, "model": MODEL, "cpus_per_worker": 4} | options
    return index_all(inputs, into, **options)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "warpseek", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def rows_of(place: Path, name: str) -> tuple[bytes, bytes]:
    """All rows of an index or of shards, in their order: documents and vectors."""
    vectors, documents = place / f"{name}.npy", place / f"{name}.rows"
    run("export", str(place / name), "--vectors", str(vectors), "--documents", str(documents))
    return documents.read_bytes(), vectors.read_bytes()


def one_machine(place: Path, inputs: list[str], *more: str) -> tuple[bytes, bytes]:
    run("index", *inputs, "--into", str(place / "one"), "--model", MODEL, "--quiet", *more)
    return rows_of(place, "one")


def texts(n: int, of: str) -> list[str]:
    """Texts of different lengths."""
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    starts = np.random.default_rng(len(of)).integers(0, len(words) - 90, n)
    return [" ".join([of, str(i), *words[s : s + 5 + i % 80]]) for i, s in enumerate(starts)]


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """A file of records, and a folder of files of all kinds, some of them bad."""
    lines = [
        {"id": f"a{i}", "title": f"t {i}", "text": text, "year": 1990 + i % 30}
        for i, text in enumerate(texts(400, "records"))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "folder"
    (folder / "lang=en").mkdir(parents=True)
    rows = [f'"{i:03}","{text}",{i}' for i, text in enumerate(texts(60, "csv")) if '"' not in text]
    (folder / "b.csv").write_text("id,text,code\n" + "\n".join(rows) + "\n", encoding="utf-8")
    table = pa.table({"text": texts(50, "parquet"), "value": pa.array(range(50), pa.int64())})
    pa.parquet.write_table(table, folder / "lang=en" / "c.parquet")
    # An id that occurred before, and a line that is not JSON.
    more = [{"id": "x1", "text": "one"}, {"id": "a7", "text": "twice"}, {"id": "x2", "text": "two"}]
    text = "".join(json.dumps(line) + "\n" for line in more)
    (folder / "d.jsonl").write_text(text + "{not json\n" + '{"id": "x3", "text": "three"}\n')
    for i, text in enumerate(texts(30, "file")):
        (folder / f"n{i:02}.md").write_text(f"# Title {i}\n\n" + text * (1 + i % 3), "utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return [str(tmp_path / "a.jsonl"), str(folder)]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[str, tuple[bytes, bytes]]:
    """A file that takes some seconds to index, and the rows that one machine makes of it."""
    place = tmp_path_factory.mktemp("large")
    lines = [json.dumps({"id": f"a{i}", "text": t}) for i, t in enumerate(texts(24_000, "k"))]
    (place / "a.jsonl").write_text("\n".join(lines) + "\n")
    return str(place / "a.jsonl"), one_machine(place, [str(place / "a.jsonl")])


@contextlib.contextmanager
def killed(task: str, times: int):
    """Kills processes of Ray that run a task of this name, one every three seconds."""
    ended = threading.Event()
    kills: list[int] = []

    def kill() -> None:
        while len(kills) < times and not ended.wait(3):
            for process in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if (process / "cmdline").read_bytes().startswith(f"ray::{task}".encode()):
                        os.kill(int(process.name), signal.SIGKILL)
                        kills.append(int(process.name))
                        break

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        ended.set()
        thread.join()


def test_rows_are_those_of_one_machine(tmp_path, inputs, nodes):
    report = index(inputs, tmp_path / "s", nodes, rows=90)
    assert rows_of(tmp_path, "s") == one_machine(tmp_path, inputs)
    assert report["shards"] >= 6 and report["documents"] == 400 + 60 + 50 + 3 + 30 - missing(inputs)
    assert report["skipped"] == 2
    reasons = {group["reason"]: group["count"] for group in report["left_out"]}
    assert reasons["unknown type '.png'"] == 1
    assert any("a7" in message and "occurs twice" in message for message in report["messages"])
    assert sum(len(m["shards"]) for m in report["machines"].values()) == report["shards"]
    # Records that are split, in a new generation that takes the place of the shards.
    options = {"split_records": True, "chunk_tokens": 24, "chunk_overlap": 4}
    again = index(inputs, tmp_path / "s", nodes, **options)
    more = ["--chunk", "--chunk-tokens", "24", "--chunk-overlap", "4"]
    run("index", *inputs, "--into", str(tmp_path / "t"), "--model", MODEL, "--quiet", *more)
    assert rows_of(tmp_path, "s") == rows_of(tmp_path, "t")
    assert again["generation"] == 1 and again["rows"] > report["rows"]
    found = [path.name for path in (tmp_path / "s").iterdir()]
    assert all(name.endswith("-1.ws") for name in found if name.endswith(".ws"))
    assert not [name for name in found if name.startswith(".shards")]
    verified = run("verify", str(tmp_path / "s"), "--json")
    assert json.loads(verified.stdout)["sound"] is True


def missing(inputs: list[str]) -> int:
    """Rows of the csv file that its texts would have broken."""
    return 60 - (Path(inputs[1]) / "b.csv").read_text(encoding="utf-8").count("\n") + 1


def test_files_of_stores_give_the_same_records(tmp_path, inputs, nodes):
    address = f"file://{inputs[0]}"
    index(address, tmp_path / "s", nodes, rows=150)
    assert rows_of(tmp_path, "s") == one_machine(tmp_path, inputs[:1])
    folder = f"file://{inputs[1]}"
    report = index(folder, tmp_path / "t", nodes)
    documents = [json.loads(line) for line in rows_of(tmp_path, "t")[0].splitlines()]
    assert f"{folder}/n03.md" in {document["doc_id"] for document in documents}
    assert sum(document["metadata"].get("lang") == "en" for document in documents) == 50
    assert report["skipped"] == 1
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "_delta_log" / "0.json").write_text("{}")
    with pytest.raises(InputError, match="a table with a log"):
        index(f"file://{tmp_path}/table", tmp_path / "u", nodes)
    with pytest.raises(UsageError, match="key or password"):
        index("s3://key:secret@bucket/x.md", tmp_path / "u", nodes)
    with pytest.raises(IndexIOError, match="not found"):
        index(f"file://{tmp_path}/none", tmp_path / "u", nodes)


def test_ids_that_occur_twice_are_named(tmp_path, nodes):
    for name, ids in (("a.jsonl", "pqr"), ("b.jsonl", "stq")):
        lines = [json.dumps({"id": i, "text": f"text {i}"}) for i in ids]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    with pytest.raises(InputError, match=r"b\.jsonl, line 3.*'q' occurs twice.*a\.jsonl"):
        index(files, tmp_path / "s", nodes)
    (tmp_path / "n.md").write_text("# A\n\ntext")
    (tmp_path / "c.jsonl").write_text('{"id": "n.md", "text": "the same id"}\n')
    files = [tmp_path / "c.jsonl", tmp_path / "n.md"]
    with pytest.raises(
        InputError, match=r"'n\.md' can also be that of a document of the file n\.md"
    ):
        index(files, tmp_path / "s", nodes)
    # A Markdown file has no sections of its own.
    (tmp_path / "c.jsonl").write_text('{"id": "n.md#section=2", "text": "another id"}\n')
    assert index(files, tmp_path / "t", nodes)["documents"] == 2
    (tmp_path / "d.jsonl").write_text('{"id": "d", "text": "good"}\n{broken\n')
    with pytest.raises(InputError, match=r"d\.jsonl, line 2"):
        index(tmp_path / "d.jsonl", tmp_path / "s", nodes)
    assert not (tmp_path / "s" / "shards.json").exists()
    report = index(tmp_path / "d.jsonl", tmp_path / "s", nodes, on_error="skip")
    assert (report["rows"], report["skipped"]) == (1, 1)


def test_killed_tasks_are_repeated(tmp_path, large, nodes):
    file, rows = large
    with killed("_make_shard", 3) as kills:
        index(file, tmp_path / "s", nodes, rows=3_000)
    assert kills, "nothing was killed"
    assert rows_of(tmp_path, "s") == rows


def test_a_killed_run_is_continued(tmp_path, large, nodes):
    (file, rows), into = large, tmp_path / "s"
    command = [sys.executable, "-m", "warpseek.ray", "index", file, "--into", str(into)]
    command += ["--model", MODEL, "--rows", "2000", "--cpus-per-worker", "4"]
    command += ["--address", nodes.address, "--json"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    done = into / ".shards.done"
    for _ in range(1200):
        if done.exists() and done.read_bytes().count(b"number") >= 2:
            break
        assert process.poll() is None, "the run was over before it was killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (into / "shards.json").exists()
    before = {p.name: p.stat().st_ino for p in into.glob("*.ws")}
    finished = [json.loads(line)["number"] for line in done.read_text().splitlines() if line]
    # Others, and another run, are told.
    refused = subprocess.run(
        [sys.executable, "-m", "warpseek", "shard", str(tmp_path), "--rows", "9", "--into", "s"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert refused.returncode != 0
    with pytest.raises(UsageError, match="unfinished run"):
        index(file, into, nodes, chunk_tokens=20)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["resumed"] >= 2 and report["rows"] == 24_000
    after = {p.name: p.stat().st_ino for p in into.glob("*.ws")}
    assert all(before[f"{i:05}.ws"] == after[f"{i:05}.ws"] for i in finished)
    assert rows_of(tmp_path, "s") == rows


def test_a_run_killed_at_its_end_has_lost_nothing(tmp_path, inputs, nodes, monkeypatch):
    into = tmp_path / "s"
    files = {}

    class AlmostFinished:
        """A folder that is left as a kill leaves it when the list was written."""

        precision = _warpseek.ShardFolder.precision

        def __init__(self, path, restart):
            self._folder = _warpseek.ShardFolder(path, restart)

        def finish(self, shards):
            files.update({path: path.read_bytes() for path in into.glob(".shards.*")})
            found = self._folder.finish(shards)
            for path, content in files.items():
                path.write_bytes(content)
            return found

        def __getattr__(self, name):
            return getattr(self._folder, name)

    class Core:
        ShardFolder = AlmostFinished

        def __getattr__(self, name):
            return getattr(_warpseek, name)

    with monkeypatch.context() as patched:
        patched.setattr("warpseek.ray._indexing._warpseek", Core())
        first = index(inputs, into, nodes, rows=90)
    rows = rows_of(tmp_path, "s")
    assert (into / ".shards.plan").exists()
    # The same call finds all done; another one begins anew, and `shard` may too.
    again = index(inputs, into, nodes, rows=90)
    assert again["resumed"] == first["shards"] and again["generation"] == 0
    assert rows_of(tmp_path, "s") == rows and not list(into.glob(".shards.*"))
    for path, content in files.items():
        path.write_bytes(content)
    other = index(inputs, into, nodes, rows=400)
    assert other["resumed"] == 0 and other["generation"] == 1
    assert rows_of(tmp_path, "s") == rows
    assert len(list(into.glob("*.ws"))) == other["shards"] and not list(into.glob(".shards.*"))
    # A finished shard that is gone is made again.
    with monkeypatch.context() as patched:
        patched.setattr("warpseek.ray._indexing._warpseek", Core())
        index(inputs, into, nodes, rows=200)
    shutil.rmtree(next(iter(into.glob("*-2.ws"))))
    with (into / ".shards.done").open("ab") as file:
        file.write(b'\n[1]\n5\n{}\n\xff\xfe\n{"number": 99}\n{"cut": ')
    mended = index(inputs, into, nodes, rows=200)
    assert mended["resumed"] == mended["shards"] - 1
    assert rows_of(tmp_path, "s") == rows


def test_a_lost_node_leaves_the_work_to_the_other(tmp_path, large, nodes):
    file, rows = large

    def lose() -> None:
        time.sleep(2)
        nodes.remove_node(nodes.workers[1], allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        index(file, tmp_path / "s", nodes, rows=2_000)
    finally:
        thread.join()
        nodes.workers[1] = nodes.add_node(num_cpus=8, resources=nodes.parts[1])
    assert rows_of(tmp_path, "s") == rows


def test_what_cannot_be_done_is_told(tmp_path, nodes):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "text"}\n')
    file, into = tmp_path / "a.jsonl", tmp_path / "s"
    with pytest.raises(IndexIOError, match="no machine of the cluster has 4 CPUs and 1 GPUs"):
        index(file, into, nodes, gpus_per_worker=1, node_timeout=1)
    index(file, into, nodes, restart=True)
    with pytest.raises(ModelUnavailableError, match=r"on .*none-such"):
        index(file, tmp_path / "t", nodes, model=str(tmp_path / "none-such"))
    with pytest.raises(IndexIOError, match=r"missing\.jsonl"):
        index(tmp_path / "missing.jsonl", tmp_path / "t", nodes)
    with pytest.raises(UsageError, match="stream"):
        index("-", tmp_path / "t", nodes)
    with pytest.raises(UsageError, match="folder of an index"):
        run("index", str(file), "--into", str(tmp_path / "one"), "--model", MODEL, "--quiet")
        index(file, tmp_path / "one", nodes)
    for name, value in (("cpus_per_worker", 0), ("gpus_per_worker", -1), ("node_timeout", "1")):
        with pytest.raises(UsageError, match=name):
            index(file, into, nodes, **{name: value})
    with pytest.raises(UsageError, match="rows"):
        index(file, into, nodes, rows=0)
    for name, value in (("globs", 5), ("metadata", 5), ("delimiter", 5), ("metadata", "x")):
        with pytest.raises(UsageError, match=name):
            index(file, into, nodes, **{name: value})
    with pytest.raises(UsageError, match="inputs"):
        index([None], into, nodes)
    # Iterators are read once.
    names = iter([str(file)])
    assert index(names, tmp_path / "w", nodes, metadata=iter([]))["rows"] == 1
    # Nothing of a wrong setting stays.
    with pytest.raises(UsageError, match="unknown language"):
        index(file, tmp_path / "v", nodes, language="xx")
    assert index(file, tmp_path / "v", nodes, language="de")["rows"] == 1
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError):
        index(tmp_path / "empty.jsonl", tmp_path / "u", nodes)
    assert not (tmp_path / "u").exists()
