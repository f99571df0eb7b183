"""Shards on two nodes of a Ray cluster answer as the whole index; what is lost is named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import warpseek
from warpseek.errors import CorruptIndexError, IndexIOError, UsageError
from warpseek.ray import Cluster

DIM = 48


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An index of vectors with ties across any cut, its shards, and queries."""
    place = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(26)
    vectors = random.standard_normal((3_000, DIM)).astype("f4")
    vectors[random.integers(0, 3_000, 900)] = vectors[0]
    records = [
        {"id": f"d{i}", "doc_id": f"g{i // 3}", "text": f"text {i}", "year": 1990 + i % 30}
        | ({"early": True} if i < 700 else {})
        for i in range(3_000)
    ]
    with warpseek.Index.create(place / "whole", dim=DIM, model=None) as index:
        index.add(records, vectors=vectors)
    command = ["shard", str(place / "whole"), "--rows", "700", "--into", str(place / "shards")]
    subprocess.run([sys.executable, "-m", "warpseek", *command], check=True, capture_output=True)
    queries = random.standard_normal((300, DIM)).astype("f4")
    queries[::7] = vectors[0]
    np.save(place / "q.npy", queries)
    lines = [
        {"_id": f"q{i}", "text": "", "vector": q.tolist()}
        | (
            {"filter": ["early = true", "year < 2000", "early = true OR year > 2015"][i % 3]}
            if i % 2
            else {}
        )
        for i, q in enumerate(queries[:120])
    ]
    (place / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def open_cluster(place: Path, nodes, **options) -> Cluster:
    return Cluster(place / "shards", address=nodes.address, pinned=True, **options)


def wait_for_port(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def expected(place: Path, queries: str, *more: str) -> bytes:
    """The output of the command line over the whole index."""
    out = place / "expected"
    command = ["batch", str(place / "whole"), str(place / queries), "--out", str(out), *more]
    command += ["--restart", "--quiet"]
    subprocess.run([sys.executable, "-m", "warpseek", *command], check=True, capture_output=True)
    return out.read_bytes()


def test_answers_are_those_of_the_whole_index(place, nodes):
    with (
        open_cluster(place, nodes, replicas=2) as cluster,
        warpseek.Index(place / "whole") as whole,
    ):
        for queries, options, arguments in [
            ("q.npy", {"k": 10}, ["-k", "10"]),
            ("q.npy", {"k": 100}, ["-k", "100"]),
            ("q.jsonl", {"k": 25}, ["-k", "25"]),
            ("q.jsonl", {"k": 5, "with_text": True}, ["-k", "5", "--with-text"]),
            ("q.npy", {"k": 7, "where": "year > 2001"}, ["-k", "7", "--filter", "year > 2001"]),
            ("q.npy", {"k": 9, "max_per_doc": 1}, ["-k", "9", "--max-per-doc", "1"]),
            ("q.npy", {"k": 6, "mmr": 0.4}, ["-k", "6", "--mmr-lambda", "0.4"]),
            ("q.npy", {"k": 6, "format": "trec"}, ["-k", "6", "--format", "trec"]),
            ("q.npy", {"k": 900, "min_score": 3.0}, ["-k", "900", "--min-score", "3"]),
        ]:
            report = cluster.batch(place / queries, place / "out", restart=True, **options)
            assert (place / "out").read_bytes() == expected(place, queries, *arguments), options
            assert report["cluster"]["scan_seconds"] > 0
        query = np.load(place / "q.npy")[3]
        for where in (None, "early = true"):
            found, wanted = (i.search(query, 12, where=where) for i in (cluster, whole))
            assert [vars(hit) for hit in found] == [vars(hit) for hit in wanted]
            assert found.matched_rows == wanted.matched_rows
        assert all(check["problem"] is None for check in cluster.verify())
        status = cluster.status()
        assert [shard["rows"] for shard in status] == [700, 700, 700, 700, 200]
        assert all(len(shard["replicas"]) == 2 for shard in status)
        with pytest.raises(UsageError, match=r"unknown field|no field"):
            cluster.search(query, where="erly = true")
        with pytest.raises(UsageError, match="shards has no BM25"):
            cluster.search(query, text="text", hybrid=True)


def test_killed_processes_are_started_again(place, nodes):
    wanted = expected(place, "q.npy", "-k", "10")
    with open_cluster(place, nodes) as cluster:
        for shard in (0, 4):
            os.kill(cluster.status()[shard]["replicas"][0]["pid"], signal.SIGKILL)
            started = time.perf_counter()
            cluster.batch(place / "q.npy", place / "out", 10, restart=True)
            assert time.perf_counter() - started < 30
            assert (place / "out").read_bytes() == wanted


def test_a_lost_node_is_waited_for(place, nodes):
    wanted = expected(place, "q.npy", "-k", "10")
    with open_cluster(place, nodes) as cluster:
        cluster._shards._placement.node_timeout = 3
        nodes.remove_node(nodes.workers[1], allow_graceful=False)
        started = time.perf_counter()
        with pytest.raises(IndexIOError, match=r"00003\.ws.*no machine holds it") as raised:
            cluster.batch(place / "q.npy", place / "out", 10, restart=True)
        assert raised.value.exit_code == 8
        assert time.perf_counter() - started < 90
        assert not (place / "out").exists() or (place / "out").read_bytes() != b""
        nodes.workers[1] = nodes.add_node(num_cpus=8, resources=nodes.parts[1])
        cluster._shards._placement.node_timeout = 60
        cluster.batch(place / "q.npy", place / "out", 10)
        assert (place / "out").read_bytes() == wanted


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_is_continued(place, nodes, ending):
    out = place / "ended.jsonl"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "warpseek.ray", "batch", str(place / "shards")]
    command += [str(place / "many.npy"), "--out", str(out), "-k", "50", "--pinned"]
    command += ["--address", nodes.address, "--json"]
    np.save(place / "many.npy", np.tile(np.load(place / "q.npy"), (40, 1)))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, **quiet)
    for _ in range(3000):
        if any(path.stat().st_size > 100_000 for path in place.glob("ended.jsonl.*")):
            break
        time.sleep(0.01)
    run.send_signal(ending)
    assert run.wait(30) == (130 if ending == signal.SIGINT else -ending)
    assert not out.exists(), "the run was over before it was ended"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert 0 < report["resumed"] < report["queries"] == 12_000
    assert out.read_bytes() == expected(place, "many.npy", "-k", "50")


def test_a_full_disk_loses_nothing(place, nodes):
    out = place / "full.jsonl"
    command = [sys.executable, "-m", "warpseek.ray", "batch", str(place / "shards")]
    command += [str(place / "q.npy"), "--out", str(out), "-k", "100", "--pinned"]
    command += ["--address", nodes.address]
    # No file may be longer, as on a disk that is full.
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2); "
    limit += "import runpy; sys.argv = sys.argv[1:]; "
    limit += "runpy.run_module('warpseek.ray', run_name='__main__')"
    limited = [sys.executable, "-c", limit, *command[2:]]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 8 and "File too large" in done.stderr, done.stderr
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected(place, "q.npy", "-k", "100")


def test_server(place, nodes):
    vector = np.load(place / "q.npy")[5].tolist()

    def ask(url: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(url + path, data, headers)
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    body = {"vector": vector, "k": 7, "filter": "year > 2001"}
    with warpseek.Index(place / "whole") as whole, warpseek.serve(whole, read_only=True) as server:
        _, wanted = ask(server.url, "/v1/search", body)
    cluster = open_cluster(place, nodes)
    with cluster, cluster.serve(name="whole") as server:
        status, found = ask(server.url, "/v1/search", body)
        assert status == 200
        assert found["hits"] == wanted["hits"]
        assert found["matched_rows"] == wanted["matched_rows"]
        assert ask(server.url, "/v1/search", {**body, "mmr": 0.3})[0] == 200
        status, reply = ask(server.url, "/v1/search", {**body, "filter": "yaer > 1"})
        assert status == 400 and "yaer" in str(reply)
        status, reply = ask(server.url, "/v1/search", {**body, "query": "x", "hybrid": True})
        assert status == 400 and "BM25" in str(reply)
        status, reply = ask(server.url, "/v1/documents", {"documents": [{"id": "a", "text": "x"}]})
        assert status == 403
        assert ask(server.url, "/info")[1]["indexes"][0]["rows"] == 3_000
        cluster._shards._placement.node_timeout = 3
        nodes.remove_node(nodes.workers[1], allow_graceful=False)
        status, reply = ask(server.url, "/v1/search", body)
        assert status == 503 and "no machine holds it" in str(reply)
        nodes.workers[1] = nodes.add_node(num_cpus=8, resources=nodes.parts[1])
        cluster._shards._placement.node_timeout = 60
        status, found = ask(server.url, "/v1/search", body)
        assert status == 200 and found["hits"] == wanted["hits"]


def test_damaged_and_foreign_shards_are_named(place, nodes):
    rows = place / "shards/00001.ws/vectors-0.f16"
    good = rows.read_bytes()
    int8 = place / "shards/00001.ws/vectors-0.i8"
    kept = int8.read_bytes()
    try:
        int8.unlink()
        rows.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
        with (
            open_cluster(place, nodes) as cluster,
            pytest.raises(CorruptIndexError, match="row 699"),
        ):
            cluster.batch(place / "q.npy", place / "out", 10, restart=True)
    finally:
        rows.write_bytes(good)
        int8.write_bytes(kept)
    moved = (place / "shards/00002.ws").rename(place / "away")
    try:
        with pytest.raises(IndexIOError, match=r"00002\.ws.*this shard is missing"):
            open_cluster(place, nodes)
        (place / "shards/00003.ws").rename(place / "shards/00002.ws")
        with pytest.raises(CorruptIndexError, match=r"00002\.ws: this is not the shard"):
            open_cluster(place, nodes)
    finally:
        (place / "shards/00002.ws").rename(place / "shards/00003.ws")
        moved.rename(place / "shards/00002.ws")


def test_a_cluster_that_asks_for_no_token_is_refused(place):
    program = shutil.which("ray", path=str(Path(sys.executable).parent))
    head = [program, "start", "--head", "--port", "26379", "--num-cpus", "8"]
    head += ["--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    open_to_all = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*head, "--block"], env=open_to_all, **quiet)
    try:
        wait_for_port(26379)
        command = [sys.executable, "-m", "warpseek.ray", "status", str(place / "shards")]
        command += ["--address", "127.0.0.1:26379"]
        for environment in (None, open_to_all):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 2, done.stderr
            assert "would take programs from anyone" in done.stderr
        command.append("--insecure")
        done = subprocess.run(command, env=open_to_all, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        server.terminate()
        server.wait()


def test_command_line(place, nodes):
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "warpseek.ray", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    shards, where = str(place / "shards"), ["--address", nodes.address, "--pinned"]
    out = str(place / "cli.jsonl")
    queries = str(place / "q.npy")
    done = call("batch", shards, queries, "--out", out, "-k", "10", *where)
    assert done.returncode == 0, done.stderr
    assert Path(out).read_bytes() == expected(place, "q.npy", "-k", "10")
    assert "300 queries" in done.stdout and "scans" in done.stdout
    done = call("verify", shards, "--json", *where)
    assert json.loads(done.stdout)["sound"] is True
    done = call("status", shards, *where)
    assert "00004.ws  200 rows" in done.stdout
    done = call("batch", str(place / "none"), queries, "--out", out, *where)
    assert done.returncode == 8 and "shards.json is missing" in done.stderr
    os.environ["RAY_AUTH_MODE"] = "disabled"
    done = call("status", shards, *where)
    os.environ["RAY_AUTH_MODE"] = "token"
    assert done.returncode == 2 and "RAY_AUTH_MODE=token" in done.stderr
