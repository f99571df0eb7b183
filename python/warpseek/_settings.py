"""Settings that all classes take, and what a pickle keeps of an object."""

from __future__ import annotations

import os
from typing import TypedDict

from warpseek.errors import UsageError


class Settings(TypedDict):
    """Settings of an engine; ``None`` leaves one to the environment and the settings file."""

    device: str | None
    precision: str | None
    models_dir: str | None
    offline: bool | None


def settings(
    device: str | None,
    precision: str | None,
    models_dir: str | os.PathLike[str] | None,
    offline: bool | None,
) -> Settings:
    """Checks settings by name."""
    for name, value in (("device", device), ("precision", precision)):
        if value is not None and not isinstance(value, str):
            found = type(value).__name__
            raise UsageError(f'{name} must be a string such as "auto", found {found}')
    if offline is not None and not isinstance(offline, bool):
        raise UsageError(f"offline must be True or False, found {type(offline).__name__}")
    return {
        "device": device,
        "precision": precision,
        "models_dir": None if models_dir is None else os.fspath(models_dir),
        "offline": offline,
    }
