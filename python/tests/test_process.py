"""Processes and threads: locks, fork, Ctrl+C, pickling, the GIL, the import itself."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import warpseek
from warpseek import Index

WORDS = "some words that take a while to embed because there are many of them "


def run(code: str, *args: object, **kwargs: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )  # type: ignore[call-overload,no-any-return]


def test_import_loads_neither_numpy_nor_the_core() -> None:
    heavy = ("numpy", "torch", "warpseek._warpseek")
    code = f"import sys, warpseek; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).communicate()[0].strip() == "[]"


def test_a_locked_index_is_an_oserror(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i")
    code = """
import sys, time, warpseek
def slow():
    yield {"id": "a", "text": "one"}
    print("writing", flush=True)
    time.sleep(60)
warpseek.Index.open(sys.argv[1]).add(slow())
"""
    other = run(code, tmp_path / "i")
    try:
        assert other.stdout is not None and other.stdout.readline().strip() == "writing"
        # The other process takes the lock once its model is open. A call of this one in the
        # meantime could hold the lock at that moment.
        deadline = time.monotonic() + 60
        while (tmp_path / "i" / "lock").read_text() != str(other.pid):
            assert other.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(OSError) as caught:
            index.delete("nobody")
        error = caught.value
        assert isinstance(error, warpseek.IndexLockedError)
        assert str(other.pid) in str(error) and error.exit_code == 8
        assert len(index) == 0
    finally:
        other.kill()
        other.communicate()
    assert index.add([{"id": "b", "text": "two"}]).added == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_a_long_call_and_keeps_what_was_committed(tmp_path: Path) -> None:
    code = f"""
import sys, warpseek
def many():
    for i in range(100_000):
        # No more than 1,024 records wait: when this one is asked for, a batch has been stored.
        if i == 1_400:
            print("go", flush=True)
        yield {{"id": str(i), "text": f"{{i}} {WORDS * 12}"}}
index = warpseek.Index.create(sys.argv[1])
try:
    index.add(many())
except KeyboardInterrupt:
    print(len(index), index.search("words", 1, rerank=False).total_rows, flush=True)
"""
    process = run(code, tmp_path / "i")
    assert process.stdout is not None and process.stdout.readline().strip() == "go"
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=30)
    took = time.monotonic() - started
    assert not err and process.returncode == 0, err
    rows, total = map(int, out.split())
    assert 0 < rows == total < 100_000
    assert took < 5
    assert all(check["problem"] is None for check in Index.open(tmp_path / "i").verify())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_encode_within_a_second() -> None:
    code = f"""
import sys, time, warpseek
model = warpseek.Embedder()
print("go", flush=True)
try:
    model.encode([{WORDS!r} * 15] * 100_000)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    process = run(code)
    assert process.stdout is not None and process.stdout.readline().strip() == "go"
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert process.stdout.readline().strip() == "stopped"
    assert time.monotonic() - started < 1
    process.communicate()


def search_in_child(index: Index, queue: multiprocessing.Queue[object]) -> None:
    try:
        index.add([{"id": f"child-{os.getpid()}", "text": "written by a child"}])
        queue.put((index.search("pets", 1, rerank=False).ids, len(index)))
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_an_index_works_in_child_processes(tmp_path: Path, method: str) -> None:
    index = Index.create(tmp_path / "i")
    index.add([{"id": "a", "text": "Cats and dogs are pets."}])
    expected = index.search("pets", 1, rerank=False).ids
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=search_in_child, args=(index, queue))
    child.start()
    assert queue.get(timeout=60) == (expected, 2)
    child.join()
    assert index.refresh() and len(index) == 2


def test_an_index_keeps_its_path_and_settings_in_a_pickle(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", model=None, dim=4)
    index.add([{"id": "a", "text": ""}], vectors=np.eye(4)[:1])
    copy = pickle.loads(pickle.dumps(Index.open(index.path, reranker="none", device="cpu")))
    assert copy.path == index.path and copy._reranker == "none" and len(copy) == 1
    with pytest.raises(warpseek.WarpseekError) as caught:
        Index.open(tmp_path / "nothing")
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is warpseek.IndexNotFoundError
    assert (str(error), error.file, error.exit_code) == (
        str(caught.value),
        caught.value.file,
        caught.value.exit_code,
    )


def test_threads_share_an_index_and_the_gil_is_released(demo: Index) -> None:
    expected = demo.search("vectors", 3, rerank=False).ids
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: demo.search("vectors", 3, rerank=False).ids, range(40)))
    stop.set()
    counter.join()
    assert found == [expected] * 40 and counted[0] > before


def test_threads_write_one_after_another(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", model=None, dim=4)

    def add(i: int) -> None:
        index.add([{"id": str(i), "text": ""}], vectors=np.eye(4, dtype=np.float32)[:1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert sorted(int(hit.id) for hit in index.get()) == list(range(20))


def test_threads_add_texts_and_search_for_the_first_time_together(tmp_path: Path) -> None:
    warpseek.set_num_threads(1)
    try:
        index = Index.create(tmp_path / "i")
        model = warpseek.Embedder()

        def rows(i: int) -> Iterator[dict[str, str]]:
            for j in range(20):
                # A function of the library, called while it waits for this record.
                assert model.count_tokens(WORDS) == [15]
                yield {"id": f"{i}-{j}", "text": WORDS}

        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(index.add, rows(i)) for i in range(3)]
            searches = [pool.submit(index.search, "words", 1) for _ in range(3)]
            assert [job.result(timeout=60).added for job in jobs] == [20] * 3
            assert all(len(search.result(timeout=60)) <= 1 for search in searches)
        assert len(index) == 60 and index.search("words", 1)[0].rerank_score is not None
    finally:
        warpseek.set_num_threads(os.cpu_count() or 1)


def test_the_number_of_threads_can_be_set() -> None:
    before = warpseek.get_num_threads()
    warpseek.set_num_threads(1)
    assert warpseek.get_num_threads() == 1
    warpseek.set_num_threads(before)
    with pytest.raises(warpseek.UsageError, match="1 to 1024"):
        warpseek.set_num_threads(0)


def test_progress_is_told_on_the_calling_thread(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i")
    rows = ({"id": str(i), "text": WORDS} for i in range(300))
    assert index.add(rows, show_progress_bar=True).added == 300

    def broken(_: int) -> None:
        raise RuntimeError("from the bar")

    with pytest.raises(RuntimeError, match="from the bar"):
        index._core.add(
            [{"id": f"x{i}", "text": WORDS * 9} for i in range(3000)],
            {"id": None, "text": None, "title": None, "metadata": None},
            None,
            False,
            "raise",
            broken,
        )


def test_an_iterator_that_writes_to_the_index_that_waits_for_it_is_refused(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", model=None, dim=4)

    def rows() -> Iterator[dict[str, str]]:
        index.delete("a")
        yield {"id": "b"}

    with pytest.raises(warpseek.UsageError, match="writes to the same index"):
        index.add(rows(), vectors=np.eye(4, dtype=np.float32)[:1])
    assert index.add([{"id": "b"}], vectors=np.eye(4, dtype=np.float32)[:1]).added == 1


def test_exceptions_that_are_no_errors_about_a_record_are_raised(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", model=None, dim=4)

    class Exits:
        def tolist(self) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        index.add([{"id": "a", "x": Exits()}], vectors=np.eye(4, dtype=np.float32)[:1])


def leave_server(server: warpseek.Server, queue: multiprocessing.Queue[object]) -> None:
    server.stop()
    queue.put(server.is_running)


@pytest.mark.skipif(os.name == "nt", reason="fork of POSIX")
def test_a_forked_child_leaves_a_server_alone(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i")
    with warpseek.serve(index) as server:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=leave_server, args=(server, queue))
        child.start()
        assert queue.get(timeout=30) is False
        child.join()
        assert child.exitcode == 0 and server.is_running
