"""Base of the components that run a local model."""

from __future__ import annotations

import threading
from typing import Any, ClassVar, TypeVar

from haystack import default_from_dict, default_to_dict

from warpseek import CrossEncoder, Embedder

__all__ = ["ModelComponent"]

Self = TypeVar("Self", bound="ModelComponent")


class ModelComponent:
    """Arguments that all components with a model share, and the model.

    `@component` makes each class anew, so that `super()` without arguments fails in subclasses.
    """

    _kind: ClassVar[type[Embedder] | type[CrossEncoder]]

    def __init__(
        self,
        model: str | None,
        device: str | None,
        precision: str | None,
        models_dir: str | None,
        offline: bool | None,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.models_dir = models_dir
        self.offline = offline
        self._lock = threading.Lock()
        self._model: Any = None

    def _arguments(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "models_dir": self.models_dir,
            "offline": self.offline,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments of the component."""
        data: dict[str, Any] = default_to_dict(self, **self._arguments())
        return data

    @classmethod
    def from_dict(cls: type[Self], data: dict[str, Any]) -> Self:
        """Makes the component from what `to_dict` returned."""
        made: Self = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Loads the model, which `run` does otherwise."""
        self._loaded()

    def _loaded(self) -> Any:
        """Returns the model, of the class `_kind`."""
        with self._lock:
            if self._model is None:
                self._model = self._kind(
                    self.model,
                    device=self.device,
                    precision=self.precision,
                    models_dir=self.models_dir,
                    offline=self.offline,
                )
            return self._model
