"""The actors that hold shards, and the object that asks them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warpseek import _warpseek
from warpseek._settings import settings
from warpseek.errors import IndexIOError, UsageError, WarpseekError
from warpseek.ray._connection import ATTEMPTS, MAY_PASS, PING, PROCESSES, TICK, ray_module

if TYPE_CHECKING:
    from collections.abc import Callable

# The fewest queries of a part that a replica scans.
_LEAST_QUERIES = 16


@dataclass
class Placement:
    """Where and how many actors are, and how long to wait for them."""

    replicas: int
    cpus: float
    gpus: float
    pinned: bool
    node_timeout: float


class ShardActor:
    """Holds a shard, in a process of its own. The shard is opened when it is first asked for."""

    def __init__(self, path: str, number: int, checksum: str, threads: int, device: str) -> None:
        self._path, self._number, self._checksum, self._device = path, number, checksum, device
        self._shard: Any = None
        self._lock = threading.Lock()
        _warpseek.set_num_threads(threads)

    def _opened(self) -> Any:
        with self._lock:
            if self._shard is None:
                given = settings(self._device, None, None, None)
                shard = _warpseek.Shard(self._path, self._number, self._checksum, given)
                self._shard = shard
            return self._shard

    def open(self) -> dict[str, Any]:
        """Opens the shard, and tells what and where it is."""
        shard = self._opened()
        node = os.uname().nodename if hasattr(os, "uname") else ""
        return {"rows": shard.n_rows, "machine": node, "pid": os.getpid(), "device": shard.device}

    def ping(self) -> int:
        """The number of this process, at once."""
        return os.getpid()

    def scan(self, queries: bytes, k: int, filters: list[str], filter_of: list[int | None]) -> Any:
        """The first `k` rows of queries, and the seconds that it took."""
        started = time.perf_counter()
        answer = self._opened().scan(queries, k, filters, filter_of)
        return answer, time.perf_counter() - started

    def fetch(self, what: str, numbers: list[int]) -> bytes:
        """What is asked for of rows."""
        return self._opened().fetch(what, numbers)

    def verify(self, folder: str) -> list[dict[str, Any]]:
        """Checks the files of the shard."""
        from warpseek.index import Index

        with Index(folder) as index:
            return index.verify()


class Clock:
    """The time during which at least one call runs, of calls on several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._since = 0, 0.0
        self._reported: dict[tuple[int, int], float] = defaultdict(float)
        self.seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._running == 0:
                self._since = time.perf_counter()
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self.seconds += time.perf_counter() - self._since

    def add(self, actor: tuple[int, int], seconds: float) -> None:
        """Adds to the seconds that an actor reports of its calls."""
        with self._lock:
            self._reported[actor] += seconds

    def longest(self) -> float:
        """The most seconds that an actor reported."""
        with self._lock:
            return max(self._reported.values(), default=0.0)


def _joined(parts: list[Any]) -> Any:
    """The answer of a shard to all queries, from those to parts of them."""
    if len(parts) == 1:
        return parts[0]
    counts, rows, scores = (b"".join(part[i] for part in parts) for i in range(3))
    return counts, rows, scores, parts[0][3], parts[0][4]


class Shards:
    """The actors of all shards. The core calls `scan` and `fetch`."""

    def __init__(self, path: str, placement: Placement) -> None:
        folder, self._checksum, shards = _warpseek.shard_list(path)
        self.folder = os.fspath(folder)
        self._folders = [name for name, _ in shards]
        self._rows = [rows for _, rows in shards]
        self._placement = placement
        self._actors: list[list[Any]] = []
        self._turns = itertools.count()
        self._scans, self._fetches = Clock(), Clock()

    def __len__(self) -> int:
        return len(self._folders)

    def start(self) -> None:
        """Starts the actors and waits until every shard is open."""
        ray = ray_module()
        wanted = self._placement
        threads = max(1, int(wanted.cpus))
        device = "cuda:0" if wanted.gpus else "cpu"
        # A process that works says so, however many calls wait. Scans come one after another, each
        # with all threads; rows are read beside them.
        ShardActor.ping = ray.method(concurrency_group="alive")(ShardActor.ping)  # type: ignore[method-assign]
        ShardActor.scan = ray.method(concurrency_group="scan")(ShardActor.scan)  # type: ignore[method-assign]
        actor = ray.remote(concurrency_groups={"alive": 1, "scan": 1})(ShardActor)
        for number, folder in enumerate(self._folders):
            options = {
                "num_cpus": wanted.cpus,
                "num_gpus": wanted.gpus,
                "resources": {folder: 0.001} if wanted.pinned else {},
                "max_restarts": -1,
                # A lost machine costs many attempts within seconds; `_ask` counts processes.
                "max_task_retries": -1,
                "max_concurrency": 4,
            }
            replica = actor.options(**options)
            self._actors.append(
                [
                    replica.remote(self.folder, number, self._checksum, threads, device)
                    for _ in range(wanted.replicas)
                ]
            )
        self._ask([(i, r, "open", ()) for i in range(len(self)) for r in range(wanted.replicas)])

    def stop(self) -> None:
        """Ends the actors."""
        if self._actors:
            ray = ray_module()
            for actor in (actor for replicas in self._actors for actor in replicas):
                ray.kill(actor)
            self._actors = []

    def scan(
        self, queries: bytes, k: int, filters: list[str], filter_of: list[int | None]
    ) -> list[Any]:
        """The answers of all shards, in their order. Replicas share the queries."""
        n, n_replicas = len(filter_of), self._placement.replicas
        parts = min(n_replicas, max(1, n // _LEAST_QUERIES))
        size, bounds = len(queries) // n, [n * part // parts for part in range(parts + 1)]
        calls = []
        for first, end in itertools.pairwise(bounds):
            vectors = ray_module().put(queries[first * size : end * size])
            arguments = (vectors, k, filters, filter_of[first:end])
            replica = self._next()
            calls += [(shard, replica, "scan", arguments) for shard in range(len(self))]
        clock = self._scans
        with clock:
            found = self._ask(calls)
        for (shard, replica, *_), (_, seconds) in zip(calls, found, strict=True):
            clock.add((shard, replica), seconds)
        answers = [answer for answer, _ in found]
        return [_joined(answers[shard :: len(self)]) for shard in range(len(self))]

    def fetch(self, what: str, requests: list[tuple[int, list[int]]]) -> list[bytes]:
        """What is asked for of rows, per shard and its rows."""
        replica = self._next()
        with self._fetches:
            return self._ask([(i, replica, "fetch", (what, rows)) for i, rows in requests])

    def reset_times(self) -> None:
        """Begins to measure times anew."""
        self._scans, self._fetches = Clock(), Clock()

    def times(self) -> dict[str, float]:
        """Seconds since the last reset.

        During which scans were asked for, of the scans of the shard (and replica) that took
        longest, of waiting for answers beyond that, and of waiting for rows.
        """
        busy, scans = self._scans.seconds, self._scans.longest()
        return {
            "busy_seconds": busy,
            "scan_seconds": scans,
            "wait_seconds": max(0.0, busy - scans),
            "fetch_seconds": self._fetches.seconds,
        }

    def stats(self) -> list[bytes]:
        """The statistics of every shard, as the core packs them."""
        return self._ask([(i, 0, "fetch", ("stats", [])) for i in range(len(self))])

    def status(self) -> list[dict[str, Any]]:
        """The shards and where they are."""
        replicas = range(self._placement.replicas)
        found = self._ask([(i, r, "open", ()) for i in range(len(self)) for r in replicas])
        parts = [found[i : i + len(replicas)] for i in range(0, len(found), len(replicas))]
        return [
            {"folder": folder, "rows": rows, "replicas": part}
            for folder, rows, part in zip(self._folders, self._rows, parts, strict=True)
        ]

    def verify(self) -> list[dict[str, Any]]:
        """Checks the files of every shard where they are."""
        calls = [
            (i, 0, "verify", (os.path.join(self.folder, folder),))
            for i, folder in enumerate(self._folders)
        ]
        found = zip(self._folders, self._ask(calls), strict=True)
        return [
            {**check, "check": f"{folder}: {check['check']}"}
            for folder, checks in found
            for check in checks
        ]

    def _next(self) -> int:
        """The replica whose turn it is."""
        return next(self._turns) % self._placement.replicas

    def _ask(self, calls: list[tuple[int, int, str, tuple[Any, ...]]]) -> list[Any]:
        """The results of calls, each a shard, its replica, a method and arguments."""
        ray = ray_module()
        if not self._actors:
            raise UsageError("the cluster is closed: open it again")

        def start(call: tuple[int, int, str, tuple[Any, ...]]) -> Any:
            shard, replica, method, arguments = call
            return getattr(self._actors[shard][replica], method).remote(*arguments)

        running = {start(call): at for at, call in enumerate(calls)}
        try:
            return self._results(calls, running, start)
        finally:
            # After an error the others would keep the next calls waiting.
            for reference in running:
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    ray.cancel(reference)

    def _results(
        self,
        calls: list[tuple[int, int, str, tuple[Any, ...]]],
        running: dict[Any, int],
        start: Callable[[tuple[int, int, str, tuple[Any, ...]]], Any],
    ) -> list[Any]:
        """Waits for the results of calls. `running` has those that are not yet there."""
        ray = ray_module()
        results: list[Any] = [None] * len(calls)
        attempts = [1] * len(calls)
        heard = time.monotonic()
        seen: dict[tuple[int, int], set[int]] = defaultdict(set)
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=TICK)
            if _warpseek.stop_requested():
                raise KeyboardInterrupt
            if done:
                heard = time.monotonic()
            elif time.monotonic() - heard > self._placement.node_timeout:
                self._check_alive({calls[at][:2] for at in running.values()}, seen)
                heard = time.monotonic()
            for reference in done:
                at = running.pop(reference)
                try:
                    results[at] = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    passes = isinstance(cause, WarpseekError) and cause.exit_code in MAY_PASS
                    if passes and attempts[at] < ATTEMPTS:
                        time.sleep(0.2 * attempts[at])
                        attempts[at] += 1
                        running[start(calls[at])] = at
                        continue
                    raise cause from None
                except ray.exceptions.RayError as error:
                    raise self._lost({calls[at][0]}, str(error)) from None
        return results

    def _check_alive(
        self, waiting: set[tuple[int, int]], seen: dict[tuple[int, int], set[int]]
    ) -> None:
        """Raises if actors that are waited for do not answer, or end again and again.

        `seen` has the processes of each that have answered during this call.
        """
        ray = ray_module()
        pings = {self._actors[i][r].ping.remote(): (i, r) for i, r in waiting}
        _, silent = ray.wait(list(pings), num_returns=len(pings), timeout=PING)
        if silent:
            wanted = self._placement
            needs = [f"{wanted.cpus:g} CPUs", *([f"{wanted.gpus:g} GPUs"] if wanted.gpus else [])]
            needs += ["the resource of its name"] if wanted.pinned else []
            reason = (
                f"no machine holds it after {wanted.node_timeout:.0f} s; it needs "
                f"{' and '.join(needs)}, and `ray status` shows what is there"
            )
            raise self._lost({pings[ping][0] for ping in silent}, reason)
        for ping, actor in pings.items():
            seen[actor].add(ray.get(ping))
            if len(seen[actor]) > PROCESSES:
                reason = f"its process ended {PROCESSES} times during one call"
                raise self._lost({actor[0]}, reason)

    def _lost(self, shards: set[int], reason: str) -> IndexIOError:
        folders = [self._folders[i] for i in sorted(shards)]
        path = os.path.join(self.folder, folders[0])
        more = f" (and {len(folders) - 1} more)" if len(folders) > 1 else ""
        lost = IndexIOError(f"{path}{more}: {reason}", exit_code=8, file=path)
        # The server answers that it is away, not that it is broken.
        vars(lost)["is_lost"] = True
        return lost
