"""Measures search and indexing over shards on the nodes of a Ray cluster on this machine, each pinned to one core.

    python benches/cluster.py search [--rows N] [--shards N] [--queries N] [-k N ...]
    python benches/cluster.py index FILE [--rows N]

Needs two cores and the package with the extra `ray`. `search` answers queries over random vectors, --base of them different,
on one node with all shards and on two with half of them each. It prints seconds, and the share of them in which the
shard that scanned longest did not scan: the driver's own work that is not hidden. `index` indexes a file of records
with one worker and with two, and prints tokens per second. The process that asks, and Ray's own, share the two cores.
The first run of each is not counted: it starts processes and reads the shards.
"""

import argparse
import json
import os
import pathlib
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))

import numpy as np
import ray
import warpseek
from ray.cluster_utils import Cluster as Nodes
from warpseek.ray import Cluster, index

DIM = 384


def pinned(parts, cpus):
    """A head and a node per part on a core of its own, which has the resources of these shards."""
    cores = sorted(os.sched_getaffinity(0))
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    for core, part in zip(cores, parts, strict=False):
        os.sched_setaffinity(0, {core})
        nodes.add_node(num_cpus=cpus, resources={f"{shard:05}.ws": 1 for shard in part})
    os.sched_setaffinity(0, cores)
    return nodes


def ended(nodes):
    ray.shutdown()
    nodes.shutdown()


def unit(random, n):
    vectors = random.standard_normal((n, DIM), dtype="f4")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(place, arguments):
    """The shards and the queries."""
    random = np.random.default_rng(1)
    np.save(place / "queries.npy", unit(random, arguments.queries))
    base = unit(random, min(arguments.base, arguments.rows))
    left = arguments.rows
    with warpseek.Index.create(place / "whole", dim=DIM, model=None) as whole:
        while left:
            part = base[random.permutation(len(base))][:left]
            ids = [f"{arguments.rows - left + i}" for i in range(len(part))]
            whole.add([{"id": name, "text": name} for name in ids], vectors=part)
            left -= len(part)
    rows = str(-(-arguments.rows // arguments.shards))
    command = ["shard", str(place / "whole"), "--rows", rows, "--into", str(place / "shards"), "--quiet"]
    subprocess.run([sys.executable, "-m", "warpseek", *command], check=True)
    shutil.rmtree(place / "whole")


def search(place, arguments):
    made(place, arguments)
    shards = list(range(arguments.shards))
    half = arguments.shards // 2
    medians = {}
    for name, parts in (("one", [shards]), ("two", [shards[:half], shards[half:]])):
        nodes = pinned(parts, arguments.shards)
        with Cluster(place / "shards", address=nodes.address, pinned=True) as cluster:
            for k in arguments.k:
                runs = []
                for _ in range(arguments.runs + 1):
                    report = cluster.batch(place / "queries.npy", place / "out.jsonl", k, restart=True)
                    idle = 1 - report["cluster"]["scan_seconds"] / report["seconds"]
                    runs.append((report["seconds"], idle))
                    print(f"{name}, k = {k}: {runs[-1][0]:.2f} s, {idle:.1%} without a scan", flush=True)
                medians[name, k] = statistics.median(seconds for seconds, _ in runs[1:])
        ended(nodes)
    for k in arguments.k:
        print(f"k = {k}: two nodes are {medians['one', k] / medians['two', k]:.2f} times one")


def indexing(place, arguments):
    few = place / "few.jsonl"
    with open(arguments.file, encoding="utf-8") as lines:
        few.write_text("".join(line for _, line in zip(range(40), lines, strict=False)))
    rates = {}
    for run in range(arguments.runs):
        for n in (1, 2):
            nodes = pinned([[]] * n, 1)
            index(few, place / "out", address=nodes.address, rows=10, restart=True)
            report = index(arguments.file, place / "out", address=nodes.address, rows=arguments.rows, restart=True)
            work = sum(machine["seconds"] for machine in report["machines"].values())
            rates.setdefault(n, []).append(report["tokens"] / report["seconds"])
            print(
                f"{n} workers: {report['tokens']:,} tokens in {report['seconds']:.1f} s, {rates[n][-1]:.0f} tokens/s; "
                f"{report['tokens'] / work * n:.0f} by the seconds of the tasks",
                flush=True,
            )
            ended(nodes)
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    print(json.dumps({"one": one, "two": two, "of_twice": two / one / 2}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("search")
    one.add_argument("--rows", type=int, default=2_000_000)
    one.add_argument("--base", type=int, default=400_000, help="distinct rows")
    one.add_argument("--shards", type=int, default=20)
    one.add_argument("--queries", type=int, default=8_192)
    one.add_argument("-k", type=int, nargs="+", default=[10, 100])
    one.add_argument("--runs", type=int, default=3)
    other = commands.add_parser("index")
    other.add_argument("file", type=pathlib.Path)
    other.add_argument("--rows", type=int, default=1_000, help="rows per shard")
    other.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        (search if arguments.command == "search" else indexing)(pathlib.Path(place), arguments)


if __name__ == "__main__":
    main()
