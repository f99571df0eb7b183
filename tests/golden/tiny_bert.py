"""Small BERT folders laid out as the published ones, with weights from a fixed random stream."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig

from sentences import SENTENCES

VOCABULARY_SIZE = 733
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Characters outside ASCII that the vocabulary knows; all others give [UNK].
FOREIGN = "ßαβгд中文"
SUFFIXES = "s es ed er ers est ing ings ly y al ion tion ment ness able ful less ive ous".split()

# Standard deviations by the end of the key, first match wins. Words weigh more than what all texts
# have in common, and queries and keys make attention uneven: else all vectors would look alike.
SCALES = [
    ("word_embeddings.weight", 1.0),
    ("query.weight", 0.3),
    ("key.weight", 0.3),
    ("LayerNorm.weight", 0.2),
    ("classifier.weight", 1.2),
    (".weight", 0.2),
    (".bias", 0.1),
]


def vocabulary() -> dict[str, int]:
    """Word pieces of the sentences: special tokens, then characters, endings, words, parts."""
    pieces = list(SPECIAL)
    pieces += [chr(c) for c in range(33, 127) if not chr(c).isalnum()]
    pieces += list("0123456789" + LETTERS + FOREIGN)
    pieces += ["##" + c for c in "0123456789" + LETTERS + FOREIGN]
    pieces += ["##" + s for s in SUFFIXES if len(s) > 1]
    counts = Counter(re.findall("[a-z]+", " ".join(SENTENCES).lower()))
    pieces += [w for w, n in by_count(counts) if n > 1 and len(w) > 1]
    # A word that occurs once enters when its length is even: the others stay to be split.
    pieces += [w for w, n in by_count(counts) if n == 1 and len(w) % 2 == 0]
    parts: Counter[str] = Counter()
    for word in (w for w, n in counts.items() if n == 1 and len(w) % 2 == 1):
        for length in (2, 3, 4):
            parts[word[:length]] += 1
            for start in range(1, len(word) - length + 1):
                parts["##" + word[start : start + length]] += 1
    pieces += [p for p, _ in by_count(parts)]
    unique = list(dict.fromkeys(pieces))[:VOCABULARY_SIZE]
    return {piece: i for i, piece in enumerate(unique)}


def by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, equal ones in alphabetical order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def tokenizer() -> Tokenizer:
    """A lower-casing BERT tokenizer over `vocabulary`, without stored truncation or padding."""
    vocab = vocabulary()
    made = Tokenizer(WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    made.add_special_tokens(SPECIAL)
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    made.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return made


def write_json(path: Path, value: object) -> None:
    """Indented JSON with a last newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """One object a line, all in ASCII, so that no invisible character can be lost in an editor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def write_tokenizer(folder: Path, model_max_length: int, trap: int | None = None) -> None:
    """The tokenizer's files; `trap` stores a truncation and padding that readers must set aside."""
    made = tokenizer()
    if trap is not None:
        made.enable_truncation(max_length=trap)
        made.enable_padding(pad_id=0, pad_token="[PAD]", length=trap)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(made.to_str(pretty=False), encoding="utf-8")
    names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    special = dict(zip(names, SPECIAL))
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "do_lower_case": True,
            **special,
            "tokenize_chinese_chars": True,
            "strip_accents": None,
            "tokenizer_class": "BertTokenizer",
            "model_max_length": model_max_length,
        },
    )


def write_config(folder: Path, architecture: str, dtype: str, **sizes: object) -> BertConfig:
    """config.json with the fields that the published BERT folders have."""
    fields = {
        "architectures": [architecture],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.2,
        "layer_norm_eps": 1e-12,
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "torch_dtype": dtype,
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": VOCABULARY_SIZE,
        **sizes,
    }
    write_json(folder / "config.json", dict(sorted(fields.items())))
    return BertConfig.from_pretrained(folder)


def write_weights(
    folder: Path, model: torch.nn.Module, seed: int, position_ids: str | None
) -> None:
    """Random weights under the model's own key names, in the number type that config.json names.

    Biases and LayerNorm weights are random too: left at 0 and 1, a reader that forgets them would
    pass. `position_ids` is the key of the integer buffer that older published files carry.
    """
    stream = np.random.RandomState(seed)
    stored = {"float32": torch.float32, "float16": torch.float16}[
        json.loads((folder / "config.json").read_text())["torch_dtype"]
    ]
    tensors = {}
    for name, tensor in sorted(model.state_dict().items()):
        values = stream.standard_normal(tuple(tensor.shape))
        scale = next(scale for ending, scale in SCALES if name.endswith(ending))
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        tensors[name] = torch.from_numpy((centre + scale * values).astype(np.float32)).to(stored)
    if position_ids is not None:
        tensors[position_ids] = torch.arange(model.config.max_position_embeddings)[None, :].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
