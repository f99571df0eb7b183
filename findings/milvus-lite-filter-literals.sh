#!/bin/sh
# milvus-lite 3.2.2: literals in filters are compared in double precision with FLOAT fields, and
# true in JSON equals 1.
#
# Guess: a row that was written with x = 0.1 is found by `x == 0.1`, as the literal takes the type of
# the field; and the JSON values true and 1 are different.
#
# Observed: 0.1 in single precision is above the literal, so that the row is found by `x > 0.1` and
# not by `x == 0.1`. `json["k"] == 1` finds true as well, and `json["k"] == true` finds 1 and 1.0.
#
#     x == 0.1: []
#     x > 0.1: [1]
#     json["k"] == 1: [1, 2, 3]
#     json["k"] == true: [1, 2, 3]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2
cat > "$folder/run.py" <<'PYTHON'
import logging
import sys

from pymilvus import DataType, MilvusClient

logging.disable(logging.CRITICAL)
client = MilvusClient(sys.argv[1])
schema = client.create_schema()
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("x", DataType.FLOAT)
schema.add_field("json", DataType.JSON)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("c", schema=schema, index_params=indexes)
rows = [(1, 0.1, 1), (2, 0.0, True), (3, -1.0, 1.0), (4, -1.0, "1")]
client.insert(
    "c", [{"id": i, "x": x, "json": {"k": k}, "vector": [1.0, 0.0]} for i, x, k in rows]
)
for condition in ("x == 0.1", "x > 0.1", 'json["k"] == 1', 'json["k"] == true'):
    found = client.query("c", filter=condition, output_fields=["id"])
    print(f"{condition}:", sorted(row["id"] for row in found))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/milvus.db" 2> "$folder/log" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
x == 0.1: []
x > 0.1: [1]
json["k"] == 1: [1, 2, 3]
json["k"] == true: [1, 2, 3]
TEXT
cmp "$folder/seen" "$folder/expected"
