"""Fits the constants by which cosine, BM25 and the reranker's logit are summed.

    python models/train/fit_scores.py COLLECTION ... [--held-out NAME ...]

A COLLECTION is a folder with `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` (BEIR's columns). For
each query the first rows of the dense and of the BM25 ranking are scored by the reranker. Constants
minimise a listwise loss, the cross-entropy of the relevant rows against the softmax of the sum; all
collections count alike. Each collection is then evaluated with the constants of the others, and
those that are held out with those of all that are not. Signals are kept in --work and reused.

Needs the Python package (`pip install ./python`) and numpy.
"""

import argparse
import json
import pathlib

import numpy as np
import warpseek

DISCOUNT = 1 / np.log2(np.arange(2, 12))


def signals(folder: pathlib.Path, work: pathlib.Path, depth: int, queries: int) -> list[dict]:
    """Per query its candidates with cosine, BM25, logit and grade, and its number of words."""
    known = work / f"{folder.name}-{depth}-{queries}.json"
    if known.exists():
        return json.loads(known.read_text())
    index_folder = work / f"{folder.name}.index"
    if not (index_folder / "manifest.json").exists():
        with warpseek.Index.create(index_folder) as index:
            index.add_files([folder / "corpus.jsonl"])
    index = warpseek.Index.open(index_folder)
    embedder, reranker = warpseek.Embedder(), warpseek.CrossEncoder("warpseek-rerank-mini")
    grades: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = float(grade)
    lines = (folder / "queries.jsonl").read_text().splitlines()
    wanted = [query for query in map(json.loads, lines) if query["_id"] in grades][:queries]
    rows = []
    for query in wanted:
        text, judged = query["text"], grades[query["_id"]]
        dense = index.search(text, depth, rerank=False)
        words = {hit.row: hit.score for hit in index.search_bm25(text, len(index))}
        best = index.search_bm25(text, depth)
        hits = list({hit.row: hit for hit in [*dense, *best]}.values())
        vector = embedder.encode_query(text)
        cosines = {hit.row: hit.score for hit in dense}
        for hit in best:
            cosines.setdefault(hit.row, float(index.vectors[hit.row].astype(np.float32)[: len(vector)] @ vector))
        passages = [f"{hit.title}. {hit.text}" if hit.title else hit.text for hit in hits]
        logits = reranker.predict([(text, passage) for passage in passages])
        rows.append(
            {
                "cosine": [cosines[hit.row] for hit in hits],
                "bm25": [words.get(hit.row, 0.0) for hit in hits],
                "logit": [float(logit) for logit in logits],
                "grade": [judged.get(hit.doc_id, 0.0) for hit in hits],
                "ideal": sorted(judged.values(), reverse=True)[:10],
                "words": max(1, len({word.lower() for word in text.split()})),
            }
        )
    known.write_text(json.dumps(rows))
    return rows


def columns(row: dict, kind: str) -> np.ndarray:
    """The signals of a kind: `[candidates, signals]`."""
    bm25 = np.array(row["bm25"]) / np.sqrt(row["words"])
    by_name = {"cosine": np.array(row["cosine"]), "bm25": bm25, "logit": np.array(row["logit"])}
    return np.stack([by_name[name] for name in kind.split("+")], axis=1)


def fit(collections: dict[str, list[dict]], kind: str) -> np.ndarray:
    """Weights of the listwise loss, by gradient descent in logarithms: all stay positive."""
    lists = []
    for rows in collections.values():
        judged = [row for row in rows if sum(row["grade"]) > 0]
        for row in judged:
            target = np.array(row["grade"]) / sum(row["grade"])
            lists.append((columns(row, kind), target, 1 / len(judged) / len(collections)))
    theta, momentum = np.log([24.0, 1.0]), np.zeros(2)
    for _ in range(400):
        weights, gradient = np.exp(theta), np.zeros_like(theta)
        for x, target, share in lists:
            values = x @ weights
            softmax = np.exp(values - values.max())
            softmax /= softmax.sum()
            gradient += share * ((softmax - target) @ x) * weights
        momentum = 0.9 * momentum + gradient
        theta -= 0.02 * momentum
    return np.exp(theta)


def ndcg(row: dict, key: np.ndarray) -> float:
    """nDCG at 10 of the candidates in the order of a key."""
    order = np.argsort(-key, kind="stable")[:10]
    gain = (np.array(row["grade"])[order] * DISCOUNT[: len(order)]).sum()
    ideal = (np.array(row["ideal"]) * DISCOUNT[: len(row["ideal"])]).sum()
    return gain / ideal


def mean(rows: list[dict], kind: str, weights: np.ndarray) -> float:
    return float(np.mean([ndcg(row, columns(row, kind) @ weights) for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=pathlib.Path)
    parser.add_argument("--held-out", nargs="+", default=[], help="names of folders that enter no constant")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/fit-scores"))
    parser.add_argument("--depth", type=int, default=50, help="rows of each ranking")
    parser.add_argument("--queries", type=int, default=100, help="queries of a collection")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = {
        folder.name: signals(folder, arguments.work, arguments.depth, arguments.queries)
        for folder in arguments.collections
    }
    kinds = ["cosine+bm25", "cosine+logit"]
    fitted = {name: rows for name, rows in found.items() if name not in arguments.held_out}
    print("| nDCG@10 | cosine | logit | " + " | ".join(kinds) + " |\n| --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        others = {other: lists for other, lists in fitted.items() if other != name}
        cells = [mean(rows, "cosine", np.ones(1)), mean(rows, "logit", np.ones(1))]
        cells += [mean(rows, kind, fit(others, kind)) for kind in kinds]
        print(f"| {name} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |", flush=True)
    for kind in kinds:
        weights = fit(fitted, kind)
        ratio = weights[0] / weights[1]
        print(f"{kind}: cosine / {kind.split('+')[1]} = {ratio:.2f}, inverse {1 / ratio:.4f}")
    key = np.concatenate([columns(row, kinds[1]) @ [24.0, 1.0] for rows in fitted.values() for row in rows])
    relevant = np.concatenate([np.array(row["grade"]) > 0 for rows in fitted.values() for row in rows])
    slope, offset = 0.45, -8.7
    for _ in range(50):
        probability = 1 / (1 + np.exp(-(slope * key + offset)))
        x = np.stack([key, np.ones_like(key)], axis=1)
        curvature = (x * (probability * (1 - probability))[:, None]).T @ x
        slope, offset = np.array([slope, offset]) - np.linalg.solve(curvature, x.T @ (probability - relevant))
    print(f"probability of relevance at 24 cosine + logit: sigmoid({slope:.3f} key {offset:+.2f})")


if __name__ == "__main__":
    main()
