#!/bin/sh
# milvus-lite 3.2.2: `insert` replaces a row that has the same primary key, and counts the rows that
# it was given, not those that are there then.
#
# Guess: `insert` keeps both rows, as Milvus does, which has `upsert` for replacing; or refuses the
# second one.
#
# Observed: the later row stays alone, also of two in one call, whose insert_count is 2 then.
#
#     two rows of one key in a call: insert_count 2, rows 1, text later
#     another call: insert_count 1, rows 1, text last
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
schema.add_field("text", DataType.VARCHAR, max_length=9)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("c", schema=schema, index_params=indexes)


def insert(*texts):
    rows = [{"id": 1, "text": text, "vector": [1.0, 0.0]} for text in texts]
    told = client.insert("c", rows)["insert_count"]
    n = client.query("c", filter="", output_fields=["count(*)"])[0]["count(*)"]
    texts = [row["text"] for row in client.query("c", filter="id == 1", output_fields=["text"])]
    return f"insert_count {told}, rows {n}, text {' '.join(texts)}"


print("two rows of one key in a call:", insert("first", "later"))
print("another call:", insert("last"))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/milvus.db" 2> "$folder/log" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
two rows of one key in a call: insert_count 2, rows 1, text later
another call: insert_count 1, rows 1, text last
TEXT
cmp "$folder/seen" "$folder/expected"
