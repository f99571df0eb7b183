#!/bin/sh
# voyager 2.2.3: `get_distance` of two vectors by inner product changes with what the index holds.
#
# Guess: the distance of two given vectors is a function of them alone, and is the one that a search
# reports: 1 minus the inner product.
#
# Observed: so it is while no stored vector is much longer than 1 (a length of 1.1 changes nothing,
# one of 1.5 does). Beyond that a whole number that grows with the longest vector is taken off,
# whichever two vectors are asked for. Searches keep their order and their distances. By cosine and
# L2 the method agrees with the search.
#
# Why it matters: scores of hits computed by the index's own method, for example to merge rankings
# or to apply a threshold, are off by any amount, and differ between shards of one corpus.
#
#     longest 1: get_distance 0.5, search 0.5
#     longest 3: get_distance -3.5, search 0.5
#     longest 10: get_distance -80.5, search 0.5
#     cosine, longest 10: get_distance 0.0, search 0.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    voyager==2.2.3 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import numpy
from voyager import Index, Space

QUERY, STORED = numpy.array([[1, 0], [0.5, 0]], numpy.float32)


def show(name, index):
    ids, distances = index.query(QUERY, k=len(index))
    found = dict(zip(ids.tolist(), distances.tolist()))
    print(f"{name}: get_distance {index.get_distance(QUERY, STORED)}, search {found[0]}")


index = Index(Space.InnerProduct, num_dimensions=2)
index.add_item(STORED)
for longest in (1, 3, 10):
    index.add_item(numpy.array([0, longest], numpy.float32))
    show(f"longest {longest}", index)
index = Index(Space.Cosine, num_dimensions=2)
index.add_item(STORED)
index.add_item(numpy.array([0, 10], numpy.float32))
show("cosine, longest 10", index)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
longest 1: get_distance 0.5, search 0.5
longest 3: get_distance -3.5, search 0.5
longest 10: get_distance -80.5, search 0.5
cosine, longest 10: get_distance 0.0, search 0.0
TEXT
cmp "$folder/seen" "$folder/expected"
