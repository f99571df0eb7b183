"""Arrays of query and row vectors, checked with the name of their argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from warpseek.errors import UsageError

Vectors = npt.NDArray[np.float32]


def as_vectors(value: Any, name: str, dim: int | None = None, *, one: bool = False) -> Vectors:
    """Returns `value` as C-contiguous float32 rows ``[n, dim]``.

    Floating-point arrays of other precisions are converted. Other types, other shapes and numbers
    that are not finite are refused. With `one`, a single vector ``[dim]`` is one row.
    """
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise UsageError(
            f"{name} must hold floating-point numbers, found {array.dtype}: "
            'use array.astype("float32")'
        )
    if array.ndim == 1 and one:
        array = array[None]
    if array.ndim != 2:
        hint = ": use array[None] for one vector" if array.ndim == 1 else ""
        raise UsageError(
            f"{name} must have two dimensions [n, dim], found the shape {array.shape}{hint}"
        )
    if dim is not None and array.shape[1] != dim:
        hint = ": transpose it with .T" if array.shape[0] == dim else ""
        raise UsageError(f"{name} has the shape {array.shape}, and {dim} columns are needed{hint}")
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.ascontiguousarray(array, dtype=np.float32)
        # The sum of finite values may overflow, which the slow way tells.
        is_finite = bool(np.isfinite(vectors.sum()))
    if not is_finite and not np.isfinite(vectors).all():
        row, column = np.argwhere(~np.isfinite(vectors))[0]
        found = array[row, column]
        raise UsageError(f"{name}[{row}, {column}] is {found}: vectors must be finite float32")
    return vectors
