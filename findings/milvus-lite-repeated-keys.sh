#!/bin/sh
# milvus-lite 3.2.2 with pymilvus 3.0.2: a filter that names a primary key twice returns its row
# twice, past the limit, and count(*) of the same filter says otherwise.
#
# Guess: a filter is a condition on rows, so each row that meets it comes once, at most `limit` of
# them, and count(*) is their number.
#
# Observed: `id in [1, 1, 3]` alone gives three rows, also with a limit of 2, and a count of 2. The
# same values in another field, or the same list with a second condition, give each row once.
#
#     id in [1, 1, 3]: rows 1 1 3, limit 2: rows 1 1 3, count 2
#     id in [1, 1, 3] and year > 0: rows 1 3, limit 2: rows 1 3, count 2
#     year in [2001, 2001, 2003]: rows 1 3, limit 2: rows 1 3, count 2
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pymilvus==3.0.2 milvus-lite==3.2.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys

from pymilvus import MilvusClient

client = MilvusClient(sys.argv[1])
client.create_collection("c", dimension=2, metric_type="IP")
client.insert("c", [{"id": i, "vector": [i, 1.0], "year": 2000 + i} for i in range(1, 5)])


def rows(condition, **options):
    found = client.query("c", filter=condition, output_fields=["id"], **options)
    return " ".join(str(row["id"]) for row in found)


for condition in ("id in [1, 1, 3]", "id in [1, 1, 3] and year > 0", "year in [2001, 2001, 2003]"):
    count = client.query("c", filter=condition, output_fields=["count(*)"])[0]["count(*)"]
    limited = rows(condition, limit=2)
    print(f"{condition}: rows {rows(condition)}, limit 2: rows {limited}, count {count}")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder/c.db" > "$folder/seen" 2> "$folder/log" || (cat "$folder/log" && false)
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
id in [1, 1, 3]: rows 1 1 3, limit 2: rows 1 1 3, count 2
id in [1, 1, 3] and year > 0: rows 1 3, limit 2: rows 1 3, count 2
year in [2001, 2001, 2003]: rows 1 3, limit 2: rows 1 3, count 2
TEXT
cmp "$folder/seen" "$folder/expected"
