#!/bin/sh
# ir_measures 0.4.3 and pytrec_eval 0.5.11: the same run, judged by the same library, has two means.
#
# Guess: ir_measures computes nDCG by pytrec_eval, so both report the same for a run that found nothing
# for one of two judged queries.
#
# Observed: pytrec_eval leaves the query out, so the mean of what it returns is that of the queries
# with hits. ir_measures adds the query with 0. ranx refuses such a run unless it is told what to do.
#
#     pytrec_eval: 1.0
#     ir_measures: 0.5
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    ir-measures==0.4.3 pytrec-eval-terrier==0.5.11 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import statistics

import ir_measures
import pytrec_eval

qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
run = {"q1": {"d1": 1.0}}
found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
print("pytrec_eval:", statistics.mean(query["ndcg_cut_10"] for query in found.values()))
print("ir_measures:", *ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run).values())
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
pytrec_eval: 1.0
ir_measures: 0.5
TEXT
cmp "$folder/seen" "$folder/expected"
