"""Indexing on the machines of a Ray cluster.

The files of the inputs are listed, their records are counted, and they are cut into parts. Each
part becomes a shard, in a task that reads, chunks, embeds and writes it. The plan, and what is
known of finished shards, is kept beside them, so that a run that was interrupted goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from warpseek import _warpseek
from warpseek._arguments import Path, at_least, field_names, on_error_of, path_of
from warpseek._settings import settings
from warpseek._writing import OnError
from warpseek.errors import (
    DeviceError,
    IndexIOError,
    InputError,
    ModelUnavailableError,
    UsageError,
)
from warpseek.ray import _objects
from warpseek.ray._connection import connect, disconnect, ray_module
from warpseek.ray._plan import DONE_FILE, Planner, writing
from warpseek.ray._progress import ProgressLine
from warpseek.ray._tasks import Workers, results_of

# Messages and notes that are kept.
_MOST_MESSAGES = 100

# What is kept of a finished shard.
_ENTRY = ("number", "id", "report", "summary", "seconds", "machine")


def index(
    inputs: Path | Sequence[Path],
    into: Path,
    *,
    address: str | None = None,
    rows: int | None = None,
    model: str | None = None,
    truncate_dim: int | None = None,
    split_records: bool = False,
    chunk_tokens: int | None = None,
    chunk_overlap: int | None = None,
    language: str | None = None,
    id: str | None = None,
    text: str | None = None,
    title: str | None = None,
    metadata: Sequence[str] | None = None,
    on_error: OnError | None = None,
    delimiter: str | None = None,
    globs: str | Sequence[str] = (),
    ignore_files: bool = True,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    node_timeout: float = 60,
    precision: str | None = None,
    restart: bool = False,
    insecure: bool = False,
    show_progress_bar: bool | None = None,
) -> dict[str, Any]:
    """Indexes files into shards, on all machines of a Ray cluster.

    The rows are those that ``warpseek index`` makes of the same inputs, in the same order. A call
    that was interrupted is continued by the same call: finished shards stay, and documents of
    others that were committed are not embedded again.

    Args:
        inputs: Files and folders, which every machine sees at the same path, and objects or folders
            of stores such as ``s3://bucket/folder``, which pyarrow reads and which come last.
        into: Folder of the shards. Every machine writes its shards there, at the same path. Shards
            that are listed there are replaced when all new ones are made.
        address: See :class:`Cluster`.
        rows: Rows per shard, about; by default such that every process makes four shards, with
            5,000 to 1,000,000 rows each.
        model: Embedding model, which every machine has or can download.
        truncate_dim: See :meth:`warpseek.Index.create`; `split_records`, `chunk_tokens`,
            `chunk_overlap` and `language` likewise.
        id: See :meth:`warpseek.Index.add_files`; `text`, `title`, `metadata`, `on_error`,
            `delimiter`, `globs` and `ignore_files` likewise. The last two are for folders on disk.
        cpus_per_worker: CPUs of a process: Ray's reservation, and its number of threads.
        gpus_per_worker: GPUs of a process.
        node_timeout: Seconds to wait until some machine has, in all, the CPUs and GPUs of a
            process. For those that other work uses it waits without limit.
        precision: See :class:`warpseek.Embedder`.
        restart: True to discard an unfinished earlier run.
        insecure: True to use a cluster without token authentication.
        show_progress_bar: True, False, or None for a line on a terminal.

    Returns:
        The report: ``shards``, ``rows``, ``documents`` and ``generation`` of the list, ``seconds``,
        ``resumed``, the number of shards of an earlier run, and of the shards of this one
        ``tokens``, ``tokens_lost`` beyond the model's limit, of ``rows_truncated`` rows; what was
        ``skipped`` and ``left_out``, with the first ``messages``; the first ``notes`` of
        ``notes_total``; and ``machines``: the shards that each has made, their rows, and seconds.

    Raises:
        InputError: For a record that cannot be used, and for an id that occurs twice.
        UsageError: If the inputs or the settings are not those of the unfinished run, and for a
            cluster without token authentication, unless `insecure` is true.
        ModelUnavailableError: If a machine lacks the model or has another one of its name.
        DeviceError: If a machine's GPU cannot be used.
        IndexIOError: If no machine has room for a process in time, or a file cannot be read or
            written.
        IndexLockedError: If another process makes shards in the folder.
    """
    at_least(1, rows=rows, truncate_dim=truncate_dim, chunk_tokens=chunk_tokens)
    at_least(0, chunk_overlap=chunk_overlap)
    if on_error is not None:
        on_error_of(on_error)
    for name, value, least in (
        ("cpus_per_worker", cpus_per_worker, 0.01),
        ("gpus_per_worker", gpus_per_worker, 0),
        ("node_timeout", node_timeout, 0),
    ):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{name} must be a number, found {type(value).__name__}")
        if not least <= value < 1e9:
            raise UsageError(f"{name} is {value}: it must be at least {least}")
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else _texts("inputs", inputs)
    patterns = [globs] if isinstance(globs, str) else _texts("globs", globs)
    kept = None if metadata is None else _texts("metadata", metadata)
    for name, word in (("delimiter", delimiter), ("model", model), ("language", language)):
        if word is not None and not isinstance(word, str):
            raise UsageError(f"{name} must be a text, found {type(word).__name__}")
    reading = {
        "fields": field_names(id, text, title, kept),
        "on_error": on_error,
        "prune": False,
        "delimiter": delimiter,
        "globs": patterns,
        "no_ignore": not ignore_files,
    }
    options = {
        "into": path_of(into),
        "model": (model, truncate_dim),
        "chunks": (chunk_tokens, chunk_overlap, bool(split_records)),
        "language": language,
        "reading": reading,
        "settings": settings("cuda:0" if gpus_per_worker else "cpu", precision, None, None),
        "rows": rows,
        "threads": max(1, int(cpus_per_worker)),
    }
    workers = Workers(cpus_per_worker, gpus_per_worker, node_timeout)
    planner = Planner(options, workers, ProgressLine(show_progress_bar))
    planner.list_files([os.fspath(path) for path in given])
    is_own = connect(address, insecure)
    try:
        return _Run(planner).run(rows, restart)
    finally:
        planner.progress.close()
        disconnect(is_own)


def _texts(name: str, values: Any) -> list[Any]:
    """The values of an argument that is a list of texts or paths."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise UsageError(f"{name} must be a list of texts, found {type(values).__name__}")
    found = list(values)
    kind = (str, os.PathLike) if name == "inputs" else str
    if not all(isinstance(value, kind) for value in found):
        raise UsageError(f"{name} must be a list of texts")
    return found


@dataclass
class _Run:
    """A run, from its inputs to the list of the shards."""

    planner: Planner

    def run(self, rows: int | None, restart: bool) -> dict[str, Any]:
        """Makes all shards that are not there yet, and their list."""
        started = time.monotonic()
        into = self.planner.options["into"]
        folder = _warpseek.ShardFolder(into, restart)
        try:
            try:
                plan = self.planner.read_plan()
            except UsageError:
                if not folder.is_listed():
                    raise
                # That run was killed when its list was written, and needs no continuation.
                plan = None
            if plan is None:
                # What is wrong with the model or its settings is known before records are counted.
                model = [(self.planner.options,)]
                for _ in results_of(
                    _open_model, model, ["the model"], self.planner.workers, lambda: None
                ):
                    pass
                folder.discard()
                plan = self.planner.make_plan(folder, rows)
            done = self._read_done(plan)
            n_resumed = len(done)
            self._make_shards(folder, plan, done)
            made = [done[number] for number in sorted(done)]
            summaries = [entry["summary"] for entry in made if entry["summary"] is not None]
            report = self._report(made)
            if not summaries:
                folder.discard()
                reason = next(iter(report["messages"]), "the inputs have no documents")
                raise InputError(f"nothing was indexed: {reason}")
            precisions = sorted({str(_warpseek.ShardFolder.precision(s)) for s in summaries})
            if len(precisions) > 1:
                report["notes"].append(
                    f"the shards were embedded in {' and '.join(precisions)}, as the machines "
                    "are: vectors differ in their last digits; precision= chooses one for all"
                )
                report["notes_total"] += 1
            n_rows, documents, generation = folder.finish(summaries)
        finally:
            folder.close()
        return {
            "shards": len(summaries),
            "rows": n_rows,
            "documents": documents,
            "generation": generation,
            "seconds": time.monotonic() - started,
            "resumed": n_resumed,
            **report,
        }

    def _read_done(self, plan: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """The entries of finished shards, by number."""
        done: dict[int, dict[str, Any]] = {}
        path = os.path.join(self.planner.options["into"], DONE_FILE)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    # A line that was cut off is that of a shard to look at again.
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        entry = json.loads(line)
                        number = entry["number"]
                        is_own = entry["id"] == plan["id"] and set(_ENTRY) <= entry.keys()
                        if is_own and number in range(len(plan["parts"])):
                            done[number] = entry
        except FileNotFoundError:
            pass
        except OSError as error:
            raise IndexIOError(f"{path}: {error}", exit_code=8, file=path) from None
        # Shards of this machine, or of all on a folder that they share, must be there.
        here, shares = _machine(), False
        missing = set()
        for number, entry in done.items():
            if entry["summary"] is not None:
                folder = plan["parts"][number]["folder"]
                if not os.path.isdir(os.path.join(self.planner.options["into"], folder)):
                    missing.add(number)
                else:
                    shares = shares or entry["machine"] != here
        for number in missing:
            if shares or done[number]["machine"] == here:
                del done[number]
        return done

    def _make_shards(
        self, folder: Any, plan: dict[str, Any], done: dict[int, dict[str, Any]]
    ) -> None:
        ray = ray_module()
        parts = plan["parts"]
        todo = [number for number in range(len(parts)) if number not in done]
        if not todo:
            return
        counter = ray.remote(_RowCounter).options(num_cpus=0, max_restarts=-1).remote()
        options = self.planner.options
        calls = [(options, plan["id"], number, parts[number], counter) for number in todo]
        total = sum(part["rows"] for part in parts)
        finished = sum(parts[number]["rows"] for number in done)
        running: dict[int, int] = {}

        def look() -> None:
            with contextlib.suppress(ray.exceptions.RayError):
                running.update(ray.get(counter.rows.remote(), timeout=1))
            going = sum(
                min(n, parts[number]["rows"]) for number, n in running.items() if number not in done
            )
            where = f"{len(done)} of {len(parts)} shards"
            self.planner.progress.update(finished + going, total, "rows", where)

        path = os.path.join(self.planner.options["into"], DONE_FILE)
        names = [
            f"{parts[number]['folder']} ({parts[number]['part']['files'][0]['name']} and on)"
            for number in todo
        ]
        found = results_of(_make_shard, calls, names, self.planner.workers, look)
        for at, (report, summary, seconds, machine) in found:
            number = todo[at]
            if summary is not None:
                first = next((e["summary"] for e in done.values() if e["summary"]), summary)
                try:
                    folder.check_same_settings(first, summary)
                except UsageError as error:
                    reason = f"on {machine}: {error}"
                    raise ModelUnavailableError(
                        f"{reason}; give all machines the same, and begin anew with restart=True "
                        "(--restart) if this one has the right one"
                    ) from None
            values = (number, plan["id"], report, summary, seconds, machine)
            entry = dict(zip(_ENTRY, values, strict=True))
            with writing(path, append=True) as file:
                # The line before may have been cut off.
                file.write("\n" + json.dumps(entry) + "\n")
            done[number] = entry
            finished += parts[number]["rows"]

    def _report(self, made: list[dict[str, Any]]) -> dict[str, Any]:
        """The sum of the reports of all parts."""
        names = ("tokens", "tokens_lost", "rows_truncated", "skipped", "notes_total")
        total: dict[str, Any] = {name: 0 for name in names}
        groups: dict[str, dict[str, Any]] = {}
        messages: list[str] = []
        notes: dict[str, None] = {}
        for report in self.planner.reports + [entry["report"] for entry in made]:
            for name in names:
                total[name] += report.get(name, 0)
            messages += report.get("messages", [])
            notes |= dict.fromkeys(report.get("notes", []))
            for group in report.get("left_out", []):
                known = groups.setdefault(group["reason"], {**group, "count": 0, "first": []})
                known["count"] += group["count"]
                known["first"] = (known["first"] + group["first"])[:3]
        machines: dict[str, dict[str, Any]] = {}
        for entry in made:
            if entry["summary"] is not None:
                nothing = {"shards": [], "rows": 0, "seconds": 0.0}
                machine = machines.setdefault(entry["machine"], nothing)
                summary = json.loads(entry["summary"])
                machine["shards"].append(summary["folder"])
                machine["rows"] += summary["rows"]
                machine["seconds"] += entry["seconds"]
        return {
            **total,
            "left_out": list(groups.values()),
            "messages": messages[:_MOST_MESSAGES],
            "notes": list(notes)[:_MOST_MESSAGES],
            "machines": machines,
        }


def _machine() -> str:
    """The name of this machine."""
    return os.uname().nodename if hasattr(os, "uname") else ""


class _RowCounter:
    """Rows of the shards that are being made."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def add(self, number: int, rows: int) -> None:
        """Takes the number of rows of a shard."""
        self._rows[number] = rows

    def rows(self) -> dict[int, int]:
        """The rows by shard."""
        return self._rows


# The indexer of this process, with what it was made for.
_INDEXER: tuple[str, Any] | None = None


def _indexer(options: dict[str, Any]) -> Any:
    global _INDEXER
    key = json.dumps(options, sort_keys=True)
    if _INDEXER is None or _INDEXER[0] != key:
        _warpseek.set_num_threads(options["threads"])
        names = ("model", "chunks", "language", "reading", "settings")
        given = [options[name] for name in names]
        _INDEXER = (key, _warpseek.PartIndexer(*given))
    return _INDEXER[1]


def _open_model(options: dict[str, Any]) -> None:
    """Opens the model, in a task."""
    try:
        _indexer(options)
    except (ModelUnavailableError, DeviceError) as error:
        error.args = (f"on {_machine()}: {error}",)
        raise


def _make_shard(
    options: dict[str, Any], plan: str, number: int, part: dict[str, Any], counter: Any
) -> tuple[dict[str, Any], str | None, float, str]:
    """Makes a shard, in a task. Returns report, summary, seconds and the name of the machine."""
    started = last = time.monotonic()
    machine = _machine()

    def told(rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            counter.add.remote(number, rows)

    try:
        indexer = _indexer(options)
        told_of = json.dumps([plan, part["part"]], sort_keys=True)
        key = hashlib.sha256(told_of.encode()).hexdigest()
        with _objects.local_copies(part["part"]) as local:
            path = os.path.join(options["into"], part["folder"])
            report, summary = indexer.index(path, key, local, told)
    except (ModelUnavailableError, DeviceError) as error:
        # The message names the machine: others may have the model, or the device.
        error.args = (f"on {machine}: {error}",)
        raise
    return report, summary, time.monotonic() - started, machine
