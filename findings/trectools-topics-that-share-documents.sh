#!/bin/sh
# trectools 0.0.50: the R-precision of a topic counts documents that other topics judged.
#
# Guess: each topic is measured with its own judgments, as by trec_eval. Names of documents that two
# topics share change nothing.
#
# Observed: two topics that each find one of their two relevant documents have an R-precision of 0.5
# if all names differ, and of 1.0 each if both topics judge the same two documents. Average precision
# is right in both cases. Topics of a pooled collection share documents as a rule.
#
#     other names: trec_eval Rprec 0.5 map 0.375; trectools Rprec 0.5 map 0.375
#     same names: trec_eval Rprec 0.5 map 0.375; trectools Rprec 1.0 map 0.375
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    trectools==0.0.50 pytrec-eval-terrier==0.5.11 numpy==2.4.6 pandas==3.1.1
cat > "$folder/run.py" <<'PYTHON'
import sys
from pathlib import Path

import pytrec_eval
from trectools import TrecEval, TrecQrel, TrecRun

folder = Path(sys.argv[1])


def measures(first, second):
    qrels = {"q1": dict.fromkeys(first, 1), "q2": dict.fromkeys(second, 1)}
    run = {"q1": {first[0]: 3.0, "x1": 2.0}, "q2": {"x2": 3.0, second[1]: 2.0}}
    lines = [f"{q} 0 {d} {grade}\n" for q in qrels for d, grade in qrels[q].items()]
    (folder / "qrels").write_text("".join(lines))
    ranked = {q: enumerate(run[q].items(), 1) for q in run}
    lines = [f"{q} Q0 {d} {rank} {score} r\n" for q in run for rank, (d, score) in ranked[q]]
    (folder / "run").write_text("".join(lines))
    names = ("Rprec", "map")
    by_topic = pytrec_eval.RelevanceEvaluator(qrels, set(names)).evaluate(run)
    theirs = {name: sum(topic[name] for topic in by_topic.values()) / 2 for name in names}
    found = TrecEval(TrecRun(str(folder / "run")), TrecQrel(str(folder / "qrels")))
    ours = {"Rprec": found.get_rprec(), "map": found.get_map()}
    shown = [" ".join(f"{k} {float(v):.4g}" if v % 1 else f"{k} {float(v)}" for k, v in m.items())
             for m in (theirs, ours)]
    return f"trec_eval {shown[0]}; trectools {shown[1]}"


print("other names:", measures(["a", "b"], ["c", "d"]))
print("same names:", measures(["a", "b"], ["a", "b"]))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
other names: trec_eval Rprec 0.5 map 0.375; trectools Rprec 0.5 map 0.375
same names: trec_eval Rprec 0.5 map 0.375; trectools Rprec 1.0 map 0.375
TEXT
cmp "$folder/seen" "$folder/expected"
