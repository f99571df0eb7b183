#!/bin/sh
# duckdb 2.0.1: a half-precision column is read from Parquet, and refused from Arrow.
#
# Guess: a pyarrow table with a column of float16 vectors can be queried like the Parquet file that
# pyarrow writes of it.
#
# Observed: the file's column arrives as lists of FLOAT. The same table, queried in memory, raises
# NotImplementedException, also if the query does not name that column.
#
#     Parquet: [('FLOAT[]', [0.0, 0.125, 0.25])]
#     Arrow, v: NotImplementedException
#     Arrow, id: NotImplementedException
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    duckdb==2.0.1 pyarrow==26.0.1 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys

import duckdb
import numpy
import pyarrow
import pyarrow.parquet

half = pyarrow.array(numpy.arange(6, dtype=numpy.float16) / 8)
arrow_table = pyarrow.table({"id": ["a", "b"], "v": pyarrow.FixedSizeListArray.from_arrays(half, 3)})
path = sys.argv[1] + "/half.parquet"
pyarrow.parquet.write_table(arrow_table, path)
print("Parquet:", duckdb.sql(f"SELECT typeof(v), v FROM '{path}' LIMIT 1").fetchall())
for column in ("v", "id"):
    try:
        print(f"Arrow, {column}:", duckdb.sql(f"SELECT {column} FROM arrow_table").fetchall())
    except duckdb.Error as error:
        print(f"Arrow, {column}:", type(error).__name__)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
Parquet: [('FLOAT[]', [0.0, 0.125, 0.25])]
Arrow, v: NotImplementedException
Arrow, id: NotImplementedException
TEXT
cmp "$folder/seen" "$folder/expected"
