"""Writes models/: four small random embedding models and their vectors by sentence-transformers.

    python make_models.py [--out FOLDER]
"""

import argparse
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertModel

import tiny_bert
from sentences import SENTENCES, words

MODELS = {
    "bge-like": {
        "seed": 1,
        "sizes": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
        },
        "max_seq_length": 128,
        "do_lower_case": True,
        "pooling": "cls",
        "normalize": True,
        "prompts": {
            "query": "Represent this sentence for searching relevant passages: ",
            "passage": "",
        },
        "pooler": True,
        "position_ids": "embeddings.position_ids",
    },
    "e5-like": {
        "seed": 2,
        "sizes": {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 128,
        },
        "max_seq_length": 128,
        "pooling": "mean",
        "normalize": True,
        "prompts": {"query": "query: ", "passage": "passage: "},
        "pooler": True,
    },
    "tinybert-like": {
        "seed": 3,
        "dtype": "float16",
        "sizes": {
            "hidden_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 12,
            "intermediate_size": 96,
            "max_position_embeddings": 128,
        },
        "max_seq_length": 64,
        "pooling": "mean",
        "normalize": False,
        "pooler": True,
    },
    "l12-like": {
        "seed": 4,
        "sizes": {
            "hidden_act": "relu",
            "hidden_size": 24,
            "num_hidden_layers": 12,
            "num_attention_heads": 2,
            "intermediate_size": 20,
            "max_position_embeddings": 128,
        },
        "max_seq_length": 128,
        "pooling": "mean",
        "normalize": True,
        "pooler": False,
        "trap": 16,
    },
}

TEXTS = [
    ("letter", "a"),
    ("sentence", SENTENCES[0]),
    ("question", "Why does the harbour stay open in winter?"),
    ("numbers", "At 22:45 there were 4,000 photographs, 31 maps and 7 letters."),
    ("mixed_case", "THE Night TRAIN leaves PLATFORM Seven"),
    ("accents", "Caf\u00e9 cre\u0300me, na\u00efve fa\u00e7ade, Stra\u00dfe"),
    ("unknown", "\u6771\u4eac and \U0001f642 are unknown, \u4e2d\u6587 is not"),
    ("white_space", "  one\ttwo\n\nthree\u200b four\u00ad five  "),
    ("paragraph", " ".join(SENTENCES[20:23])),
    ("words_60", " ".join(words(60, 21))),
    ("words_150", " ".join(words(150, 22))),
    ("words_400", " ".join(words(400, 23))),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    out = parser.parse_args().out
    torch.set_num_threads(1)

    tiny_bert.write_jsonl(out / "texts.jsonl", [{"name": n, "text": t} for n, t in TEXTS])
    for name, spec in MODELS.items():
        write_folder(out / name, spec)
        write_expected(out / name)


def write_folder(folder: Path, spec: dict) -> None:
    """A folder as the hub has it: bare BertModel keys, sentence-transformers' version 2 layout."""
    config = tiny_bert.write_config(
        folder, "BertModel", spec.get("dtype", "float32"), **spec["sizes"]
    )
    tiny_bert.write_tokenizer(folder, 512, spec.get("trap"))
    model = BertModel(config, add_pooling_layer=spec["pooler"])
    tiny_bert.write_weights(folder, model, spec["seed"], spec.get("position_ids"))

    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (path, kind) in enumerate(kinds if spec["normalize"] else kinds[:2])
    ]
    tiny_bert.write_json(folder / "modules.json", modules)
    tiny_bert.write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": spec["pooling"] == "cls",
            "pooling_mode_mean_tokens": spec["pooling"] == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    tiny_bert.write_json(
        folder / "sentence_bert_config.json",
        {
            "max_seq_length": spec["max_seq_length"],
            "do_lower_case": spec.get("do_lower_case", False),
        },
    )
    versions = {"sentence_transformers": "2.7.0", "transformers": "4.41.0", "pytorch": "2.3.0"}
    settings: dict = {"__version__": versions}
    if "prompts" in spec:
        settings["prompts"] = spec["prompts"]
        settings["default_prompt_name"] = None
    tiny_bert.write_json(folder / "config_sentence_transformers.json", settings)


def write_expected(folder: Path) -> None:
    """Vectors and token ids, one text at a time, in float32 whatever the file's number type is."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    texts = [text for _, text in TEXTS]
    rows = [{"name": name} for name, _ in TEXTS]
    for role in ("query", "passage"):
        # A model loaded without prompts has the names with nothing behind them.
        prompt = model.prompts.get(role) or ""
        vectors = model.encode(texts, prompt=prompt, batch_size=1, show_progress_bar=False)
        np.save(folder / f"expected_{role}.npy", np.ascontiguousarray(vectors, dtype=np.float32))
        for row, text in zip(rows, texts):
            row[role] = model.preprocess([prompt + text])["input_ids"][0].tolist()
    tiny_bert.write_jsonl(folder / "tokens.jsonl", rows)


if __name__ == "__main__":
    main()
