"""Writes families/: small models of each family, their vectors by sentence-transformers, and the
logits of their cross-encoders.

    python make_families.py [--out FOLDER]
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

import families
import tiny_bert
from make_models import TEXTS
from sentences import SENTENCES, words

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
DISTIL = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 96}
ROBERTA = {**SIZES, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
MPNET = {**SIZES, "max_position_embeddings": 514, "pad_token_id": 1, "layer_norm_eps": 1e-5}
ELECTRA = {**SIZES, "embedding_size": 32}
MODERN = {**SIZES, "num_hidden_layers": 4, "max_position_embeddings": 512, "local_attention": 24, "pad_token_id": 3}

# Name: (model class, tokenizer, sizes, modules behind the encoder, further files).
EMBEDDERS = {
    "xlm-roberta": (
        "XLMRobertaModel",
        (families.unigram, "XLMRobertaTokenizer"),
        ROBERTA,
        [("Pooling", {"pooling_mode_mean_tokens": True}), ("Normalize", None)],
        {"prompts": {"query": "query: ", "document": "passage: "}},
    ),
    "roberta": (
        "RobertaModel",
        (families.byte_pairs, "RobertaTokenizer"),
        ROBERTA,
        [("Pooling", {"pooling_mode": "weightedmean"})],
        {},
    ),
    "mpnet": (
        "MPNetModel",
        (families.word_piece, "MPNetTokenizer"),
        MPNET,
        [("Pooling", {"pooling_mode_mean_tokens": True}), ("Normalize", None)],
        {"similarity_fn_name": "dot"},
    ),
    "distilbert": (
        "DistilBertModel",
        (families.word_piece, "DistilBertTokenizer"),
        DISTIL,
        [
            ("Pooling", {"pooling_mode_cls_token": True}),
            ("Dense", {"out_features": 24, "activation_function": "torch.nn.modules.activation.Tanh"}),
        ],
        {},
    ),
    "electra": (
        "ElectraModel",
        (families.word_piece, "ElectraTokenizer"),
        ELECTRA,
        [("Pooling", {"pooling_mode_max_tokens": True}), ("Dropout", {"dropout": 0.1}), ("Normalize", None)],
        {"truncate_dim": 40},
    ),
    "modernbert": (
        "ModernBertModel",
        (families.byte_pairs, "PreTrainedTokenizerFast"),
        MODERN,
        [("Pooling", {"pooling_mode": "cls"}), ("Normalize", None)],
        {},
    ),
    "modules": (
        "BertModel",
        (families.word_piece, "BertTokenizer"),
        {**SIZES, "max_position_embeddings": 256},
        [
            ("Pooling", {"pooling_mode": ["cls", "max", "mean_sqrt_len_tokens", "lasttoken"], "include_prompt": False}),
            ("LayerNorm", {"dimension": 256}),
            ("Dense", {"out_features": 32, "use_residual": True, "activation_function": "torch.nn.modules.activation.GELU"}),
            ("Dense", {"out_features": 32, "bias": False, "use_residual": True, "activation_function": "torch.nn.modules.linear.Identity"}),
            ("Normalize", None),
        ],
        {"prompts": {"query": "Look for: ", "document": ""}},
    ),
}

# Name: (model class, tokenizer, sizes).
RERANKERS = {
    "xlm-roberta-reranker": ("XLMRobertaForSequenceClassification", (families.unigram, "XLMRobertaTokenizer"), ROBERTA),
    "mpnet-reranker": ("MPNetForSequenceClassification", (families.word_piece, "MPNetTokenizer"), MPNET),
    "distilbert-reranker": ("DistilBertForSequenceClassification", (families.word_piece, "DistilBertTokenizer"), DISTIL),
    "electra-reranker": ("ElectraForSequenceClassification", (families.word_piece, "BertTokenizer"), ELECTRA),
    "modernbert-reranker": (
        "ModernBertForSequenceClassification",
        (families.byte_pairs, "PreTrainedTokenizerFast"),
        {**MODERN, "classifier_pooling": "mean", "norm_bias": True, "mlp_bias": True, "attention_bias": True},
    ),
    "bert-reranker-without-types": (
        "BertForSequenceClassification",
        (families.word_piece, "PreTrainedTokenizerFast"),
        {**SIZES, "max_position_embeddings": 256},
    ),
}

PAIRS = [
    ("Why does the harbour stay open in winter?", SENTENCES[11]),
    ("Why does the harbour stay open in winter?", SENTENCES[3]),
    ("old bridge", SENTENCES[10]),
    ("platform", SENTENCES[3]),
    ("a", "b"),
    ("Caf\u00e9, \u6771\u4eac", "Stra\u00dfe \u4e2d\u6587 <mask>"),
    (SENTENCES[19], " ".join(SENTENCES[20:23])),
    ("committee", " ".join(words(60, 31))),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "families")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for name, (kind, tokenizer, sizes, modules, settings) in EMBEDDERS.items():
        folder = out / name
        encoder(folder, kind, tokenizer, sizes)
        sentence_modules(folder, modules, settings)
        expected_vectors(folder)
    for name, (kind, tokenizer, sizes) in RERANKERS.items():
        folder = out / name
        encoder(folder, kind, tokenizer, {**sizes, "num_labels": 1})
        expected_logits(folder)
    # The tests compute the weights again.
    for file in out.rglob("*.safetensors"):
        file.unlink()


def encoder(folder: Path, kind: str, tokenizer: tuple, sizes: dict) -> None:
    """config.json, the tokenizer's files and the weights of an encoder."""
    shutil.rmtree(folder, ignore_errors=True)
    make, tokenizer_class = tokenizer
    n = make(folder, tokenizer_class)
    model_class = getattr(transformers, kind)
    special = {} if "pad_token_id" in sizes else {"pad_token_id": 0}
    config = model_class.config_class(vocab_size=n, **special, **sizes)
    config.architectures = [kind]
    bare = {} if "Sequence" in kind or kind in ("DistilBertModel", "ElectraModel", "ModernBertModel") else {"add_pooling_layer": False}
    families.weights(folder, model_class(config, **bare))
    values = {k: v for k, v in config.to_diff_dict().items() if k not in ("transformers_version", "dtype")}
    tiny_bert.write_json(folder / "config.json", values)


def sentence_modules(folder: Path, modules: list, settings: dict) -> None:
    """The files of sentence-transformers."""
    names = ["Transformer"] + [name for name, _ in modules]
    paths = [""] + [f"{i + 1}_{name}" for i, (name, _) in enumerate(modules)]
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths))
    ]
    tiny_bert.write_json(folder / "modules.json", rows)
    width = 64
    for (name, config), path in zip(modules, paths[1:]):
        if name == "Pooling":
            config = {"word_embedding_dimension": 64, **config}
            modes = config.get("pooling_mode")
            width *= len(modes) if isinstance(modes, list) else 1
        tensors = {}
        if name == "LayerNorm":
            tensors = {"norm.weight": ([width], 0.3, 1.0), "norm.bias": ([width], 0.2, 0.0)}
        if name == "Dense":
            n_out, has_bias = config["out_features"], config.get("bias", True)
            config = {"in_features": width, "bias": has_bias, **config}
            tensors["linear.weight"] = ([n_out, width], 0.3, 0.0)
            if has_bias:
                tensors["linear.bias"] = ([n_out], 0.2, 0.0)
            if config.get("use_residual") and n_out != width:
                tensors["residual.weight"] = ([n_out, width], 0.3, 0.0)
            width = n_out
        if config is not None:
            tiny_bert.write_json(folder / path / "config.json", config)
        if tensors:
            tiny_bert.write_json(folder / path / "tensors.json", tensors)
            made = {key: families.values(key, *row) for key, row in tensors.items()}
            save_file(made, folder / path / "model.safetensors", metadata={"format": "pt"})
    tiny_bert.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    if settings:
        tiny_bert.write_json(folder / "config_sentence_transformers.json", settings)


def expected_vectors(folder: Path) -> None:
    """Vectors and token ids, one text at a time, in float32."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    texts = [text for _, text in TEXTS]
    for role, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        vectors = np.stack([encode(text, show_progress_bar=False) for text in texts])
        np.save(folder / f"expected_{role}.npy", np.ascontiguousarray(vectors, dtype=np.float32))
    rows = [model.tokenizer(text, truncation=True)["input_ids"] for text in texts]
    (folder / "tokens.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def expected_logits(folder: Path) -> None:
    """Token ids, token types and logits of the pairs."""
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    rows = []
    for query, passage in PAIRS:
        logit = model.predict([(query, passage)], activation_fn=torch.nn.Identity(), show_progress_bar=False)
        tokens = model.tokenizer(query, passage)
        row = {"query": query, "passage": passage, "logit": float(logit[0]), "ids": tokens["input_ids"]}
        rows.append({**row, "types": tokens.get("token_type_ids", [0] * len(tokens["input_ids"]))})
    tiny_bert.write_jsonl(folder / "pairs.jsonl", rows)


if __name__ == "__main__":
    main()
