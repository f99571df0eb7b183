"""Evaluates conditions with DuckDB.

Reads from standard input one JSON object: `columns`, pairs of a name and an SQL expression over the
text column `raw` of that name; `rows`, lists of texts or nulls in the order of the columns; and
`conditions`, SQL. Prints for each condition the numbers of the rows that pass, as a JSON list, or
the error as a string.
"""

import json
import sys

import duckdb

data = json.load(sys.stdin)
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
names = [name for name, _ in data["columns"]]
raw = ", ".join(f'"{name}" VARCHAR' for name in names)
db.execute(f"CREATE TABLE raw (number INTEGER, {raw})")
places = ", ".join("?" for _ in range(len(names) + 1))
db.executemany(f"INSERT INTO raw VALUES ({places})", [[i, *row] for i, row in enumerate(data["rows"])])
typed = ", ".join(f'{sql} AS "{name}"' for name, sql in data["columns"])
db.execute(f"CREATE TABLE t AS SELECT number, {typed} FROM raw")
for condition in data["conditions"]:
    try:
        found = db.execute(f"SELECT number FROM t WHERE {condition} ORDER BY number").fetchall()
        print(json.dumps([row[0] for row in found]))
    except duckdb.Error as error:
        print(json.dumps(str(error)))
