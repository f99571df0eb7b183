"""The Python package beside the command line, FAISS and sentence-transformers, in turn on one machine.

    python benches/package.py records.jsonl.gz --warpseek target/release/warpseek

Needs the package (`pip install ./python`), faiss-cpu, sentence-transformers and pandas. The medians
of rounds in which the systems take turns, and their ratios, as JSON lines; each part can be
measured alone (`--part`).
"""

import argparse
import gzip
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turns(rounds, **systems):
    """Medians of the seconds of systems that take turns; the first round warms up."""
    times = {name: [] for name in systems}
    for number in range(rounds + 1):
        for name, work in systems.items():
            seconds = timed(work)
            if number > 0:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def show(**values):
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps(rounded), flush=True)


def start(arguments):
    """Time and memory of the import, beside an empty interpreter and NumPy."""
    code = "import time; t = time.perf_counter(); {}; t = time.perf_counter() - t; "
    code += "print(t * 1e3, int(open('/proc/self/statm').read().split()[1]) * 4 / 1024)"
    measured = {}
    for name, statement in [
        ("nothing", "pass"),
        ("warpseek", "import warpseek"),
        ("warpseek.Index", "import warpseek; warpseek.Index"),
        ("numpy", "import numpy"),
    ]:
        runs = []
        for _ in range(7):
            run = subprocess.run([sys.executable, "-c", code.format(statement)], capture_output=True, text=True, check=True)
            runs.append([float(value) for value in run.stdout.split()])
        measured[name] = [statistics.median(column) for column in zip(*runs, strict=True)]
    base = measured["nothing"]
    for name, (ms, mib) in measured.items():
        show(part="start", statement=f"import {name}", ms=ms - base[0], mib=mib - base[1])


def scan(arguments):
    """`search_vectors` beside `warpseek bench` and FAISS IndexFlatIP."""
    import faiss

    import warpseek

    rng = np.random.default_rng(7)
    rows = rng.standard_normal((arguments.rows, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rng.standard_normal((1024, 384)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(384)
    flat.add(rows)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/rows.npy", rows)
        np.save(f"{folder}/queries.npy", queries)
        index = warpseek.Index.create(f"{folder}/index", model=None, dim=384)
        index.add([{"id": str(i), "text": ""} for i in range(len(rows))], vectors=rows)
        for size in (1, 32, 1024):
            some = queries[:size]
            repeat = {1: 200, 32: 50, 1024: 4}[size]
            found = index.search_vectors(some, 25)[1]
            overlap = np.mean([len(set(a) & set(b)) / 25 for a, b in zip(found, flat.search(some, 25)[1], strict=True)])

            def median(search, times, some=some):
                """Median seconds of a search, as `warpseek bench` reports it."""
                return statistics.median(timed(lambda: search(some, 25)) for _ in range(times))

            rates = {"package": [], "bench": [], "faiss": []}
            for number in range(arguments.rounds + 1):
                command = [arguments.warpseek, "bench", "--search-only", "--json", "--vectors", f"{folder}/rows.npy"]
                command += ["--queries", f"{folder}/queries.npy", "--batch", str(size), "-k", "25"]
                out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                measured = {
                    "package": size / median(index.search_vectors, repeat),
                    "bench": bench_rate(out),
                    "faiss": size / median(flat.search, max(repeat // 4, 1)),
                }
                if number > 0:
                    for name, rate in measured.items():
                        rates[name].append(rate)
            medians = {name: statistics.median(values) for name, values in rates.items()}
            pairs = zip(rates["package"], rates["bench"], strict=True)
            show(
                part="scan", batch=size, **{f"{n}_queries_per_s": v for n, v in medians.items()},
                of_bench=statistics.median(a / b for a, b in pairs),
                times_faiss=medians["package"] / medians["faiss"], overlap=float(overlap),
            )


def bench_rate(out):
    """Queries per second in the report of `warpseek bench`."""
    return out["scan"][0]["queries_per_second"]


def overhead(arguments):
    """A warm `search` of ten hits beside the time that the Rust library itself reports."""
    import warpseek

    with tempfile.TemporaryDirectory() as folder:
        index = warpseek.Index.create(f"{folder}/index")
        index.add(records(arguments, 400))
        beside = []
        for query in itertools.islice(itertools.cycle(["graph neural networks", "long documents"]), 300):
            started = time.perf_counter()
            hits = index.search(query, 10, rerank=False)
            beside.append((time.perf_counter() - started) * 1e3 - hits.took_ms["total"])
        show(part="overhead", ms_beside_the_library=statistics.median(beside[20:]), hits=len(hits))


def encode(arguments):
    """`encode` beside `warpseek embed`, and sentence-transformers in float32 and bfloat16."""
    import torch
    from sentence_transformers import SentenceTransformer

    import warpseek

    texts = [record["chunk"] if "chunk" in record else record["text"] for record in records(arguments, arguments.n)]
    model = warpseek.Embedder()
    folder = subprocess.run(
        [arguments.warpseek, "models", "path", "all-MiniLM-L6-v2"], capture_output=True, text=True, check=True
    ).stdout.strip()
    peers = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        peer = SentenceTransformer(folder, device="cpu").to(kind)
        peer.max_seq_length = 256
        peers[name] = lambda peer=peer: peer.encode(texts)
    with tempfile.TemporaryDirectory() as folder:
        many, one = pathlib.Path(folder, "many.jsonl"), pathlib.Path(folder, "one.jsonl")
        many.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        one.write_text(json.dumps({"text": "one"}) + "\n")

        def command(file):
            run = [arguments.warpseek, "embed", str(file), "--out", f"{folder}/out.npy", "--quiet"]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)

        systems = {
            "package": lambda: model.encode(texts),
            "command": lambda: command(many),
            "start_of_command": lambda: command(one),
            **peers,
        }
        took = turns(arguments.rounds, **systems)
    work = took["command"] - took["start_of_command"]
    show(
        part="encode", texts=len(texts), **{f"{name}_s": value for name, value in took.items()},
        of_command=work / took["package"], times_float32=took["float32"] / took["package"],
        times_bfloat16=took["bfloat16"] / took["package"],
    )


def add(arguments):
    """`add` of a pandas frame beside `warpseek index` of the same records."""
    import pandas

    import warpseek

    some = records(arguments, arguments.n)
    frame = pandas.DataFrame(some)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "records.jsonl")
        file.write_text("".join(json.dumps(record) + "\n" for record in some))
        target = pathlib.Path(folder, "index")

        def package():
            shutil.rmtree(target, ignore_errors=True)
            index = warpseek.Index.create(target)
            assert index.add(frame).added == len(some)

        def command():
            shutil.rmtree(target, ignore_errors=True)
            run = [arguments.warpseek, "index", str(file), "--into", str(target), "--quiet"]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)

        took = turns(arguments.rounds, package=package, command=command)
    show(part="add", records=len(some), package_s=took["package"], command_s=took["command"], ratio=took["package"] / took["command"])


def records(arguments, n):
    opener = gzip.open if arguments.records.endswith(".gz") else open
    with opener(arguments.records, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in itertools.islice(file, n)]


def main():
    parts = {"start": start, "scan": scan, "overhead": overhead, "encode": encode, "add": add}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", help="jsonl or jsonl.gz with `chunk` or `text`")
    parser.add_argument("--part", choices=parts, action="append")
    parser.add_argument("--records", dest="n", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=41_584)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warpseek", default="target/release/warpseek")
    arguments = parser.parse_args()
    arguments.warpseek = str(pathlib.Path(arguments.warpseek).resolve())
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in arguments.part or parts:
        parts[name](arguments)


if __name__ == "__main__":
    main()
