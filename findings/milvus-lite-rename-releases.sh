#!/bin/sh
# milvus-lite 3.2.2: renaming a collection releases it.
#
# Guess: a collection that is loaded stays loaded under its new name.
#
# Observed: rename_collection returns without a word, and the next query fails until
# load_collection is called.
#
#     before: Loaded
#     after: NotLoad, query fails: released
#     after load_collection: 1 row
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
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("old", schema=schema, index_params=indexes)
client.insert("old", [{"id": 1, "vector": [1.0, 0.0]}])
print("before:", client.get_load_state("old")["state"].name)
client.rename_collection("old", "new")
state = client.get_load_state("new")["state"].name
try:
    client.query("new", filter="id > 0", output_fields=["id"])
    outcome = "query works"
except MilvusException as error:
    outcome = "query fails" + (": released" if "released" in str(error) else "")
print(f"after: {state}, {outcome}")
client.load_collection("new")
print("after load_collection:", len(client.query("new", filter="id > 0")), "row")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/milvus.db" 2> "$folder/log" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
before: Loaded
after: NotLoad, query fails: released
after load_collection: 1 row
TEXT
cmp "$folder/seen" "$folder/expected"
