"""Models that a framework's components load, and what they tell of truncated texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from warpseek.errors import UsageError
from warpseek.models import Embedder


def embedder_of(
    embedder: Embedder | None,
    model: str | None,
    name: str = "model",
    *,
    device: str | None = None,
    precision: str | None = None,
    models_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> Embedder:
    """The loaded model that is given, or the one that the other arguments load.

    Raises:
        UsageError: If both are given; `name` is the argument of the model.
    """
    settings: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "models_dir": models_dir,
        "offline": offline,
    }
    if embedder is None:
        return Embedder(model, **settings)
    given = [key for key, value in {name: model, **settings}.items() if value is not None]
    if given:
        raise UsageError(
            f"give embedder or {' and '.join(given)}, not both: the embedder is loaded already"
        )
    return embedder


def truncation(embedder: Embedder, counts: Mapping[str, Any], called: str) -> str | None:
    """The warning that texts were not embedded whole; None if all were.

    Args:
        embedder: The model.
        counts: Its counts, one of each text.
        called: Name of the texts.
    """
    truncated = counts["truncated"]
    n = int((truncated > 0).sum())
    if n == 0:
        return None
    return (
        f"{n} of {len(truncated)} {called} are longer than {embedder.max_seq_length} tokens; "
        "their ends were not embedded: split them first"
    )
