#!/bin/sh
# ranx 0.3.21 and lancedb 0.40.0: scaled by the smallest and the largest score, a list's only hit counts
# like a document that is not in the list.
#
# Guess: before two rankings are summed, scores are scaled to 0..1, and the best of each list gets 1.
# The only document that holds the query's rare word gains by that.
#
# Observed: a list of one hit, or of equal scores, has no range, and its hits get 0, the value of a
# document that the list lacks. The lexical list has no effect: in ranx the hit of the first list
# ties with the last of the second, in lancedb the only hit of the full-text search stays behind.
# Of longer lists the last hit gets 0 in the same way.
#
#     ranx: d1 0.0 d2 1.0 d3 0.0
#     lancedb, weight of the vector 0.1: near middle word far
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    ranx==0.3.21 lancedb==0.40.0 numpy==2.4.6 numba==0.68.1 pandas==2.3.3
cat > "$folder/run.py" <<'PYTHON'
import sys

import lancedb
import ranx
from lancedb.index import FTS
from lancedb.rerankers import LinearCombinationReranker

lexical = ranx.Run({"q": {"d1": 3.0}})
dense = ranx.Run({"q": {"d2": 0.9, "d3": 0.5}})
fused = ranx.fuse([lexical, dense], norm="min-max", method="sum").run["q"]
print("ranx:", *(f"{document} {fused[document]}" for document in ("d1", "d2", "d3")))

table = lancedb.connect(sys.argv[1] + "/db").create_table(
    "t",
    data=[
        {"id": "near", "vector": [1.0, 0.0], "text": "a calm sea"},
        {"id": "middle", "vector": [0.9, 0.4], "text": "a quiet harbour"},
        {"id": "word", "vector": [0.8, 0.6], "text": "the kestrel"},
        {"id": "far", "vector": [-1.0, 0.0], "text": "a loud street"},
    ],
)
table.create_index("text", config=FTS())


def ids(reranker):
    query = table.search(query_type="hybrid").vector([1.0, 0.0]).text("kestrel").distance_type("cosine")
    return " ".join(hit["id"] for hit in query.rerank(reranker).limit(4).to_list())


print("lancedb, weight of the vector 0.1:", ids(LinearCombinationReranker(weight=0.1)))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
ranx: d1 0.0 d2 1.0 d3 0.0
lancedb, weight of the vector 0.1: near middle word far
TEXT
cmp "$folder/seen" "$folder/expected"
