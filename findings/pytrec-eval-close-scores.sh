#!/bin/sh
# pytrec_eval 0.5.11 (and ir_measures 0.4.3 by it): scores that differ by less than a float of 32
# bits shows are ties, and the document's id decides.
#
# Guess: scores are Python floats, so the document with the higher one is ranked first.
#
# Observed: they are narrowed to 32 bits before they are sorted, and ties go to the id that comes
# last in the alphabet. Names change the measure. The measures that ir_measures computes itself
# (here Judged@1) sort the same run by the scores as given.
#
# Why it matters: summed scores of several rankings, and cosines of near-duplicates, differ in the
# eighth digit; a run of such scores is judged in an order that it does not have. A run with ranks
# for scores is safe.
#
#     1.0 before 0.99999999: reciprocal rank 0.5
#     16777217 before 16777216: reciprocal rank 0.5
#     1.0 before 0.9999999: reciprocal rank 1.0
#     1.0 before 0.99999999, the other named a: reciprocal rank 1.0
#     ir_measures: Judged@1 1.0 RR 0.5
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    ir-measures==0.4.3 pytrec-eval-terrier==0.5.11 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import ir_measures
import pytrec_eval


def reciprocal_rank(good, other, name):
    evaluator = pytrec_eval.RelevanceEvaluator({"q": {"good": 1}}, {"recip_rank"})
    return evaluator.evaluate({"q": {"good": good, name: other}})["q"]["recip_rank"]


for good, other in ((1.0, 0.99999999), (16777217, 16777216), (1.0, 0.9999999)):
    rank = reciprocal_rank(float(good), float(other), "other")
    print(f"{good} before {other}: reciprocal rank", rank)
rank = reciprocal_rank(1.0, 0.99999999, "a")
print("1.0 before 0.99999999, the other named a: reciprocal rank", rank)
measures = [ir_measures.Judged @ 1, ir_measures.RR]
run = {"q": {"good": 1.0, "other": 0.99999999}}
found = ir_measures.calc_aggregate(measures, {"q": {"good": 1}}, run)
print("ir_measures:", *(f"{measure} {found[measure]}" for measure in measures))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
1.0 before 0.99999999: reciprocal rank 0.5
16777217 before 16777216: reciprocal rank 0.5
1.0 before 0.9999999: reciprocal rank 1.0
1.0 before 0.99999999, the other named a: reciprocal rank 1.0
ir_measures: Judged@1 1.0 RR 0.5
TEXT
cmp "$folder/seen" "$folder/expected"
