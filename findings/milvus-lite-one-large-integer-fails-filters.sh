#!/bin/sh
# milvus-lite 3.2.2: one integer beyond 2^53 in a field makes filters fail that compare the field
# with a number with a point, whichever rows they are about.
#
# Guess: `n < 7.5` on an INT64 field finds the rows below 7.5, as without the large integer.
#
# Observed: the query ends with an error about the range of doubles as soon as any row holds such an
# integer. Comparisons with integers work, and find 2^53 + 1 exactly.
#
#     n < 7.5 without the large integer: [1]
#     n < 7.5 with it: MilvusException, not in range
#     n == 9007199254740993: [3]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2
cat > "$folder/run.py" <<'PYTHON'
import logging
import sys

from pymilvus import DataType, MilvusClient, MilvusException

logging.disable(logging.CRITICAL)
client = MilvusClient(sys.argv[1])
schema = client.create_schema()
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("n", DataType.INT64)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("c", schema=schema, index_params=indexes)


def insert(id, n):
    client.insert("c", [{"id": id, "n": n, "vector": [1.0, 0.0]}])


def found(condition):
    try:
        return sorted(row["id"] for row in client.query("c", filter=condition, output_fields=["id"]))
    except MilvusException as error:
        return "MilvusException, " + ("not in range" if "not in range" in str(error) else str(error))


insert(1, 7)
insert(2, 8)
print("n < 7.5 without the large integer:", found("n < 7.5"))
insert(3, 2**53 + 1)
print("n < 7.5 with it:", found("n < 7.5"))
print("n == 9007199254740993:", found("n == 9007199254740993"))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/milvus.db" 2> "$folder/log" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
n < 7.5 without the large integer: [1]
n < 7.5 with it: MilvusException, not in range
n == 9007199254740993: [3]
TEXT
cmp "$folder/seen" "$folder/expected"
