#!/bin/sh
# numpy 2.4.6 with ml_dtypes 0.6.0: an .npy file of bfloat16 vectors loses its type.
#
# Guess: numpy.save keeps the type of a registered extension type, or refuses it; numpy.load gives
# bfloat16 back where ml_dtypes is imported.
#
# Observed: the file says `|V2`, two bytes without a meaning, and is read so, without a warning. The
# values are there: `.view(ml_dtypes.bfloat16)` finds them. numpy.float16 is kept.
#
#     float16: <f2, viewed: [0.5, -2.0]
#     bfloat16: |V2, viewed: [0.5, -2.0]
#     float8_e4m3fn: |V1, viewed: [0.5, -2.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 ml_dtypes==0.6.0
cat > "$folder/run.py" <<'PYTHON'
import io

import ml_dtypes
import numpy

for kind in (numpy.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
    file = io.BytesIO()
    numpy.save(file, numpy.array([0.5, -2], kind))
    file.seek(0)
    found = numpy.load(file)
    print(f"{numpy.dtype(kind).name}: {found.dtype.str}, viewed: {found.view(kind).tolist()}")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
float16: <f2, viewed: [0.5, -2.0]
bfloat16: |V2, viewed: [0.5, -2.0]
float8_e4m3fn: |V1, viewed: [0.5, -2.0]
TEXT
cmp "$folder/seen" "$folder/expected"
