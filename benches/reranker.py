"""Gain of the shipped reranker: nDCG@10 with reranking minus without, on judged collections.

    python benches/reranker.py DATA [--reranker NAME] [--hybrid] [--also FOLDER ...]

DATA holds `scifact`, `trec-dl19`, `trec-dl20` and `arxiv-chunked` in BEIR's layout. For each
collection the script runs `warpseek index` and `warpseek eval`: it reranks the first 100 rows of
MiniLM, and for TREC also those of BM25 (`runs/bm25.tsv`); with --hybrid the first 100 rows of both.
Folders of --also hold `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv` or `qrels.tsv`. Intervals
and p values are those of eval's paired tests. Indexes are kept in --work and reused.
"""

import argparse
import json
import pathlib
import subprocess

COLLECTIONS = [
    # name, folder, corpus, qrels, lowest grade that counts as relevant, rankings
    ("SciFact test", "scifact", "corpus.jsonl", "qrels/test.tsv", 1, [None]),
    ("TREC DL19", "trec-dl19", "corpus.jsonl", "qrels/full.trec.txt", 2, [None, "runs/bm25.tsv"]),
    ("TREC DL20", "trec-dl20", "corpus.jsonl", "qrels/full.trec.txt", 2, [None, "runs/bm25.tsv"]),
    ("arXiv summaries", "arxiv-chunked", "train.jsonl.gz", "qrels/test.tsv", 1, [None]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/reranker"))
    parser.add_argument("--warpseek", default="target/release/warpseek")
    parser.add_argument("--reranker", default="warpseek-rerank-mini")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="folders")
    parser.add_argument("--also", nargs="+", type=pathlib.Path, default=[], help="further collections")
    parser.add_argument("--hybrid", action="store_true", help="hybrid retrieval")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print("| nDCG@10 | start | alone | default | difference [95 % interval] | p |\n| --- | --- | --- | --- | --- | --- |")
    gains, starts, alones = [], [], []
    collections = [
        collection for collection in COLLECTIONS if not arguments.only or collection[1] in arguments.only
    ]
    for folder in arguments.also:
        qrels = "qrels/test.tsv" if (folder / "qrels/test.tsv").exists() else "qrels.tsv"
        collections.append((folder.name, str(folder.resolve()), "corpus.jsonl", qrels, 1, [None]))
    for name, folder, corpus, qrels, level, rankings in collections:
        source = arguments.data / folder
        index = arguments.work / source.name
        warpseek = [arguments.warpseek, "--precision", arguments.precision]
        subprocess.run([*warpseek, "index", source / corpus, "--into", index, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        for ranking in rankings[:1] if arguments.hybrid else rankings:
            command = [*warpseek, "eval", index, "--queries", source / "queries.jsonl", "--qrels", source / qrels]
            command += ["--measures", "ndcg@10", "--relevance-level", str(level), "--rerank-depth", str(arguments.depth)]
            command += ["--reranker", arguments.reranker, "--json"]
            if ranking:
                command += ["--candidates", source / ranking]
            if arguments.hybrid:
                command += ["--hybrid"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            report = json.loads(done.stdout)
            systems = report["systems"]
            start, alone, blended = systems[0], systems[1], systems[-1]
            mean = lambda system: system["mean"]["ndcg@10"]
            test = blended["against_first"]
            low, high = test["interval_95"]
            retriever = "BM25" if ranking else "hybrid" if arguments.hybrid else "MiniLM"
            label = f"{name}, {retriever}'s top {arguments.depth}"
            print(
                f"| {label} | {mean(start):.4f} | {mean(alone):.4f} | {mean(blended):.4f} | "
                f"{mean(blended) - mean(start):+.4f} [{low:+.4f}, {high:+.4f}] | {test['p_randomisation']:.3f} |",
                flush=True,
            )
            if not ranking and folder in ("scifact", "trec-dl19", "trec-dl20"):
                gains.append(mean(blended) - mean(start))
                starts.append(mean(start))
                alones.append(mean(alone))
    if gains:
        n = len(gains)
        print(f"\nSciFact and TREC over MiniLM's lists: {sum(gains) / n:+.4f} on average, {min(gains):+.4f} at least; "
              f"alone {sum(alones) / n:.4f} against {sum(starts) / n:.4f}")


if __name__ == "__main__":
    main()
