#!/usr/bin/env bash
# Checks a built wheel: its size, and that it works in an empty environment without a network.
#     python/check_wheel.sh WHEEL
set -euo pipefail
wheel=$(realpath "$1")
size=$(wc -c < "$wheel")
limit=$((44 * 1024 * 1024))
echo "$(basename "$wheel"): $((size / 1024 / 1024)) MiB"
[ "$size" -lt "$limit" ] || { echo "larger than 44 MiB" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
bin="$folder/venv/bin"
[ -d "$bin" ] || bin="$folder/venv/Scripts"
"$bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$folder"
"$bin/warpseek" --version
WARPSEEK_OFFLINE=1 "$bin/python" - <<'PYTHON'
import numpy, warpseek

index = warpseek.Index.create("index", model=None, dim=8)
vectors = numpy.eye(8, dtype="float32")
index.add([{"id": str(i), "text": ""} for i in range(8)], vectors=vectors)
scores, rows = index.search_vectors(vectors, 2)
assert rows[:, 0].tolist() == list(range(8)), rows
query, passages = "how do birds fly?", ["Birds fly by flapping their wings.", "Shares fell today."]
scores = warpseek.CrossEncoder().predict([(query, passage) for passage in passages])
assert scores[0] > scores[1], scores
print("works in an empty environment")
PYTHON
