"""Makes the golden data of the evaluation tests, next to this file.

    python make_eval.py

Needs pytrec_eval-terrier 0.5, ir_measures 0.4, scipy 1.17 and numpy. The same versions write the
same bytes. Every expected measure comes from pytrec_eval; ir_measures must agree. Every p value
comes from scipy, or from all sign patterns counted in whole numbers.
"""

import gzip
import json
import math
import random
from pathlib import Path

import ir_measures
import numpy as np
import pytrec_eval
import scipy
from ir_measures import AP, RR, P, R, nDCG

HERE = Path(__file__).resolve().parent
CUTS_NDCG, CUTS_RECALL = (1, 5, 10, 100), (10, 100)
# Our name, trec_eval's name, ir_measures' measure at a relevance level.
MEASURES = [
    *((f"ndcg@{k}", f"ndcg_cut_{k}", lambda rel, k=k: nDCG @ k) for k in CUTS_NDCG),
    *((f"recall@{k}", f"recall_{k}", lambda rel, k=k: R(rel=rel) @ k) for k in CUTS_RECALL),
    ("mrr@10", None, lambda rel: RR(rel=rel) @ 10),
    ("p@5", "P_5", lambda rel: P(rel=rel) @ 5),
    ("map", "map", lambda rel: AP(rel=rel)),
]
TREC_NAMES = {"ndcg_cut.1,5,10,100", "recall.10,100", "recip_rank", "P.5", "map"}


def trec_order(documents):
    """trec_eval's order: 32-bit score descending, then id descending."""
    by_id = sorted(documents, key=lambda d: d.encode(), reverse=True)
    return sorted(by_id, key=lambda d: -np.float32(documents[d]))


def expected(qrels, run, level):
    """Measures of every judged query, and their means; a query without an answer counts 0."""
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, TREC_NAMES, relevance_level=level)
    found = evaluator.evaluate(run)
    per_query = {}
    for query in qrels:
        values = found.get(query, {})
        reciprocal = values.get("recip_rank", 0.0)
        per_query[query] = {
            ours: values.get(trec, 0.0) if trec else (reciprocal if reciprocal >= 0.0999 else 0.0)
            for ours, trec, _ in MEASURES
        }
    mean = {ours: math.fsum(v[ours] for v in per_query.values()) / len(qrels)
            for ours, _, _ in MEASURES}
    check_ir_measures(qrels, run, level, per_query, mean)
    return per_query, mean


def check_ir_measures(qrels, run, level, per_query, mean):
    # ir_measures takes RR@k from a tool that breaks ties the other way round: it gets the ranking
    # with the ties already broken.
    untied = {q: {d: -float(i) for i, d in enumerate(trec_order(docs))} for q, docs in run.items()}
    by_measure = {make(level): ours for ours, _, make in MEASURES}
    for metric in ir_measures.iter_calc(list(by_measure), qrels, untied):
        ours = per_query[metric.query_id][by_measure[metric.measure]]
        assert abs(ours - metric.value) < 1e-9, (metric, ours)
    for measure, value in ir_measures.calc_aggregate(list(by_measure), qrels, untied).items():
        assert abs(mean[by_measure[measure]] - value) < 1e-9, (measure, value)


def graded_case():
    """Levels -2 to 3; ties, ties only in 32 bits, runs shorter than every cut-off, unjudged
    documents and queries, queries without an answer and without a relevant document."""
    r = random.Random(20240501)
    qrels, run = {}, {}
    for n in range(14):
        query = f"q{n:02}"
        documents = [f"d{i:03}" for i in range(70)]
        judged = r.sample(documents, r.randint(5, 40))
        qrels[query] = {d: r.choice([-2, -1, 0, 0, 0, 1, 1, 2, 3]) for d in judged}
        if n == 3:
            qrels[query] = {d: min(level, 0) for d, level in qrels[query].items()}
            qrels[query][judged[0]] = 0
        else:
            qrels[query][judged[0]] = 3
        if n in (5, 9):
            continue
        length = {1: 3, 2: 1, 4: 7}.get(n, r.randint(20, 70))
        scores = [0.5, 0.5 + 1e-9, 0.25, 0.125, 1 / 3, 0.0, -1.5]
        run[query] = {
            d: r.choice(scores) if n % 2 == 0 else r.random() for d in r.sample(documents, length)
        }
    # Answered with nothing relevant, and with the one relevant document below rank 10.
    qrels["q-low"] = {"d001": 1, "d002": 0}
    run["q-low"] = {f"x{i:02}": 20.0 - i for i in range(14)} | {"d001": 1.0}
    qrels["q-miss"] = {"d001": 2}
    run["q-miss"] = {"x1": 1.0, "x2": 1.0}
    run["unjudged-1"], run["unjudged-2"] = {"d001": 1.0}, {"d002": 2.0, "d003": 2.0}
    return qrels, run


def binary_case():
    """One level, long runs and few relevant documents, as in BEIR; ids with blanks and accents in
    the judgments, where the format carries them."""
    r = random.Random(7)
    qrels, run = {}, {}
    for n in range(8):
        query = str(1000 + n)
        documents = [str(r.randint(1, 10**6)) for _ in range(130)]
        qrels[query] = {d: 1 for d in r.sample(documents, r.randint(1, 4))}
        qrels[query]["not found anywhere"] = 1
        qrels[query]["é-1"] = 1
        run[query] = {d: round(r.gauss(0, 1), 2) for d in documents[:r.randint(40, 125)]}
        run[query]["é-1"] = round(r.gauss(0, 1), 2)
    return qrels, run


def self_case():
    """Queries that are documents themselves, and stand in the run and in one judgment."""
    r = random.Random(99)
    documents = [f"doc{i}" for i in range(30)]
    qrels, run = {}, {}
    for query in documents[:6]:
        qrels[query] = {d: 1 for d in r.sample(documents, 5)}
        run[query] = {d: r.random() for d in r.sample(documents, 20)} | {query: 2.0}
    qrels["doc0"]["doc0"] = 1
    return qrels, run


def trec_qrels(qrels):
    return "".join(f"{q} 0 {d} {level}\n" for q, docs in qrels.items() for d, level in docs.items())


def beir_qrels(qrels):
    rows = (f"{q}\t{d}\t{level}\n" for q, docs in qrels.items() for d, level in docs.items())
    return "query-id\tcorpus-id\tscore\n" + "".join(rows)


def trec_run(run):
    """Lines shuffled and ranks wrong on purpose: only the scores may count."""
    rows = [f"{q} Q0 {d} 1 {s!r} golden\n" for q, docs in run.items() for d, s in docs.items()]
    random.Random(1).shuffle(rows)
    return "".join(rows)


def rank_run(run):
    return "".join(f"{q}\t{d}\t{i}\n" for q, docs in run.items()
                   for i, d in enumerate(trec_order(docs), 1))


def case(name, qrels_file, run_file, qrels, run, level=1, drop_self=False):
    if drop_self:
        run = {q: {d: s for d, s in docs.items() if d != q} for q, docs in run.items()}
    per_query, mean = expected(qrels, run, level)
    return {
        "name": name, "qrels": qrels_file, "run": run_file, "relevance_level": level,
        "drop_self": drop_self, "judged": len(qrels),
        "answered": sum(q in run for q in qrels), "unjudged": sum(q not in qrels for q in run),
        "without_relevant": sum(max(docs.values()) < level for docs in qrels.values()),
        "mean": mean, "per_query": per_query,
    }


def exact_p(numerators):
    """Two-sided p of the paired randomisation test, from the distribution of the signed sum."""
    total = sum(map(abs, numerators))
    counts = [0] * (2 * total + 1)
    counts[total] = 1
    for size in map(abs, numerators):
        shifted = [0] * len(counts)
        for at, count in enumerate(counts):
            if count:
                shifted[at + size] += count
                shifted[at - size] += count
        counts = shifted
    observed = abs(sum(numerators))
    hits = sum(c for at, c in enumerate(counts) if abs(at - total) >= observed)
    return hits / 2 ** len(numerators)


def significance_cases():
    r = random.Random(11)
    cases = []
    for name, n, lift in [("eight", 8, 0.15), ("sixteen", 16, 0.05), ("sixty", 60, 0.04),
                          ("sixty_alike", 60, 0.0), ("three_hundred", 300, 0.02)]:
        # Values in 64ths, so that sums are whole numbers and ties are frequent.
        baseline = [r.randint(0, 40) for _ in range(n)]
        system = [min(64, max(0, b + round(r.gauss(lift * 64, 12)) * (r.random() < 0.8)))
                  for b in baseline]
        a, b = np.array(baseline) / 64, np.array(system) / 64
        t = scipy.stats.ttest_rel(b, a)
        interval = scipy.stats.bootstrap(
            (b - a,), np.mean, n_resamples=200_000, batch=1000, method="percentile", rng=3)
        cases.append({
            "name": name, "baseline": a.tolist(), "system": b.tolist(),
            "wins": int((b > a).sum()), "losses": int((b < a).sum()), "ties": int((b == a).sum()),
            "difference": float((b - a).mean()), "t": float(t.statistic), "t_p": float(t.pvalue),
            "randomisation_p": exact_p([y - x for x, y in zip(baseline, system)]),
            "interval": [float(interval.confidence_interval.low),
                         float(interval.confidence_interval.high)],
            "standard_error": float((b - a).std() / math.sqrt(n)),
        })
    points = [{"t": t, "df": df, "p": float(2 * scipy.stats.t.sf(abs(t), df))}
              for t in (0.0, 1e-6, 0.1, -0.5, 1.0, 1.96, -2.5, 4.0, 12.0, 60.0)
              for df in (1, 2, 3, 10, 42, 299, 6979, 10**6)]
    return {"comparisons": cases, "student_t": points}


def write(name, text):
    data = text.encode()
    if name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    (HERE / name).write_bytes(data)


def main():
    graded, binary, self_ = graded_case(), binary_case(), self_case()
    write("graded.qrels", trec_qrels(graded[0]))
    write("graded.run", trec_run(graded[1]))
    write("graded-ranks.tsv", rank_run(graded[1]))
    write("binary.tsv", beir_qrels(binary[0]))
    write("binary.tsv.gz", beir_qrels(binary[0]))
    write("binary.run.gz", trec_run(binary[1]))
    write("self.tsv", beir_qrels(self_[0]))
    write("self.run", trec_run(self_[1]))
    cases = [
        case("graded", "graded.qrels", "graded.run", *graded),
        case("graded_level_2", "graded.qrels", "graded.run", *graded, level=2),
        case("graded_level_3", "graded.qrels", "graded.run", *graded, level=3),
        case("ranks", "graded.qrels", "graded-ranks.tsv", *graded),
        case("binary", "binary.tsv", "binary.run.gz", *binary),
        case("binary_zipped", "binary.tsv.gz", "binary.run.gz", *binary),
        case("self_kept", "self.tsv", "self.run", *self_),
        case("self_dropped", "self.tsv", "self.run", *self_, drop_self=True),
    ]
    write("measures.json", json.dumps({"cases": cases}, indent=1, ensure_ascii=False) + "\n")
    write("significance.json", json.dumps(significance_cases(), indent=None) + "\n")


if __name__ == "__main__":
    main()
