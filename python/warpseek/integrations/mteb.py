"""Models for mteb, the benchmark of text embeddings.

    import mteb
    from warpseek.integrations.mteb import WarpseekCrossEncoder, WarpseekEncoder

    tasks = mteb.get_tasks(tasks=["NFCorpus", "STS17"], languages=["eng"])
    mteb.evaluate(WarpseekEncoder("all-MiniLM-L6-v2"), tasks)

Results are filed under `warpseek/NAME`, with the checksum of the weights as the revision, and with
a precision that is set as an experiment. They never pass for those of the original implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import mteb
import numpy as np
from mteb.models.abs_encoder import AbsEncoder, get_prompt
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from warpseek import CrossEncoder, Embedder
from warpseek._arrays import Vectors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader

__all__ = ["WarpseekCrossEncoder", "WarpseekEncoder"]

#: Name in front of the model's own in mteb's results.
ORGANIZATION = "warpseek"


class WarpseekEncoder(AbsEncoder):
    """Encoder for all tasks over texts.

    Queries and documents get the prompts of the model. A prompt of `model_prompts` that fits the
    task replaces them.

    Args:
        model: A listed name, a hub id or a folder; `warpseek/NAME` is read as `NAME`. `None` is the
            model of the setting `WARPSEEK_MODEL`, by default all-MiniLM-L6-v2. It is looked for
            locally first, then downloaded.
        revision: Checksum of the weights that is expected; another one is refused.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.
        model_prompts: Texts to put in front, by task name, task type or prompt type, as mteb has
            them: `{"query": "query: ", "STS-query": "..."}`.

    Raises:
        ValueError: If the weights are not those of `revision`.
        KeyError: If `model_prompts` names no task.
    """

    mteb_model_meta: ModelMeta

    def __init__(
        self,
        model: str | None = None,
        revision: str | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
        model_prompts: dict[str, str] | None = None,
    ) -> None:
        self.model_prompts = self.validate_task_to_prompt_name(model_prompts)
        self.model = Embedder(
            _own_name(model),
            device=device,
            precision=precision,
            models_dir=models_dir,
            offline=offline,
        )
        fields = {
            "max_tokens": self.model.max_seq_length,
            "embed_dim": self.model.dim,
            "similarity_fn_name": ScoringFunction.COSINE,
            "model_type": ["dense"],
            "use_instructions": bool(self.model_prompts),
        }
        self.mteb_model_meta = _meta(type(self), self.model, revision, precision, fields)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Returns one vector of length 1 for each text.

        Raises:
            ValueError: If the task has inputs without text, or an option is not supported.
        """
        options = _options(kwargs)
        texts = list(chain.from_iterable(_texts(inputs, task_metadata)))
        prompt = get_prompt(self.model_prompts, task_metadata, prompt_type)
        is_query = prompt_type is PromptType.query
        encode = self.model.encode_query if is_query else self.model.encode_document
        if not texts:
            return np.zeros((0, self.model.dim), dtype=np.float32)
        return cast("Vectors", encode(texts, prompt=prompt, **options))


class WarpseekCrossEncoder:
    """Cross-encoder for reranking tasks, and for the second stage of retrieval tasks.

    Args:
        model: A listed name, a hub id or a folder; `warpseek/NAME` is read as `NAME`. `None` is the
            best one present, which is at least the built-in one.
        revision: Checksum of the weights that is expected; another one is refused.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; `None` follows the settings.
        precision: `"auto"`, `"f16"` on a GPU, `"f32"`, `"bf16"` or `"int8"` on the CPU; `None`
            follows the settings.
        models_dir: Folder of downloaded models; `None` follows the settings.
        offline: True to connect to loopback addresses only; `None` follows the settings.

    Raises:
        ValueError: If the weights are not those of `revision`.
    """

    def __init__(
        self,
        model: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        *,
        precision: str | None = None,
        models_dir: str | None = None,
        offline: bool | None = None,
    ) -> None:
        self.model = CrossEncoder(
            _own_name(model),
            device=device,
            precision=precision,
            models_dir=models_dir,
            offline=offline,
        )
        fields = {"model_type": ["cross-encoder"], "use_instructions": False}
        self.mteb_model_meta = _meta(type(self), self.model, revision, precision, fields)

    def predict(
        self,
        inputs1: DataLoader[BatchedInput],
        inputs2: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Returns the logit of each pair of a text of `inputs1` and one of `inputs2`.

        Raises:
            ValueError: If the task has inputs without text, the two inputs differ in length, or an
                option is not supported.
        """
        options = _options(kwargs)
        queries = chain.from_iterable(_texts(inputs1, task_metadata))
        passages = chain.from_iterable(_texts(inputs2, task_metadata))
        pairs = list(zip(queries, passages, strict=True))
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        logits = self.model.predict(pairs, activation_fn="identity", **options)
        return cast("Vectors", logits)


def _own_name(model: str | None) -> str | None:
    """Returns the model's name without the organization of mteb's results."""
    return None if model is None else model.removeprefix(ORGANIZATION + "/")


def _texts(inputs: DataLoader[BatchedInput], task: TaskMetadata) -> Iterator[list[str]]:
    """Yields the texts of each batch."""
    for batch in inputs:
        if "text" not in batch or set(batch) & {"image", "audio", "video"}:
            raise ValueError(
                f"task {task.name} has inputs of {', '.join(sorted(batch))}: warpseek reads text "
                "alone, so choose tasks with modalities=['text']"
            )
        yield list(cast("dict[str, list[str]]", batch)["text"])


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns mteb's options for encoding as options of warpseek's models."""
    taken = {"batch_size", "show_progress_bar"}
    precision = kwargs.get("precision") or "float32"
    if precision != "float32":
        raise ValueError(
            f"encode_kwargs has precision={precision!r}, which asks for quantized vectors: "
            "warpseek returns float32 (the encoder's own precision is set where it is made)"
        )
    if unknown := sorted(set(kwargs) - taken - {"precision"}):
        names = ", ".join(sorted(taken))
        raise ValueError(f"encode_kwargs has '{unknown[0]}', which is unknown: give {names}")
    return {name: kwargs[name] for name in taken & set(kwargs)}


def _meta(
    loader: type[Any],
    model: Embedder | CrossEncoder,
    revision: str | None,
    precision: str | None,
    fields: dict[str, Any],
) -> ModelMeta:
    """Describes a model, with what mteb knows of the original one of the same name."""
    if revision not in (None, model.sha256):
        raise ValueError(
            f"model '{model.name}' has weights of checksum {model.sha256}, not of revision "
            f"{revision}: leave the revision out, or give the checksum"
        )
    name = model.name.rstrip("/").rsplit("/", 1)[-1]
    known: dict[str, Any] = {
        "name": f"{ORGANIZATION}/{name}",
        "revision": model.sha256,
        "loader": loader,
        "framework": ["safetensors"],
        "modalities": ["text"],
        "experiment_kwargs": None if precision is None else {"precision": precision},
        **fields,
    }
    if original := _original(name):
        taken = (
            "languages",
            "license",
            "n_parameters",
            "n_embedding_parameters",
            "open_weights",
            "public_training_code",
            "public_training_data",
            "reference",
            "release_date",
            "training_datasets",
        )
        known |= {field: getattr(original, field) for field in taken}
        known["adapted_from"] = original.name
    return ModelMeta.create_empty(overwrites=known)


def _original(name: str) -> ModelMeta | None:
    """Finds the one model of mteb's registry that has this name behind its organization."""
    metas = (meta for meta in mteb.get_model_metas() if meta.name is not None)
    found = [meta for meta in metas if str(meta.name).split("/")[-1].lower() == name.lower()]
    return found[0] if len(found) == 1 else None
