"""Embedder and CrossEncoder."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import warpseek
from warpseek import CrossEncoder, Embedder


def test_encode_gives_unit_vectors_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = [f"text number {i} " * (i % 40 + 1) for i in range(50)]
    together = embedder.encode(texts)
    assert together.shape == (50, embedder.dim) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    one_by_one = np.stack([embedder.encode(text) for text in texts])
    assert np.array_equal(together, one_by_one)


def test_encode_takes_one_text_an_iterator_and_an_array_to_fill(embedder: Embedder) -> None:
    one = embedder.encode("hello")
    assert one.shape == (embedder.dim,)
    assert embedder.encode([]).shape == (0, embedder.dim)
    out = np.zeros((2, embedder.dim), dtype=np.float32)
    assert embedder.encode((text for text in ["hello", "world"]), out=out) is out
    assert np.array_equal(out[0], one)
    assert isinstance(embedder.encode(["hello"], convert_to_numpy=False), list)


def test_roles_and_prompts_are_obeyed(embedder: Embedder) -> None:
    query = embedder.encode_query("what is attention?")
    named = embedder.encode("what is attention?", prompt_name="query")
    assert np.array_equal(query, named)
    prompted = embedder.encode("attention", prompt="what is ")
    assert np.array_equal(prompted, embedder.encode("what is attention"))
    assert np.array_equal(embedder.encode_document("x"), embedder.encode("x", role="passage"))


def test_the_first_dimensions_are_kept(embedder: Embedder, tmp_path: Path) -> None:
    short = Embedder(truncate_dim=64)
    kept = embedder.encode("hello")[:64]
    expected = kept / np.linalg.norm(kept)
    assert short.dim == 64
    for model in (short, pickle.loads(pickle.dumps(short))):
        assert np.allclose(model.encode("hello"), expected, atol=1e-6)
    with warpseek.Index.create(tmp_path / "short", truncate_dim=64) as index:
        index.add([{"id": "a", "text": "hello"}, {"id": "b", "text": "a storm at sea"}])
        assert index.dim == 64 and np.allclose(index.vectors[0], expected, atol=1e-3)
    with warpseek.Index.open(tmp_path / "short") as index:
        assert index.search("hello", 1, rerank=False)[0].score == pytest.approx(1, abs=5e-3)
    for dim in (0, 385):
        with pytest.raises(warpseek.UsageError, match="dim"):
            Embedder(truncate_dim=dim)
    with pytest.raises(warpseek.UsageError, match="truncate_dim"):
        warpseek.Index.create(tmp_path / "given", model=None, dim=4, truncate_dim=2)


def test_truncated_tokens_are_counted(embedder: Embedder) -> None:
    vectors, counts = embedder.encode(["short", "word " * 1000], return_counts=True)
    assert vectors.shape == (2, embedder.dim)
    assert counts["truncated"].tolist() == [0, 1000 - (embedder.max_seq_length - 2)]
    assert counts["tokens"].tolist() == [3, embedder.max_seq_length]
    assert embedder.count_tokens(["short", "two words"]) == [1, 2]


def test_similarity_is_the_cosine(embedder: Embedder) -> None:
    a, b = embedder.encode(["a cat", "a dog"]), embedder.encode("a cat")
    scores = embedder.similarity(a * 3, b)
    assert scores.shape == (2, 1) and scores[0, 0] == pytest.approx(1, abs=1e-6)
    assert scores[1, 0] < 0.9


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"role": "author"}, "role='author'"),
        ({"prompt_name": "clustering"}, "prompt_name='clustering'"),
        ({"role": "query", "prompt_name": "passage"}, "contradict"),
        ({"precision": "binary"}, "precision='binary'"),
        ({"output_value": "token_embeddings"}, "output_value='token_embeddings'"),
        ({"batch_size": 0}, "batch_size is 0"),
        (
            {"out": np.zeros((2, 384))},
            "float32 array of the shape (1, 384), found float64",
        ),
    ],
)
def test_arguments_that_cannot_be_obeyed_are_named(
    embedder: Embedder, kwargs: dict[str, object], part: str
) -> None:
    with pytest.raises(ValueError) as caught:
        embedder.encode(["text"], **kwargs)
    assert isinstance(caught.value, warpseek.UsageError) and part in str(caught.value)


def test_unknown_keywords_and_other_types_are_refused(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="truncate_dim"):
        embedder.encode(["text"], truncate_dim=10)
    with pytest.raises(warpseek.UsageError, match=r"sentences\[1\] must be a string, found int"):
        embedder.encode(["text", 7])


def test_a_model_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(warpseek.ModelUnavailableError, match="no-such-model") as caught:
        Embedder("no-such-model", offline=True, models_dir=tmp_path)
    assert caught.value.exit_code == 3 and isinstance(caught.value, LookupError)
    with pytest.raises(warpseek.UsageError, match="device"):
        Embedder(device="tpu")


def test_precisions_of_the_cpu_give_close_vectors(embedder: Embedder) -> None:
    texts = ["attention is all you need", "bread and butter"]
    exact = Embedder(device="cpu", precision="f32").encode(texts)
    assert (np.abs(embedder.encode(texts) - exact).max()) < 0.02
    assert np.array_equal(exact, Embedder(device="cpu", precision="f32").encode(texts))


def test_an_embedder_survives_pickling(embedder: Embedder) -> None:
    copy = pickle.loads(pickle.dumps(embedder))
    assert np.array_equal(copy.encode("text"), embedder.encode("text"))


def test_cross_encoder_scores_and_ranks() -> None:
    model = CrossEncoder()
    query = "how do birds fly?"
    texts = ["The stock market fell.", "Birds fly by flapping their wings.", "Planes have wings."]
    logits = model.predict([(query, text) for text in texts])
    assert logits.shape == (3,) and logits.dtype == np.float32 and logits.argmax() == 1
    assert model.predict((query, texts[1])) == logits[1]
    chances = model.predict([(query, text) for text in texts], activation_fn="sigmoid")
    assert np.allclose(chances, 1 / (1 + np.exp(-logits.astype(float))), atol=1e-6)
    ranked = model.rank(query, texts, top_k=2, return_documents=True)
    assert ranked[0]["corpus_id"] == 1 and len(ranked) == 2
    assert ranked[0]["text"] == texts[1] and ranked[0]["score"] == pytest.approx(logits[1])
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict((query, texts[1])) == logits[1]


def test_cross_encoder_refuses_what_is_no_pair() -> None:
    model = CrossEncoder()
    with pytest.raises(warpseek.UsageError, match=r"sentences\[0\] must be a pair"):
        model.predict([("query", "passage", "more")])
    with pytest.raises(warpseek.UsageError, match="top_k is 0"):
        model.rank("query", ["text"], top_k=0)
    assert model.predict([]).shape == (0,)
