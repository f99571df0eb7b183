"""Writes vectors/: one small matrix in every file format that vectors come in.

    python make_vectors.py [--out FOLDER]
"""

import argparse
import struct
from pathlib import Path

import faiss
import numpy as np

ROWS, DIM, SEED = 37, 8, 20240602


def matrix() -> np.ndarray:
    """Unit rows in float64 from a frozen random stream."""
    values = np.random.RandomState(SEED).standard_normal((ROWS, DIM))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "vectors")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    faiss.omp_set_num_threads(1)

    doubles = matrix()
    rows = np.ascontiguousarray(doubles, dtype="<f4")
    np.save(out / "small.npy", rows)
    np.save(out / "small_fortran.npy", np.asfortranarray(rows))
    np.save(out / "small_f64.npy", doubles)
    np.save(out / "small_f16.npy", rows.astype("<f2"))
    prefix = struct.pack("<i", DIM)
    (out / "small.fvecs").write_bytes(b"".join(prefix + row.tobytes() for row in rows))
    (out / "small.fbin").write_bytes(struct.pack("<II", ROWS, DIM) + rows.tobytes())

    for name, index in (
        ("small_ip", faiss.IndexFlatIP(DIM)),
        ("small_l2", faiss.IndexFlatL2(DIM)),
        ("small_hnsw", faiss.IndexHNSWFlat(DIM, 4, faiss.METRIC_INNER_PRODUCT)),
    ):
        index.add(rows)
        faiss.write_index(index, str(out / f"{name}.faiss"))


if __name__ == "__main__":
    main()
