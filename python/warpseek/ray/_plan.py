"""The plan of indexing: the files of the inputs, cut into parts that become shards."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from warpseek import _warpseek
from warpseek.errors import IndexIOError, InputError, UsageError
from warpseek.ray import _objects
from warpseek.ray._connection import ray_module
from warpseek.ray._progress import ProgressLine
from warpseek.ray._tasks import Workers, results_of

# Bytes of input, by which rows are estimated where records are not counted.
_ROW_BYTES = 1000

# The most and the fewest rows of a shard, where their number is not given.
_MOST_ROWS, _LEAST_ROWS = 1_000_000, 5_000

# Shards per process, so that none waits long for the last one.
_SHARDS_PER_WORKER = 4

# Bytes of files whose records one task counts.
_COUNTED_BYTES = 256 << 20

_PLAN_FILE = ".shards.plan"

# Beside it, the entries of finished shards.
DONE_FILE = ".shards.done"


@dataclass
class Planner:
    """Lists the files of inputs, and plans the shards. `options` has all that rows depend on."""

    options: dict[str, Any]
    workers: Workers
    progress: ProgressLine
    files: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def list_files(self, inputs: list[str]) -> None:
        """Lists the files of the inputs, those on disk first."""
        reading = self.options["reading"]
        local = [path for path in inputs if not _objects.is_address(path)]
        objects = [path for path in inputs if _objects.is_address(path)]
        if local or not objects:
            found, left_out = _warpseek.list_files(local, reading, self.options["into"])
            self.files += json.loads(found)
            self.reports.append(left_out)
        names: list[str] = []
        known = set()
        for address in objects:
            for file in _objects.listed(address, names):
                # Addresses may lie below each other, or be named twice.
                if file["name"] not in known:
                    self.files.append(file)
                known.add(file["name"])
        twice = [name for name, n in Counter(f["name"] for f in self.files).items() if n > 1]
        if twice:
            raise InputError(f"{twice[0]}: two files have this name in messages: rename one")
        if names:
            group = {"reason": "unknown type or empty", "count": len(names), "first": names[:3]}
            self.reports.append({"left_out": [group | {"detail": group["reason"]}]})

    def _key(self) -> str:
        """The SHA-256 of the files as they are and of all that rows depend on."""
        options = {name: value for name, value in self.options.items() if name != "threads"}
        told = json.dumps([_warpseek.version(), self.files, options], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def read_plan(self) -> dict[str, Any] | None:
        """The plan of an unfinished run, which must be one of the same inputs and settings."""
        path = os.path.join(self.options["into"], _PLAN_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                plan: dict[str, Any] = json.load(file)
            if not isinstance(plan, dict) or not {"key", "id", "parts"} <= plan.keys():
                raise ValueError("this is no plan")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise IndexIOError(
                f"{path}: {error}; restart=True (--restart) begins anew", exit_code=8, file=path
            ) from None
        if plan["key"] != self._key():
            if not self._has_begun(plan):
                return None
            raise UsageError(
                f"{self.options['into']}: an unfinished run there had other inputs or settings, or "
                "another version of the program, or files have changed since: repeat the call as "
                "it was, or begin anew with restart=True (--restart)"
            )
        return plan

    def _has_begun(self, plan: dict[str, Any]) -> bool:
        """True if a shard of a plan was begun here or anywhere finished."""
        names = [DONE_FILE, *(part["folder"] for part in plan["parts"])]
        return any(os.path.exists(os.path.join(self.options["into"], name)) for name in names)

    def make_plan(self, folder: Any, rows: int | None) -> dict[str, Any]:
        """Plans shards of about `rows` rows, and saves the plan."""
        listed = json.dumps(self.files)
        facts, text_columns, labels = _warpseek.listed_facts(listed)
        counts, duplicates = self._count(facts, sorted(text_columns), labels)
        splits = self.options["chunks"][2]

        def size(number: int) -> int:
            estimated = max(1, facts[number]["length"] // _ROW_BYTES)
            if number not in counts:
                return estimated
            return max(counts[number], estimated) if splits else max(1, counts[number])

        sizes = [size(number) for number in range(len(facts))]
        if rows is None:
            wanted = math.ceil(sum(sizes) / (_SHARDS_PER_WORKER * max(1, self.workers.capacity())))
            rows = min(_MOST_ROWS, max(_LEAST_ROWS, wanted))
        parts: list[dict[str, Any]] = []
        for numbers, records in _cut(sizes, counts, rows):
            places = {number: place for place, number in enumerate(numbers)}
            twice = [
                (places[number], record, earlier)
                for number in numbers
                for record, earlier in duplicates.get(number, ())
            ]
            part = {
                "files": [self.files[number] for number in numbers],
                "records": records,
                "text_columns": sorted(text_columns),
                "duplicates": twice,
            }
            share = 1.0 if records is None else (records[1] - records[0]) / counts[numbers[0]]
            estimate = max(1, round(share * sum(sizes[number] for number in numbers)))
            parts.append({"folder": folder.name(len(parts)), "rows": estimate, "part": part})
        # Shards that an earlier plan has left on other machines are told from those of this one.
        plan = {"key": self._key(), "id": secrets.token_hex(16), "parts": parts}
        path = os.path.join(self.options["into"], _PLAN_FILE)
        # Without the plan, the next run removes what this one has begun.
        folder.begin([part["folder"] for part in parts])
        with writing(path) as file:
            json.dump(plan, file)
        return plan

    def _count(
        self, facts: list[Mapping[str, Any]], text_columns: list[str], labels: bytes
    ) -> tuple[dict[int, int], dict[int, list[tuple[int, str]]]]:
        """Records per file that has records, and per file those whose id occurred before.

        A later record is left out where bad records are skipped, and is an error elsewhere.
        """
        groups: list[list[int]] = []
        n_bytes = _COUNTED_BYTES
        for number, fact in enumerate(facts):
            if fact["has_records"]:
                if n_bytes >= _COUNTED_BYTES:
                    groups.append([])
                    n_bytes = 0
                groups[-1].append(number)
                n_bytes += fact["length"]
        if not groups:
            return {}, {}
        # Reading needs no GPU, and one thread per file.
        workers = Workers(1, 0, self.workers.node_timeout)
        parts = [
            {"files": [self.files[number] for number in group], "text_columns": text_columns}
            for group in groups
        ]
        sent = ray_module().put(labels)
        calls = [(part, sent, self.options["reading"]) for part in parts]
        names = [facts[group[0]]["name"] + (" and others" if group[1:] else "") for group in groups]
        lists: dict[int, bytes] = {}
        done = 0
        total = sum(facts[number]["length"] for group in groups for number in group)
        for at, (lengths, ids) in results_of(_count_records, calls, names, workers, lambda: None):
            first = 0
            for number, length in zip(groups[at], lengths, strict=True):
                lists[number] = ids[16 * first : 16 * (first + length)]
                first += length
                done += facts[number]["length"]
            self.progress.update(done / 1e6, total / 1e6, "MB", "counting records")
        counts = {number: len(ids) // 16 for number, ids in lists.items()}
        numbers = sorted(lists)
        pairs = _warpseek.duplicate_ids([lists[number] for number in numbers])
        duplicates: dict[int, list[tuple[int, str]]] = defaultdict(list)
        strict = self.options["reading"]["on_error"] == "raise"
        skips = self.options["reading"]["on_error"] == "skip"
        for (first, _), (second, record) in pairs:
            number, earlier = numbers[second], facts[numbers[first]]["name"]
            if not skips and (strict or not facts[number]["is_found"]):
                part = {"files": [self.files[number]], "text_columns": text_columns}
                with _objects.local_copies(part) as local:
                    found, place = _warpseek.record_at(local, record, self.options["reading"])
                other = f", also in {earlier}" if earlier != facts[number]["name"] else ""
                raise InputError(
                    f"{place}: the id '{found}' occurs twice in this input{other}: make ids unique",
                    file=facts[number]["name"],
                )
            duplicates[number].append((record, earlier))
        return counts, duplicates


def _cut(
    sizes: list[int], counts: dict[int, int], rows: int
) -> Iterator[tuple[list[int], tuple[int, int] | None]]:
    """Parts of about `rows` rows: numbers of files, or of one file and its records."""
    current: list[int] = []
    filled = 0
    for number, size in enumerate(sizes):
        n_parts = min(math.ceil(size / rows), counts.get(number, 1))
        if current and filled + size > rows:
            yield current, None
            current, filled = [], 0
        if n_parts <= 1:
            current.append(number)
            filled += size
            continue
        bounds = [counts[number] * i // n_parts for i in range(n_parts + 1)]
        for first, end in itertools.pairwise(bounds):
            yield [number], (first, end)
    if current:
        yield current, None


@contextlib.contextmanager
def writing(path: str, append: bool = False) -> Iterator[Any]:
    """A file that is whole on disk when it is closed, or a line at its end."""
    target = path if append else f"{path}.partial"
    mode = os.O_APPEND if append else os.O_TRUNC
    try:
        # Addresses of stores can have keys in their parameters.
        handle = os.open(target, os.O_CREAT | os.O_WRONLY | mode, 0o600)
        with open(handle, "a" if append else "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not append:
            os.replace(target, path)
    except OSError as error:
        raise IndexIOError(f"{path}: {error}", exit_code=8, file=path) from None


def _count_records(
    part: dict[str, Any], labels: bytes, reading: dict[str, Any]
) -> tuple[list[int], bytes]:
    """The records of files and the hashes of their ids, in a task."""
    with _objects.local_copies(part) as local:
        found: tuple[list[int], bytes] = _warpseek.record_ids(local, labels, reading)
    return found
