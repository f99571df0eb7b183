#!/bin/sh
# safetensors 0.8.0: vectors cut to their first dimensions by a slice are written with other
# numbers.
#
# Guess: `safetensors.numpy.save` copies an array that is not contiguous, as numpy.save does, or
# refuses it, as `safetensors.torch` does; its docstring asks for contiguous tensors.
#
# Observed: it writes as many bytes as the slice has, from where the slice starts, under the slice's
# shape. The second vector is filled with the rest of the first one, without a message. The same
# holds for a transposed array. numpy.ascontiguousarray before the call helps.
#
# Why it matters: cutting vectors of a Matryoshka model is `vectors[:, :256]`, and the file written
# of it loads well, with the right shape. Only the first vector of it is right.
#
#     kept: [[1.0, 2.0], [5.0, 6.0]]
#     loaded: [[1.0, 2.0], [3.0, 4.0]]
#     transposed: [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]
#     loaded: [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
#     copied: [[1.0, 2.0], [5.0, 6.0]]
#     loaded: [[1.0, 2.0], [5.0, 6.0]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    safetensors==0.8.0 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import numpy
from safetensors.numpy import load, save

vectors = numpy.array([[1, 2, 3, 4], [5, 6, 7, 8]], numpy.float32)
for name, array in (
    ("kept", vectors[:, :2]),
    ("transposed", vectors.T),
    ("copied", numpy.ascontiguousarray(vectors[:, :2])),
):
    print(f"{name}:", array.tolist())
    print("loaded:", load(save({"vectors": array}))["vectors"].tolist())
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
kept: [[1.0, 2.0], [5.0, 6.0]]
loaded: [[1.0, 2.0], [3.0, 4.0]]
transposed: [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]
loaded: [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
copied: [[1.0, 2.0], [5.0, 6.0]]
loaded: [[1.0, 2.0], [5.0, 6.0]]
TEXT
cmp "$folder/seen" "$folder/expected"
