#!/bin/sh
# ranx 0.3.21: documents with equal scores keep their order in a short run, and not in a long one.
#
# Guess: hits with equal scores stay in the order in which they were given, or are ordered by id as
# trec_eval does.
#
# Observed: three ties stay as given; of a hundred the one that was given first is ranked 73rd. The
# measures follow, so a retriever with tied scores is judged by the length of its list.
#
#     3 ties: d0 has rank 1, MRR 1.0000
#     100 ties: d0 has rank 73, MRR 0.0137
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    ranx==0.3.21 numpy==2.4.6 numba==0.68.1 pandas==2.3.3
cat > "$folder/run.py" <<'PYTHON'
from ranx import Qrels, Run, evaluate

for n in (3, 100):
    run = Run({"q": {f"d{i}": 1.0 for i in range(n)}})
    rank = list(run.run["q"]).index("d0") + 1
    print(f"{n} ties: d0 has rank {rank}, MRR {evaluate(Qrels({'q': {'d0': 1}}), run, 'mrr'):.4f}")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
3 ties: d0 has rank 1, MRR 1.0000
100 ties: d0 has rank 73, MRR 0.0137
TEXT
cmp "$folder/seen" "$folder/expected"
