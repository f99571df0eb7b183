"""The models for mteb, held to mteb's protocols and its mock run, and to tasks made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.models_protocols import CrossEncoderProtocol, EncoderProtocol, SearchProtocol
from mteb.results.task_result import TaskError, TaskResult
from mteb.types import PromptType
from torch.utils.data import DataLoader

from warpseek import CrossEncoder, Embedder, ModelUnavailableError
from warpseek.integrations.mteb import WarpseekCrossEncoder, WarpseekEncoder

MODEL = "all-MiniLM-L6-v2"

PAIRS = [
    ("A man plays the guitar.", "Someone is playing a guitar.", 4.8),
    ("A cat sleeps on the sofa.", "A kitten naps on the couch.", 4.2),
    ("The stock market fell today.", "Share prices dropped sharply.", 4.0),
    ("She reads a book in the park.", "A woman sits outside.", 2.4),
    ("He cooks dinner.", "The car needs new tires.", 0.2),
    ("It rains in Paris.", "Quantum computers use qubits.", 0.0),
]
CORPUS = {
    "pump": "A heat pump moves heat from the air outside into the house.",
    "plant": "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "violin": "The orchestra tuned its violins before the concert.",
    "bread": "Sourdough bread needs flour, water, salt and patience.",
    "ice": "Glaciers carve valleys as they slide down mountains.",
    "bank": "The central bank raised interest rates to slow inflation.",
}
QUERIES = {
    "how is a home kept warm": "pump",
    "how do leaves make food": "plant",
    "musical instruments before a performance": "violin",
    "ingredients for baking a loaf": "bread",
    "what shaped alpine valleys": "ice",
    "monetary policy against rising prices": "bank",
}


def describe(name: str, kind: Any, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=main_score,
        description="A few sentences.",
        reference=None,
        dataset={"path": "none", "revision": "none"},
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )


class FewPairs(AbsTaskSTS):
    metadata = describe("FewPairs", "STS", "cosine_spearman")
    min_score = 0
    max_score = 5

    def load_data(self, **kwargs: Any) -> None:
        first, second, scores = zip(*PAIRS, strict=True)
        data = {"sentence1": first, "sentence2": second, "score": scores}
        self.dataset = DatasetDict({"test": Dataset.from_dict(data)})
        self.data_loaded = True


class FewTexts(AbsTaskRetrieval):
    metadata = describe("FewTexts", "Retrieval", "ndcg_at_10")

    def load_data(self, **kwargs: Any) -> None:
        corpus = [{"id": name, "title": "", "text": text} for name, text in CORPUS.items()]
        queries = [{"id": f"q {wanted}", "text": query} for query, wanted in QUERIES.items()]
        relevant = {f"q {wanted}": {wanted: 1} for wanted in QUERIES.values()}
        split = {
            "corpus": Dataset.from_list(corpus),
            "queries": Dataset.from_list(queries),
            "relevant_docs": relevant,
            "top_ranked": self.top_ranked(),
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    def top_ranked(self) -> dict[str, list[str]] | None:
        return None


class FewTextsReranked(FewTexts):
    metadata = describe("FewTextsReranked", "Reranking", "map_at_1000")

    def top_ranked(self) -> dict[str, list[str]] | None:
        return {f"q {wanted}": list(CORPUS) for wanted in QUERIES.values()}


@pytest.fixture(scope="module")
def encoder() -> WarpseekEncoder:
    return WarpseekEncoder(MODEL)


@pytest.fixture(scope="module")
def cross_encoder() -> WarpseekCrossEncoder:
    return WarpseekCrossEncoder()


def run(model: Any, task: Any) -> dict[str, Any]:
    result = mteb.evaluate(model, task, cache=None, encode_kwargs={"batch_size": 4})
    scores: dict[str, Any] = result.task_results[0].scores["test"][0]
    return scores


def test_protocols(encoder: WarpseekEncoder, cross_encoder: WarpseekCrossEncoder) -> None:
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, (CrossEncoderProtocol, SearchProtocol))
    assert isinstance(cross_encoder, CrossEncoderProtocol)
    assert not isinstance(cross_encoder, (EncoderProtocol, SearchProtocol))


def test_metadata(encoder: WarpseekEncoder, cross_encoder: WarpseekCrossEncoder) -> None:
    meta = encoder.mteb_model_meta
    assert meta.name == f"warpseek/{MODEL}"
    assert meta.revision == Embedder(MODEL).sha256
    assert meta.adapted_from == f"sentence-transformers/{MODEL}"
    assert (meta.embed_dim, meta.similarity_fn_name) == (384, "cosine")
    assert (
        meta.training_datasets
        == mteb.get_model_meta(f"sentence-transformers/{MODEL}").training_datasets
    )
    assert cross_encoder.mteb_model_meta.is_cross_encoder
    assert cross_encoder.mteb_model_meta.name is not None
    for model in (encoder, cross_encoder):
        data = model.mteb_model_meta.model_dump()
        assert ModelMeta.model_validate(data).to_dict() == model.mteb_model_meta.to_dict()


def test_metadata_loads_the_model(encoder: WarpseekEncoder) -> None:
    again = encoder.mteb_model_meta.load_model()
    assert isinstance(again, WarpseekEncoder)
    inputs = [{"text": list(CORPUS.values())}]
    arguments = {"task_metadata": FewPairs.metadata, "hf_split": "test", "hf_subset": "default"}
    np.testing.assert_array_equal(
        again.encode(inputs, **arguments), encoder.encode(inputs, **arguments)
    )


def test_other_weights_than_the_revision_are_refused() -> None:
    with pytest.raises(ValueError, match="not of revision 0123"):
        WarpseekEncoder(MODEL, "0123")


def test_similar_texts(encoder: WarpseekEncoder) -> None:
    scores = run(encoder, FewPairs())
    assert scores["main_score"] > 0.9
    vectors = Embedder(MODEL).encode([text for pair in PAIRS for text in pair[:2]])
    cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
    wanted = np.corrcoef(cosines, [pair[2] for pair in PAIRS])[0, 1]
    assert scores["cosine_pearson"] == pytest.approx(wanted, abs=1e-5)


def test_retrieval(encoder: WarpseekEncoder, cross_encoder: WarpseekCrossEncoder) -> None:
    assert run(encoder, FewTexts())["ndcg_at_10"] == pytest.approx(1.0)
    assert run(encoder, FewTextsReranked())["map_at_1000"] == pytest.approx(1.0)
    assert run(cross_encoder, FewTextsReranked())["map_at_1000"] > 0.8


def test_results_are_filed_apart(encoder: WarpseekEncoder, tmp_path: Path) -> None:
    cache = mteb.ResultCache(tmp_path)
    mteb.evaluate(encoder, FewPairs(), cache=cache)
    (path,) = tmp_path.rglob("FewPairs.json")
    assert f"warpseek__{MODEL}" in str(path)
    assert encoder.model.sha256 in str(path)
    exact = WarpseekEncoder(MODEL, precision="f32")
    mteb.evaluate(exact, FewPairs(), cache=cache)
    (other,) = set(tmp_path.rglob("FewPairs.json")) - {path}
    assert "precision_f32" in str(other)
    again = exact.mteb_model_meta.load_model()
    assert again.model.precision == exact.model.precision != encoder.model.precision


def test_roles_and_prompts() -> None:
    prompts = {"query": "query: ", "STS": "sts: ", "Retrieval-document": "passage: "}
    encoder, model = WarpseekEncoder(MODEL, model_prompts=prompts), Embedder(MODEL)
    assert encoder.mteb_model_meta.use_instructions is True
    texts = list(CORPUS.values())

    def encode(task: Any, prompt_type: PromptType | None) -> Any:
        loader = DataLoader(Dataset.from_dict({"text": texts}), batch_size=4)
        return encoder.encode(
            loader,
            task_metadata=task.metadata,
            hf_split="test",
            hf_subset="default",
            prompt_type=prompt_type,
            batch_size=3,
            show_progress_bar=False,
        )

    for task, prompt_type, prefix in [
        (FewTexts, PromptType.query, "query: "),
        (FewTexts, PromptType.document, "passage: "),
        (FewPairs, None, "sts: "),
        (FewPairs, PromptType.query, "sts: "),
    ]:
        role = "query" if prompt_type is PromptType.query else "passage"
        wanted = model.encode(texts, role=role, prompt=prefix)
        np.testing.assert_array_equal(encode(task, prompt_type), wanted)
    np.testing.assert_array_equal(encode(FewTexts, None), model.encode_document(texts))
    with pytest.raises(KeyError, match="nonsense"):
        WarpseekEncoder(MODEL, model_prompts={"nonsense": "x"})


def test_logits(cross_encoder: WarpseekCrossEncoder) -> None:
    queries, texts = list(QUERIES), list(CORPUS.values())
    logits = cross_encoder.predict(
        [{"text": queries[:4]}, {"text": queries[4:]}],  # type: ignore[arg-type]
        [{"text": texts}],  # type: ignore[arg-type]
        task_metadata=FewTexts.metadata,
        hf_split="test",
        hf_subset="default",
    )
    wanted = CrossEncoder().predict(
        list(zip(queries, texts, strict=True)), activation_fn="identity"
    )
    np.testing.assert_array_equal(logits, wanted)


@pytest.mark.parametrize(
    ("inputs", "options", "reason"),
    [
        ([{"image": [1]}], {}, "text alone"),
        ([{"text": ["a"], "image": [1]}], {}, "text alone"),
        ([{"text": ["a"]}], {"precision": "int8"}, "quantized vectors"),
        ([{"text": ["a"]}], {"device": "cpu"}, "'device', which is unknown"),
    ],
)
def test_what_is_not_supported_is_refused(
    encoder: WarpseekEncoder,
    cross_encoder: WarpseekCrossEncoder,
    inputs: Any,
    options: dict[str, Any],
    reason: str,
) -> None:
    task = {"task_metadata": FewTexts.metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(ValueError, match=reason):
        encoder.encode(inputs, **task, **options)
    with pytest.raises(ValueError, match=reason):
        cross_encoder.predict(inputs, inputs, **task, **options)


def test_empty_inputs(encoder: WarpseekEncoder, cross_encoder: WarpseekCrossEncoder) -> None:
    task: dict[str, Any] = {
        "task_metadata": FewTexts.metadata,
        "hf_split": "test",
        "hf_subset": "default",
    }
    assert encoder.encode([], **task).shape == (0, 384)  # type: ignore[arg-type]
    assert cross_encoder.predict([], [], **task).shape == (0,)  # type: ignore[arg-type]


def test_mock_run(encoder: WarpseekEncoder) -> None:
    """mteb's own check of a model: every mock task over texts."""
    results = mteb.mock_run(encoder)
    assert results.all_passed, results.to_markdown()
    assert sum(isinstance(status, TaskResult) for _, status in results.items()) > 20


def test_mock_run_of_a_cross_encoder(cross_encoder: WarpseekCrossEncoder) -> None:
    """mteb gives a cross-encoder retrieval tasks too, and refuses them without a first stage."""
    results = dict(mteb.mock_run(cross_encoder).items())
    passed = {name for name, status in results.items() if isinstance(status, TaskResult)}
    assert passed == {
        "MockRerankingTask",
        "MockMultilingualRerankingTask",
        "MockInstructionReranking",
        "MockMultilingualInstructionReranking",
    }
    failed = [status.exception for status in results.values() if isinstance(status, TaskError)]
    assert all("requires top_ranked documents" in reason for reason in failed), failed


def test_default_model_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARPSEEK_MODEL", raising=False)
    assert WarpseekEncoder().mteb_model_meta.name == f"warpseek/{MODEL}"
    monkeypatch.setenv("WARPSEEK_MODEL", "no-such-model")
    with pytest.raises(ModelUnavailableError, match="no-such-model"):
        WarpseekEncoder()
