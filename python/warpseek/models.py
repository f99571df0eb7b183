"""Models: texts to vectors, and pairs of texts to relevance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from warpseek import _warpseek
from warpseek._arguments import at_least
from warpseek._progress import Progress
from warpseek._settings import settings
from warpseek.errors import UsageError

Floats = npt.NDArray[np.float32]
Role = Literal["query", "passage", "document"]

_ROLES = ("query", "passage", "document")


class Embedder:
    """An embedding model: texts to vectors.

    Usable where a ``SentenceTransformer`` is: :meth:`encode`, :meth:`encode_query`,
    :meth:`encode_document` and :meth:`similarity` take its keywords.

    Args:
        model: A listed name, a hub id or a folder. It is looked for locally first, then downloaded.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"f16"`` on a GPU, ``"f32"``, ``"bf16"`` or ``"int8"`` on the CPU.
        models_dir: Folder of downloaded models.
        offline: True to connect to loopback addresses only.
        truncate_dim: Number of first dimensions that are kept of vectors, for models that were
            trained for it (Matryoshka).

    Raises:
        ModelUnavailableError: With the places that were searched.
        DeviceError: If the device that is named cannot be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | os.PathLike[str] | None = None,
        offline: bool | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        at_least(1, truncate_dim=truncate_dim)
        self._model = None if model is None else os.fspath(model)
        self._truncate_dim = truncate_dim
        self._settings = settings(device, precision, models_dir, offline)
        self._core = _warpseek.Embedder(self._model, truncate_dim, self._settings)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._core.dim

    @property
    def max_seq_length(self) -> int:
        """Limit of a text in tokens, special tokens included."""
        return self._core.max_tokens

    @property
    def name(self) -> str:
        """The model's name."""
        return self._core.name

    @property
    def sha256(self) -> str:
        """The sha256 of the weights."""
        return self._core.sha256

    @property
    def precision(self) -> str:
        """The number format that passages are computed in."""
        return self._core.precision

    @property
    def prompts(self) -> dict[str, str]:
        """The texts that stand in front of queries and passages."""
        return {role: self._core.prompt(role) for role in ("query", "passage")}

    def get_sentence_embedding_dimension(self) -> int:
        """Returns the dimensions of a vector."""
        return self.dim

    def get_embedding_dimension(self) -> int:
        """Returns the dimensions of a vector."""
        return self.dim

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        role: Role | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool | None = None,
        out: Floats | None = None,
        return_counts: bool = False,
    ) -> Any:
        """Embeds texts.

        Args:
            sentences: A text, or an iterable of texts.
            role: ``"passage"`` (the default) or ``"query"``; models may put another prompt in front
                of each. ``prompt_name`` is the same under its name in sentence-transformers.
            prompt: Text in front of every text, instead of the role's.
            batch_size: Without effect: sequences are packed by their length.
            output_value: Only ``"sentence_embedding"``.
            precision: Only ``"float32"``.
            show_progress_bar: A bar on stderr; by default for more than a thousand texts on a
                terminal, if tqdm is installed.
            convert_to_numpy: False for a list of vectors.
            convert_to_tensor: True for a torch tensor.
            normalize_embeddings: True to scale vectors to unit length; False leaves it to the
                model's configuration. By default what an index needs: True, and False for a model
                whose :attr:`similarity_fn_name` is ``"dot"``.
            out: Array ``[n, dim]`` of float32 that takes the vectors and is returned.
            return_counts: True to return also a dict of arrays ``[n]``: ``tokens`` that were
                embedded, and ``truncated`` tokens beyond :attr:`max_seq_length`.

        Returns:
            float32 vectors ``[n, dim]``, or ``[dim]`` for one text.

        Raises:
            UsageError: For an argument that cannot be obeyed, by its name.
        """
        chosen = _role(role, prompt_name)
        if output_value != "sentence_embedding":
            raise UsageError(f'output_value={output_value!r}: only "sentence_embedding" is made')
        if precision != "float32":
            raise UsageError(
                f'precision={precision!r}: encode returns "float32"; an index keeps half '
                "precision and int8 by itself"
            )
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
        is_one = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else _texts(sentences, "sentences")
        if out is not None:
            _check_out(out, (len(texts), self.dim))
        normalize = normalize_embeddings
        if normalize is None:
            normalize = self.similarity_fn_name == "cosine"
        with Progress(show_progress_bar, len(texts), "texts") as progress:
            vectors, tokens, truncated = self._core.embed(
                texts, chosen, prompt, normalize, progress.callback
            )
        result: Any = vectors
        if out is not None:
            out[...] = vectors
            result = out
        if is_one:
            result = result[0]
        if convert_to_tensor:
            import torch

            result = torch.from_numpy(result)
        elif not convert_to_numpy:
            result = list(result)
        if return_counts:
            return result, {"tokens": tokens, "truncated": truncated}
        return result

    def encode_query(self, sentences: str | Iterable[str], **kwargs: Any) -> Any:
        """Embeds queries: :meth:`encode` with ``role="query"``."""
        return self.encode(sentences, role="query", **kwargs)

    def encode_document(self, sentences: str | Iterable[str], **kwargs: Any) -> Any:
        """Embeds passages: :meth:`encode` with ``role="passage"``."""
        return self.encode(sentences, role="passage", **kwargs)

    @property
    def similarity_fn_name(self) -> str:
        """The similarity that the model was trained for, ``"cosine"`` or ``"dot"``."""
        return self._core.similarity

    def similarity(self, a: Any, b: Any) -> Floats:
        """Returns the similarities of two lists of vectors, ``[n, m]``.

        They are cosines, or inner products if :attr:`similarity_fn_name` is ``"dot"``.
        """
        first, second = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (a, b))
        if self.similarity_fn_name == "dot":
            return (first @ second.T).astype(np.float32)
        return (_unit(first) @ _unit(second).T).astype(np.float32)

    def count_tokens(self, sentences: str | Iterable[str]) -> list[int]:
        """Returns the number of tokens of each text, without prompt and special tokens."""
        texts = [sentences] if isinstance(sentences, str) else _texts(sentences, "sentences")
        return self._core.count_tokens(texts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_embedder, (self._model, self._truncate_dim, self._settings))

    def __repr__(self) -> str:
        return f"Embedder({self.name!r}, dim={self.dim}, max_seq_length={self.max_seq_length})"


class CrossEncoder:
    """A cross-encoder: pairs of a query and a passage to their relevance.

    Args:
        model: A listed name, a hub id or a folder; ``None`` for the best one present, which is at
            least the built-in one.
        device: See :class:`Embedder`.
        precision: See :class:`Embedder`.
        models_dir: See :class:`Embedder`.
        offline: See :class:`Embedder`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        models_dir: str | os.PathLike[str] | None = None,
        offline: bool | None = None,
    ) -> None:
        self._model = None if model is None else os.fspath(model)
        self._settings = settings(device, precision, models_dir, offline)
        self._core = _warpseek.CrossEncoder(self._model, self._settings)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._core.name

    @property
    def sha256(self) -> str:
        """The sha256 of the weights."""
        return self._core.sha256

    @property
    def max_length(self) -> int:
        """Limit of a pair in tokens; longer passages are read in windows."""
        return self._core.max_tokens

    def predict(
        self,
        sentences: Sequence[tuple[str, str]] | Sequence[Sequence[str]] | tuple[str, str],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Literal["sigmoid", "identity"] | Callable[[Floats], Floats] | None = None,
    ) -> Any:
        """Scores pairs of a query and a passage.

        Args:
            sentences: Pairs ``(query, passage)``; a single pair gives a single number.
            batch_size: Without effect on the result.
            show_progress_bar: See :meth:`Embedder.encode`.
            activation_fn: Function of the logits: ``"identity"`` (the default), ``"sigmoid"``, or a
                callable on an array.

        Returns:
            float32 scores ``[n]``, higher is more relevant.
        """
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
        if not callable(activation_fn) and activation_fn not in (None, "identity", "sigmoid"):
            raise UsageError(f'activation_fn={activation_fn!r}: use "identity" or "sigmoid"')
        is_one = len(sentences) == 2 and all(isinstance(text, str) for text in sentences)
        pairs: list[Any] = [sentences] if is_one else list(sentences)
        for i, pair in enumerate(pairs):
            is_sequence = isinstance(pair, Sequence) and not isinstance(pair, str)
            if not is_sequence or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
                raise UsageError(f"sentences[{i}] must be a pair (query, passage) of strings")
        with Progress(show_progress_bar, len(pairs), "pairs") as progress:
            scores = self._core.logits([tuple(pair) for pair in pairs], progress.callback)
        if activation_fn == "sigmoid":
            scores = _sigmoid(scores)
        elif callable(activation_fn):
            result = np.asarray(activation_fn(scores))
            if result.shape != scores.shape or result.dtype.kind != "f":
                raise UsageError(
                    f"activation_fn must return {len(scores)} numbers, found an array "
                    f"{result.dtype} of {result.shape}"
                )
            scores = result.astype(np.float32)
        return scores[0] if is_one else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Ranks passages by their relevance to a query, best first.

        Returns:
            Dicts with ``corpus_id`` (the position in `documents`), ``score``, and with
            `return_documents` also ``text``.
        """
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}: it must be at least 1")
        texts = _texts(documents, "documents")
        scores = self.predict([(query, text) for text in texts], **kwargs)
        order = np.argsort(-np.asarray(scores), kind="stable")[:top_k]
        ranked = []
        for i in order.tolist():
            entry: dict[str, Any] = {"corpus_id": i, "score": float(scores[i])}
            if return_documents:
                entry["text"] = texts[i]
            ranked.append(entry)
        return ranked

    def __reduce__(self) -> tuple[object, ...]:
        return (_cross_encoder, (self._model, self._settings))

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, max_length={self.max_length})"


def _embedder(model: str | None, truncate_dim: int | None, given: dict[str, Any]) -> Embedder:
    return Embedder(model, truncate_dim=truncate_dim, **given)


def _cross_encoder(model: str | None, given: dict[str, Any]) -> CrossEncoder:
    return CrossEncoder(model, **given)


def _role(role: str | None, prompt_name: str | None) -> str:
    if role is not None and prompt_name is not None and role != prompt_name:
        raise UsageError(f"role={role!r} and prompt_name={prompt_name!r} contradict each other")
    name = role if role is not None else prompt_name if prompt_name is not None else "passage"
    if name not in _ROLES:
        argument = "role" if role is not None else "prompt_name"
        raise UsageError(f'{argument}={name!r}: use "query" or "passage"')
    return "query" if name == "query" else "passage"


def _check_out(out: Any, shape: tuple[int, int]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = type(out).__name__
        if isinstance(out, np.ndarray):
            found = f"{out.dtype} of {out.shape}"
        raise UsageError(f"out must be a float32 array of the shape {shape}, found {found}")
    if not out.flags.writeable:
        raise UsageError("out is read-only: pass an array that can be written to")


def _texts(texts: Iterable[str], name: str) -> list[str]:
    """A list of strings; anything else is refused with its position."""
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        raise UsageError(f"{name} must be a list of strings, found {type(texts).__name__}")
    all_texts = list(texts)
    for i, text in enumerate(all_texts):
        if not isinstance(text, str):
            raise UsageError(f"{name}[{i}] must be a string, found {type(text).__name__}")
    return all_texts


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _sigmoid(logits: Floats) -> Floats:
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
