"""Exact search beside FAISS, usearch and numpy: the same vectors and threads, in turn, in one run.

Every round measures each tool once, by the median of its repeats. The table shows medians over
rounds in queries/s, and warpseek's ratio to the fastest peer. warpseek is measured by `warpseek
bench --vectors --queries`, through its public API. Without --vectors the vectors are random unit
vectors.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time



def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", help="npy, [n, dim]; random where this is left out")
    parser.add_argument("--queries", help="npy, [n, dim]")
    parser.add_argument("--rows", type=int, default=41584)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256, 1024])
    parser.add_argument("-k", type=int, nargs="+", default=[25])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a peer is repeated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tier", default="auto", help="WARPSEEK_TIER")
    parser.add_argument("--warpseek", default="target/release/warpseek")
    parser.add_argument("--peers", nargs="+", default=["faiss", "faiss-fp16", "faiss-int8", "numpy", "usearch-f16", "usearch-i8"])
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    # These libraries read the environment variables when they are imported.
    global numpy
    import numpy

    if arguments.vectors:
        rows = numpy.load(arguments.vectors).astype(numpy.float32)
        queries = numpy.load(arguments.queries).astype(numpy.float32)
    else:
        random = numpy.random.default_rng(1)
        unit = lambda n: (lambda v: v / numpy.linalg.norm(v, axis=1, keepdims=True))(
            random.standard_normal((n, arguments.dim), dtype=numpy.float32)
        )
        rows, queries = unit(arguments.rows), unit(max(arguments.batch))
    # Rounded to half precision, as in an index, so that all tools search the same numbers.
    rows = rows.astype(numpy.float16).astype(numpy.float32)
    searches = {name: make(name, rows, arguments.threads) for name in arguments.peers}

    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in ("rows.npy", "queries.npy")]
        for file, values in zip(files, (rows, queries)):
            numpy.save(file, values)
        rates = {}
        for _ in range(arguments.rounds):
            for k, batch, rate in ours(arguments, files):
                rates.setdefault((k, batch, "warpseek"), []).append(rate)
            for name, search in searches.items():
                for k in arguments.k:
                    for batch in arguments.batch:
                        some = numpy.ascontiguousarray(numpy.resize(queries, (batch, queries.shape[1])))
                        seconds = median_time(lambda: search(some, k), arguments.seconds)
                        rates.setdefault((k, batch, name), []).append(batch / seconds)
    print(f"{len(rows):,} x {rows.shape[1]}, {arguments.threads} threads, tier {arguments.tier}; queries/s, medians of {arguments.rounds} rounds\n")
    header = ["k", "batch", "warpseek", *searches, "fastest peer", "ratio"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for k in arguments.k:
        for batch in arguments.batch:
            value = lambda name: statistics.median(rates[k, batch, name])
            fastest = max(searches, key=value)
            cells = [k, batch, f"{value('warpseek'):,.0f}", *(f"{value(n):,.0f}" for n in searches)]
            print("| " + " | ".join(map(str, [*cells, fastest, f"{value('warpseek') / value(fastest):.2f}"])) + " |")


def ours(arguments, files):
    command = [arguments.warpseek, "bench", "--json", "--search-only", "--threads", str(arguments.threads)]
    command += ["--vectors", str(files[0]), "--queries", str(files[1])]
    command += ["--batch", ",".join(map(str, arguments.batch)), "-k", ",".join(map(str, arguments.k))]
    environment = {**os.environ, "WARPSEEK_TIER": arguments.tier}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [(s["k"], s["queries"], s["queries_per_second"]) for s in json.loads(done.stdout)["scan"]]


def make(name, rows, threads):
    if name.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)
        kinds = {
            "faiss": lambda d: faiss.IndexFlatIP(d),
            "faiss-fp16": lambda d: faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT),
            "faiss-int8": lambda d: faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
        }
        index = kinds[name](rows.shape[1])
        if not index.is_trained:
            index.train(rows)
        index.add(rows)
        return lambda queries, k: index.search(queries, k)
    if name == "numpy":

        def search(queries, k):
            scores = queries @ rows.T
            best = numpy.argpartition(-scores, k - 1, axis=1)[:, :k]
            order = numpy.argsort(-numpy.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            return numpy.take_along_axis(best, order, axis=1)

        return search
    import usearch.index as usearch

    # usearch's int8 kernel supports only the cosine, which for unit vectors is the inner product.
    stored, dtype = {
        "usearch-f16": (rows.astype(numpy.float16), numpy.float16),
        "usearch-i8": (numpy.round(rows / numpy.abs(rows).max() * 127).astype(numpy.int8), numpy.int8),
    }[name]

    def search(queries, k):
        scale = 1 if dtype == numpy.float16 else 127 / numpy.abs(queries).max()
        some = numpy.round(queries * scale) if scale != 1 else queries
        return usearch.search(stored, some.astype(dtype), k, "cos", exact=True, threads=threads)

    return search


def median_time(work, seconds):
    work()
    times, started = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
