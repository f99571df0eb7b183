#!/bin/sh
# sqlite-vec 0.1.9: the same condition on a metadata column filters before k in one form, after k in
# another, and a fraction is cut to an integer.
#
# Guess: the extension filters by metadata columns while it searches, and refuses a condition that
# it cannot test, as it does LIKE, IS and GLOB; a condition means what it means without MATCH.
#
# Observed: only `column operator value` reaches the extension. With OR between two columns, NOT, or
# an expression SQLite tests the k hits afterwards, without a message, so that hits are missing. So
# does `id = 5`, while `id IN (5, 6)` does not. Of a number compared with an integer column the
# fraction is dropped: `n = 4.5` finds the row of 4, and `n < 4.5` leaves it out.
#
# Why it matters: an empty page for a filter that has rows looks like a corpus without them.
#
#     g = 'b' OR g = 'c': [4, 5]
#     g = 'b' OR n = 6: []
#     g != 'a': [4, 5]
#     NOT g = 'a': []
#     g LIKE 'b': refused
#     id IN (5, 6): [5, 6]
#     id = 5: []
#     n = 4.5: [4], without MATCH: []
#     n < 4.5 AND n > 2: [3], without MATCH: [3, 4]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    sqlite-vec==0.1.9 apsw==3.54.1.0
cat > "$folder/run.py" <<'PYTHON'
import apsw
import sqlite_vec

db = apsw.Connection(":memory:")
db.enable_load_extension(True)
db.load_extension(sqlite_vec.loadable_path())
db.execute(
    "CREATE VIRTUAL TABLE t USING vec0(id INTEGER PRIMARY KEY, v FLOAT[1], g TEXT, n INTEGER)"
)
for n, g in enumerate("aaabbc", 1):
    db.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (n, f"[{n}]", g, n))


def ids(condition, search="v MATCH '[0]' AND k = 2 AND"):
    try:
        return [row[0] for row in db.execute(f"SELECT id FROM t WHERE {search} ({condition})")]
    except apsw.SQLError:
        return "refused"


for condition in (
    "g = 'b' OR g = 'c'",
    "g = 'b' OR n = 6",
    "g != 'a'",
    "NOT g = 'a'",
    "g LIKE 'b'",
    "id IN (5, 6)",
    "id = 5",
):
    print(f"{condition}:", ids(condition))
for condition in ("n = 4.5", "n < 4.5 AND n > 2"):
    print(f"{condition}: {ids(condition)}, without MATCH:", ids(condition, ""))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
g = 'b' OR g = 'c': [4, 5]
g = 'b' OR n = 6: []
g != 'a': [4, 5]
NOT g = 'a': []
g LIKE 'b': refused
id IN (5, 6): [5, 6]
id = 5: []
n = 4.5: [4], without MATCH: []
n < 4.5 AND n > 2: [3], without MATCH: [3, 4]
TEXT
cmp "$folder/seen" "$folder/expected"
