"""``python -m warpseek.ray``: search over shards on the machines of a Ray cluster."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import Any

from warpseek.errors import UsageError, WarpseekError
from warpseek.ray import Cluster
from warpseek.results import Hits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m warpseek.ray", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("batch", "answer a file of queries into a file"),
        ("search", "find the passages that answer a query"),
        ("serve", "serve the index over HTTP until SIGTERM or Ctrl+C"),
        ("status", "show the shards and the machines that hold them"),
        ("verify", "check the files of every shard"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", metavar="SHARDS", help="folder of the shards, or shards.json")
        if name in ("batch", "search"):
            what = "file of queries" if name == "batch" else "query"
            command.add_argument(
                "query", metavar="QUERIES" if name == "batch" else "QUERY", help=what
            )
            command.add_argument("-k", "--top-k", type=int, default=10, metavar="N")
            command.add_argument("--filter", metavar="CONDITION")
            command.add_argument("--min-score", type=float, metavar="SCORE")
            command.add_argument("--max-per-doc", type=int, metavar="N")
            command.add_argument("--mmr-lambda", type=float, metavar="LAMBDA")
            command.add_argument("--rerank-depth", type=int, metavar="N")
            command.add_argument("--model", metavar="MODEL")
            command.add_argument("--reranker", metavar="MODEL")
        if name == "serve":
            command.add_argument("--name", metavar="NAME", help="name of the index")
            command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")
            command.add_argument("--port", type=int, default=8080, metavar="PORT")
            command.add_argument("--api-key-file", metavar="FILE", help="one key per line")
            command.add_argument("--model", metavar="MODEL")
            command.add_argument("--reranker", metavar="MODEL")
        if name == "batch":
            command.add_argument("--out", required=True, metavar="FILE")
            command.add_argument("--format", choices=("jsonl", "trec", "parquet"))
            command.add_argument("--with-text", action="store_true")
            command.add_argument("--restart", action="store_true")
        command.add_argument("--address", metavar="HOST:PORT", help="head of the cluster")
        command.add_argument(
            "--replicas", type=int, default=1, metavar="R", help="actors per shard"
        )
        command.add_argument("--cpus-per-shard", type=float, default=1, metavar="N")
        command.add_argument("--gpus-per-shard", type=float, default=0, metavar="N")
        command.add_argument("--pinned", action="store_true", help="only where the resource is")
        command.add_argument("--node-timeout", type=float, default=60, metavar="SECONDS")
        command.add_argument(
            "--insecure", action="store_true", help="allow a cluster without token"
        )
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes")
    return parser


def _serve(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Serves until a signal ends it."""
    keys: list[str] = []
    if arguments.api_key_file:
        try:
            with open(arguments.api_key_file, encoding="utf-8") as file:
                keys = [line.strip() for line in file if line.strip()]
        except OSError as error:
            raise UsageError(f"--api-key-file: {error}") from None
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    host, port = arguments.host, arguments.port
    with cluster.serve(name=arguments.name, host=host, port=port, api_keys=keys) as server:
        print(f"serving at {server.url}", flush=True)
        while not ended.wait(1.0) and server.is_running:
            pass


def _report(cluster: Cluster, arguments: argparse.Namespace) -> tuple[Any, list[str], int]:
    """The result as JSON, as lines, and the exit status."""
    if arguments.command == "status":
        shards = cluster.status()
        lines = [
            f"{shard['folder']}  {shard['rows']:,} rows  "
            + ", ".join(f"{r['machine']} ({r['device']})" for r in shard["replicas"])
            for shard in shards
        ]
        return shards, lines, 0
    if arguments.command == "verify":
        checks = cluster.verify()
        damaged = [check for check in checks if check["problem"]]
        lines = [
            f"DAMAGED  {check['check']}: {check['problem']}"
            if check["problem"]
            else f"ok       {check['check']}"
            for check in checks
        ]
        return {"sound": not damaged, "checks": checks}, lines, 5 if damaged else 0
    options = {
        "where": arguments.filter,
        "min_score": arguments.min_score,
        "max_per_doc": arguments.max_per_doc,
        "mmr": arguments.mmr_lambda,
        "rerank_depth": arguments.rerank_depth,
        "rerank": bool(arguments.rerank_depth or arguments.reranker),
    }
    if arguments.command == "search":
        hits = cluster.search(arguments.query, arguments.top_k, **options)
        assert isinstance(hits, Hits)
        lines = [f"{hit.rank:2}  {hit.final_score or 0:.4f}  {hit.id}  {hit.text}" for hit in hits]
        return [vars(hit) for hit in hits], lines, 0 if hits else 1
    report = cluster.batch(
        arguments.query,
        arguments.out,
        arguments.top_k,
        format=arguments.format,
        with_text=arguments.with_text,
        restart=arguments.restart,
        show_progress_bar=False if arguments.quiet or arguments.json else None,
        **options,
    )
    seconds = {
        "scans": report["cluster"].get("scan_seconds", 0),
        "waiting": report["cluster"].get("wait_seconds", 0),
        "merging": report["took_ms"]["fuse"] / 1e3,
        "fetching": report["cluster"].get("fetch_seconds", 0),
        "embedding": report["took_ms"]["embed"] / 1e3,
    }
    rate = (report["queries"] - report["resumed"]) / max(report["seconds"], 1e-9)
    lines = [
        f"{arguments.out}: {report['queries']:,} queries, {report['hits']:,} hits in "
        f"{report['seconds']:.2f} s ({rate:.0f} queries/s)",
        ", ".join(f"{name} {time:.2f} s" for name, time in seconds.items()),
    ]
    return report, lines, 0


def main() -> int:
    """Runs a command line. Exit statuses are those of ``warpseek``."""
    arguments = _parser().parse_args()
    try:
        with Cluster(
            arguments.path,
            address=arguments.address,
            replicas=arguments.replicas,
            cpus_per_shard=arguments.cpus_per_shard,
            gpus_per_shard=arguments.gpus_per_shard,
            pinned=arguments.pinned,
            node_timeout=arguments.node_timeout,
            model=getattr(arguments, "model", None),
            reranker=getattr(arguments, "reranker", None),
            insecure=arguments.insecure,
        ) as cluster:
            if arguments.command == "serve":
                _serve(cluster, arguments)
                return 0
            value, lines, status = _report(cluster, arguments)
    except WarpseekError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"error: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(value))
    else:
        print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
