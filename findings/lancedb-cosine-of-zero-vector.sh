#!/bin/sh
# lancedb 0.40.0: rows whose vector is zero vanish from a search by cosine, and so do all rows if the
# query is zero.
#
# Guess: a zero vector has a cosine of 0, thus a distance of 1, as with the inner product; at least the
# row is among the hits of a search for more rows than there are.
#
# Observed: the distance is not a number, and such rows are left out without a warning. By inner product
# and by L2 they are found.
#
#     cosine: same opposite
#     dot: same zero opposite
#     l2: same zero opposite
#     zero query, cosine: 0 of 3 rows
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    lancedb==0.40.0 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys

import lancedb

table = lancedb.connect(sys.argv[1] + "/db").create_table(
    "t",
    data=[
        {"id": "same", "vector": [1.0, 0.0]},
        {"id": "zero", "vector": [0.0, 0.0]},
        {"id": "opposite", "vector": [-1.0, 0.0]},
    ],
)
for metric in ("cosine", "dot", "l2"):
    found = table.search([1.0, 0.0]).distance_type(metric).limit(9).to_list()
    print(f"{metric}:", *(hit["id"] for hit in found))
print("zero query, cosine:", len(table.search([0.0, 0.0]).distance_type("cosine").limit(9).to_list()), "of 3 rows")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
cosine: same opposite
dot: same zero opposite
l2: same zero opposite
zero query, cosine: 0 of 3 rows
TEXT
cmp "$folder/seen" "$folder/expected"
