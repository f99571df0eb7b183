#!/bin/sh
# DuckDB 2.0.1 (Python package): a decimal literal of 39 digits compares as a float.
#
# Guess: a literal of more digits than DECIMAL(38) holds is an error, as the cast of its text to
# DECIMAL(38,3) is, or it is compared exactly.
#
# Observed: its type is DOUBLE, without a message, and so is that of the comparison. A DECIMAL(38,2)
# "equals" a literal that differs from it by 456.785. Of 38 digits the literal is a DECIMAL, and the
# comparison is exact. An integer column of 64 bits is compared exactly with such fractions.
#
#     DOUBLE DECIMAL(38,2)
#     True False
#     True
#     ConversionException
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1
cat > "$folder/run.py" <<'PYTHON'
import duckdb

db = duckdb.connect()


def one(sql):
    return db.execute("SELECT " + sql).fetchone()[0]


print(
    one("typeof(123456789012345678901234567890123456.785)"),
    one("typeof(123456789012345678901234567890123456.78)"),
)
column = "123456789012345678901234567890123000.00::DECIMAL(38,2)"
print(
    one(column + " = 123456789012345678901234567890123456.785"),
    one(column + " = 123456789012345678901234567890123456.78"),
)
print(one("17843725896483928171::UBIGINT < 17843725896483928171.5"))
try:
    print(one("'123456789012345678901234567890123456.785'::DECIMAL(38,3)"))
except duckdb.Error as error:
    print(type(error).__name__)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
DOUBLE DECIMAL(38,2)
True False
True
ConversionException
TEXT
cmp "$folder/seen" "$folder/expected"
