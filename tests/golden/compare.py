"""Compares two folders of golden data, file by file.

    python compare.py OLD NEW

Another processor or another version of torch may round differently in the last bits, so numbers
may differ by up to 2e-5; everything else has to be equal. Exit status 1 tells of a difference.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 2e-5


def difference(old: Path, new: Path) -> float:
    """Largest difference of the numbers in two files, infinite where they cannot be compared."""
    if old.read_bytes() == new.read_bytes():
        return 0.0
    if old.suffix == ".npy":
        return distance(np.load(old), np.load(new))
    if old.suffix == ".safetensors":
        a, b = load_file(old), load_file(new)
        return max(distance(a[k], b[k]) for k in a) if a.keys() == b.keys() else np.inf
    if old.name == "pairs.jsonl":
        a, b = ([json.loads(line) for line in p.read_text().splitlines()] for p in (old, new))
        logits = [np.array([row.pop("logit") for row in rows]) for rows in (a, b)]
        return distance(*logits) if a == b else np.inf
    return np.inf


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two arrays, infinite where shape or type differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def main() -> int:
    old, new = Path(sys.argv[1]), Path(sys.argv[2])
    names = {p.relative_to(root) for root in (old, new) for p in root.rglob("*") if p.is_file()}
    status = 0
    for name in sorted(names):
        missing = [root for root in (old, new) if not (root / name).is_file()]
        if missing:
            print(f"{name}: not in {missing[0]}")
            status = 1
            continue
        worst = difference(old / name, new / name)
        if worst > TOLERANCE:
            status = 1
        print(f"{name}: {'equal' if worst == 0 else f'differs by {worst:.3g}'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
