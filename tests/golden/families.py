"""Small models of every family with weights that a formula gives, and their tokenizers.

The weights are not stored: `tensors.json` lists names, shapes, scales and centres, and value `i` of a
tensor is `centre + scale * (top 24 bits of mix(seed + i) / 2^23 - 1)`, in float32, with the seed of
its name. `mix` is SplitMix64's output function (Steele et al. 2014).
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tiny_bert
from sentences import SENTENCES

# Standard deviations by the end of the name, first match wins; see tiny_bert.
SCALES = [
    ("tok_embeddings.weight", 1.0),
    ("word_embeddings.weight", 1.0),
    ("position_embeddings.weight", 0.3),
    ("relative_attention_bias.weight", 1.0),
    ("query.weight", 0.4),
    ("key.weight", 0.4),
    (".q.weight", 0.4),
    (".k.weight", 0.4),
    ("q_lin.weight", 0.4),
    ("k_lin.weight", 0.4),
    ("Wqkv.weight", 0.3),
    ("orm.weight", 0.2),
    ("out_proj.weight", 1.2),
    ("classifier.weight", 1.2),
    (".weight", 0.2),
    (".bias", 0.1),
]
MASK = (1 << 64) - 1


def seed_of(name: str) -> int:
    """FNV-1a of the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    return seed


def values(name: str, shape: list[int], scale: float, centre: float) -> np.ndarray:
    """The tensor of this name, in float32."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(seed_of(name)) + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    return (np.float32(centre) + np.float32(scale) * unit).reshape(shape)


def weights(folder: Path, model: torch.nn.Module, names: dict[str, str] | None = None) -> None:
    """Writes `tensors.json`, and the weights for the peer beside it."""
    from safetensors.numpy import save_file

    table, tensors = {}, {}
    for name, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        deviation = next(scale for ending, scale in SCALES if name.endswith(ending))
        norm = name.endswith("orm.weight")
        # A uniform number has the deviation 1 / sqrt 3.
        row = [list(tensor.shape), round(deviation * 1.732, 4), 1.0 if norm else 0.0]
        table[name] = row
        tensors[name] = values(name, *row)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    (folder / "tensors.json").write_text("{\n" + lines + "\n}\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def word_piece(folder: Path, tokenizer_class: str, **settings: object) -> int:
    """A tokenizer of BERT's kind, or of MPNet's: the same with RoBERTa's special tokens."""
    made = tiny_bert.tokenizer()
    special = dict(zip(("pad", "unk", "cls", "sep", "mask"), tiny_bert.SPECIAL))
    if tokenizer_class == "MPNetTokenizer":
        special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "[UNK]", "mask": "<mask>"}
        pieces = list(special.values()) + list(tiny_bert.vocabulary())[5:]
        vocab = {piece: i for i, piece in enumerate(pieces)}
        normalizer, pre, decoder = made.normalizer, made.pre_tokenizer, made.decoder
        made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
        made.add_special_tokens(list(special.values()))
        made.normalizer, made.pre_tokenizer, made.decoder = normalizer, pre, decoder
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return save(folder, made, tokenizer_class, special, **settings)


def byte_pairs(folder: Path, tokenizer_class: str, **settings: object) -> int:
    """A byte-level BPE tokenizer, of RoBERTa's kind or of ModernBERT's."""
    roberta = tokenizer_class == "RobertaTokenizer"
    special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    if not roberta:
        special = dict(zip(("unk", "cls", "sep", "pad", "mask"), ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    cls, sep = made.token_to_id(special["cls"]), made.token_to_id(special["sep"])
    if roberta:
        made.post_processor = processors.RobertaProcessing((special["sep"], sep), (special["cls"], cls))
    else:
        made.normalizer = normalizers.NFC()
        made.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
        )
    return save(folder, made, tokenizer_class, special, **settings)


def unigram(folder: Path, tokenizer_class: str, **settings: object) -> int:
    """A SentencePiece tokenizer of XLM-RoBERTa's kind."""
    special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("\u2581", "always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=380, special_tokens=list(special.values())[:4], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES + ["\u6771\u4eac \u4e2d\u6587 Stra\u00dfe caf\u00e9"], trainer)
    made.add_special_tokens(["<mask>"])
    made.decoder = decoders.Metaspace("\u2581", "always")
    made.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return save(folder, made, tokenizer_class, special, **settings)


def save(folder: Path, made: Tokenizer, tokenizer_class: str, special: dict, **settings: object) -> int:
    """Writes the files; returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(made.to_str(pretty=False), encoding="utf-8")
    tokens = {f"{name}_token": token for name, token in special.items()}
    if special["cls"] == "<s>":
        tokens |= {"bos_token": "<s>", "eos_token": "</s>"}
    config = {**tokens, "tokenizer_class": tokenizer_class, "model_max_length": 512, **settings}
    tiny_bert.write_json(folder / "tokenizer_config.json", config)
    return made.get_vocab_size()
