"""Tasks of a Ray cluster: as many at a time as the machines hold, repeated if they are lost."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from warpseek.errors import IndexIOError, IndexLockedError, WarpseekError
from warpseek.ray._connection import ATTEMPTS, MAY_PASS, PROCESSES, TICK, ray_module


@dataclass(frozen=True)
class Workers:
    """The resources of a task, and the time to wait for a machine that has them."""

    cpus: float
    gpus: float
    node_timeout: float

    def capacity(self) -> int:
        """The number of tasks that all machines together can hold."""
        capacity = 0
        for node in ray_module().nodes():
            if node["Alive"]:
                has = node["Resources"]
                most = [has.get("CPU", 0) / self.cpus]
                most += [has.get("GPU", 0) / self.gpus] if self.gpus else []
                capacity += math.floor(min(most) + 1e-9)
        return capacity

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


def results_of(
    function: Callable[..., Any],
    calls: list[tuple[Any, ...]],
    names: list[str],
    workers: Workers,
    look: Callable[[], None],
) -> Iterator[tuple[int, Any]]:
    """Runs calls as tasks, as many as the machines hold, and yields numbers and results.

    `names` say in messages what each call is about. Calls `look` from time to time.
    """
    ray = ray_module()
    task = ray.remote(function).options(
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        max_retries=PROCESSES - 1,
        scheduling_strategy="SPREAD",
    )
    waiting = deque((0.0, number) for number in range(len(calls)))
    running: dict[Any, int] = {}
    attempts = [1] * len(calls)
    locked: dict[int, float] = {}
    lacking: float | None = None
    try:
        while waiting or running:
            now, capacity = time.monotonic(), workers.capacity()
            lacking = None if capacity else (lacking or now)
            if lacking is not None and now - lacking > workers.node_timeout:
                raise IndexIOError(
                    f"no machine of the cluster has {workers} for a process after "
                    f"{workers.node_timeout:.0f} s; `ray status` shows what is there",
                    exit_code=8,
                )
            while waiting and len(running) < capacity and waiting[0][0] <= now:
                number = waiting.popleft()[1]
                running[task.remote(*calls[number])] = number
            look()
            if not running:
                time.sleep(TICK)
                continue
            finished, _ = ray.wait(list(running), num_returns=1, timeout=TICK)
            for reference in finished:
                number = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    now = time.monotonic()
                    if isinstance(cause, IndexLockedError):
                        # A process of an earlier run that has not ended yet.
                        waits = now - locked.setdefault(number, now) < workers.node_timeout
                    else:
                        passes = isinstance(cause, WarpseekError) and cause.exit_code in MAY_PASS
                        waits = passes and attempts[number] < ATTEMPTS
                        attempts[number] += 1
                    if not isinstance(cause, WarpseekError):
                        raise WarpseekError(f"{names[number]}: {cause!r}") from cause
                    if not waits:
                        raise cause from None
                    waiting.append((now + 1, number))
                except ray.exceptions.RayError as error:
                    reason = f"{PROCESSES} processes ended, one after the other ({error})"
                    raise IndexIOError(f"{names[number]}: {reason}", exit_code=8) from None
                else:
                    yield number, result
    finally:
        for reference in running:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
