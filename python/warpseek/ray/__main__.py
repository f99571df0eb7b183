"""``python -m warpseek.ray``: search over shards on the machines of a Ray cluster, and indexing."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import Any, TextIO

from warpseek.errors import UsageError, WarpseekError
from warpseek.ray import Cluster, index
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
        command.add_argument(
            "--replicas", type=int, default=1, metavar="R", help="actors per shard"
        )
        command.add_argument("--cpus-per-shard", type=float, default=1, metavar="N")
        command.add_argument("--gpus-per-shard", type=float, default=0, metavar="N")
        command.add_argument("--pinned", action="store_true", help="only where the resource is")
        _add_common(command)
    text = "read, chunk and embed documents, and store them in shards"
    command = commands.add_parser("index", help=text, description=text)
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files and folders that every machine has at this path, or s3://bucket/key",
    )
    command.add_argument("--into", required=True, metavar="DIR", help="folder of the shards")
    command.add_argument("--rows", type=int, metavar="N", help="rows per shard, about")
    command.add_argument("--model", metavar="MODEL")
    command.add_argument("--dimensions", type=int, metavar="N")
    command.add_argument("--precision", metavar="NAME")
    command.add_argument("--chunk", action="store_true", help="split records too")
    command.add_argument("--chunk-tokens", type=int, metavar="N")
    command.add_argument("--chunk-overlap", type=int, metavar="N")
    command.add_argument("--language", metavar="CODE")
    for name in ("id", "text", "title"):
        command.add_argument(f"--{name}-field", metavar="NAME")
    command.add_argument("--metadata-fields", metavar="NAME,...", help="fields to keep")
    command.add_argument("--on-error", choices=("stop", "skip"))
    command.add_argument("--delimiter", metavar="CHAR")
    command.add_argument("--glob", action="append", default=[], metavar="PATTERN")
    command.add_argument("--no-ignore", action="store_true", help="read what ignore files name")
    command.add_argument("--cpus-per-worker", type=float, default=1, metavar="N")
    command.add_argument("--gpus-per-worker", type=float, default=0, metavar="N")
    command.add_argument("--restart", action="store_true", help="discard an unfinished run")
    _add_common(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    """Adds the options that all commands have."""
    command.add_argument("--address", metavar="HOST:PORT", help="head of the cluster")
    command.add_argument("--node-timeout", type=float, default=60, metavar="SECONDS")
    command.add_argument("--insecure", action="store_true", help="allow a cluster without token")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes")


def _index(arguments: argparse.Namespace) -> tuple[Any, list[str], int]:
    """Indexes; the report as JSON, as lines, and the exit status."""
    names = arguments.metadata_fields
    quiet = arguments.quiet or arguments.json
    report = index(
        arguments.inputs,
        arguments.into,
        address=arguments.address,
        rows=arguments.rows,
        model=arguments.model,
        truncate_dim=arguments.dimensions,
        split_records=arguments.chunk,
        chunk_tokens=arguments.chunk_tokens,
        chunk_overlap=arguments.chunk_overlap,
        language=arguments.language,
        id=arguments.id_field,
        text=arguments.text_field,
        title=arguments.title_field,
        metadata=None if names is None else [name for name in names.split(",") if name],
        on_error={"stop": "raise", "skip": "skip", None: None}[arguments.on_error],
        delimiter=arguments.delimiter,
        globs=arguments.glob,
        ignore_files=not arguments.no_ignore,
        cpus_per_worker=arguments.cpus_per_worker,
        gpus_per_worker=arguments.gpus_per_worker,
        node_timeout=arguments.node_timeout,
        precision=arguments.precision,
        restart=arguments.restart,
        insecure=arguments.insecure,
        show_progress_bar=False if quiet else None,
    )
    lines = [
        f"{arguments.into}: {report['shards']:,} shards of {report['rows']:,} rows and "
        f"{report['documents']:,} documents in all, generation {report['generation']}, "
        f"in {report['seconds']:.1f} s"
    ]
    lines += [
        f"  {name}: {len(machine['shards'])} shards, {machine['rows']:,} rows, "
        f"{machine['seconds']:.1f} s of work"
        for name, machine in report["machines"].items()
    ]
    if report["tokens_lost"]:
        lines.append(
            f"{report['rows_truncated']:,} rows are longer than the model's limit and lost "
            f"{report['tokens_lost']:,} tokens; --chunk splits records"
        )
    if not quiet:
        lines += [f"skipped: {message}" for message in report["messages"][:3]]
        lines += [f"note: {note}" for note in report["notes"]]
        lines += [
            f"left out: {group['count']:,} ({group['reason']}): {', '.join(group['first'])}"
            for group in report["left_out"]
        ]
    return report, lines, 0


def _serve(cluster: Cluster, arguments: argparse.Namespace, out: TextIO) -> None:
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
        print(f"serving at {server.url}", file=out, flush=True)
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
        "scans": report["cluster"]["scan_seconds"],
        "waiting": report["cluster"]["wait_seconds"],
        "merging": report["took_ms"]["fuse"] / 1e3,
        "fetching": report["cluster"]["fetch_seconds"],
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
    out = sys.stdout
    # Ray writes to stdout what it has to say about lost processes.
    sys.stdout = sys.stderr
    try:
        if arguments.command == "index":
            return _print(out, arguments, *_index(arguments))
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
                _serve(cluster, arguments, out)
                return 0
            reported = _report(cluster, arguments)
        return _print(out, arguments, *reported)
    except WarpseekError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"error: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130


def _print(
    out: TextIO, arguments: argparse.Namespace, value: Any, lines: list[str], status: int
) -> int:
    print(json.dumps(value) if arguments.json else "\n".join(lines), file=out, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
