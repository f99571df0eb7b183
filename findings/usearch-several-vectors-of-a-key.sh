#!/bin/sh
# usearch 2.26.6: with several vectors under a key, `get` of a bfloat16 index mixes them up.
#
# Guess: `Index(multi=True).get(key)` returns the key's vectors as rows, whatever type they are
# stored in, as the search finds them.
#
# Observed: with float32, float16 and int8 it does. NumPy has no bfloat16, so those vectors are
# returned as float32, and each row starts after half a row: the second half of the first vector is
# overwritten by the second vector. A key with one vector is returned right, and so is every search.
#
# Why it matters: bfloat16 is the type that the library picks by itself on processors that know it,
# and `get` is how hits are scored anew with all vectors of a document.
#
#     f32: first row [1.0, 2.0, 3.0, 4.0]
#     f16: first row [1.0, 2.0, 3.0, 4.0]
#     bf16: first row [1.0, 2.0, 5.0, 6.0]
#     bf16, a key with one vector: [1.0, 2.0, 3.0, 4.0]
#     bf16, searched for by the first vector: distance 0.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    usearch==2.26.6 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import numpy
from usearch.index import Index

vectors = numpy.array([[1, 2, 3, 4], [5, 6, 7, 8]], numpy.float32)
for kind in ("f32", "f16", "bf16"):
    index = Index(ndim=4, metric="l2sq", dtype=kind, multi=True)
    for vector in vectors:
        index.add(7, vector)
    print(f"{kind}: first row", index.get(7)[0].tolist())
single = Index(ndim=4, metric="l2sq", dtype="bf16", multi=True)
single.add(7, vectors[0])
print("bf16, a key with one vector:", single.get(7).ravel().tolist())
nearest = index.search(vectors[0], 1)[0]
print("bf16, searched for by the first vector: distance", float(nearest.distance))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
f32: first row [1.0, 2.0, 3.0, 4.0]
f16: first row [1.0, 2.0, 3.0, 4.0]
bf16: first row [1.0, 2.0, 5.0, 6.0]
bf16, a key with one vector: [1.0, 2.0, 3.0, 4.0]
bf16, searched for by the first vector: distance 0.0
TEXT
cmp "$folder/seen" "$folder/expected"
