"""Writes cross-encoder/: a small random BERT with one logit, and what transformers scores with it.

    python make_cross_encoder.py [--out FOLDER]
"""

import argparse
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

import tiny_bert
from sentences import SENTENCES, text_of_tokens, words

MAX_TOKENS = 512
SEED = 20240601

QUESTIONS = [
    ("lighthouse", "How often does the lighthouse flash?", 0),
    ("bees", "where do bees carry pollen", 1),
    ("copper", "Why do copper roofs turn green?", 4),
    ("museum", "museum opening hours monday", 6),
    ("harbour", "does salt water freeze", 11),
    ("glass", "Is glass a liquid?", 13),
    ("compiler", "error: borrowed value does not live long enough", 17),
    ("reranker", "what does a reranker return", 25),
    ("cosine", "cosine similarity of two vectors", 31),
    ("tides", "when are tides highest", 47),
    ("archive", "4,000 photographs", 60),
    ("snow", "why does snow stay cold", 68),
]


def pairs(tokens_in) -> list[tuple[str, str, str]]:
    """(name, query, passage); `tokens_in` counts word pieces without specials."""
    out = []
    for name, query, answer in QUESTIONS:
        out.append((f"{name}_answer", query, SENTENCES[answer]))
        out.append((f"{name}_other", query, SENTENCES[(7 * answer + 5) % len(SENTENCES)]))
    query, passage = QUESTIONS[0][1], SENTENCES[0]
    out += [
        ("swapped", passage, query),
        ("same_text_twice", passage, passage),
        ("upper_case", query.upper(), passage.upper()),
        ("one_character_each", "a", "."),
        (
            "unknown_characters",
            "\u6771\u4eac \U0001f642",
            "The \u0416 \u4e2d\u6587 sign reads \u03b1\u03b2.",
        ),
        (
            "accents_are_stripped",
            "cr\u00e8me br\u00fbl\u00e9e",
            "cre\u0300me bru\u0302le\u0301e, na\u00efve",
        ),
        ("special_tokens_in_text", "what is [MASK]", "left [SEP] right [CLS] end [PAD] [UNK]"),
        ("white_space", "  two\twords \n", "line one\r\nline two\u00a0end  "),
        ("passage_120_words", query, " ".join(words(120, 11))),
        ("passage_200_words", "trams and bicycles", " ".join(words(200, 12))),
    ]
    query = "How fast can a large matrix be scanned?"
    room = MAX_TOKENS - 3 - sum(tokens_in(word) for word in query.split())
    for total in (511, 512, 513):
        name = f"pair_of_{total}_tokens"
        out.append((name, query, text_of_tokens(room - MAX_TOKENS + total, total, tokens_in)))
    out += [
        ("passage_600_words", query, " ".join(words(600, 13))),
        ("passage_1000_words", "sourdough bread", " ".join(words(1000, 14))),
        ("query_500_words", " ".join(words(500, 15)), SENTENCES[9]),
        ("both_400_words", " ".join(words(400, 16)), " ".join(words(400, 17))),
    ]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "cross-encoder")
    folder = parser.parse_args().out
    torch.set_num_threads(1)

    config = tiny_bert.write_config(
        folder,
        "BertForSequenceClassification",
        "float32",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS,
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )
    tiny_bert.write_tokenizer(folder, MAX_TOKENS)
    model = BertForSequenceClassification(config)
    tiny_bert.write_weights(folder, model, SEED, "bert.embeddings.position_ids")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for name, query, passage in pairs(lambda word: len(tokenizer.tokenize(word))):
        whole = tokenizer(query, passage, truncation=False, verbose=False)["input_ids"]
        encoded = tokenizer(
            query, passage, truncation="longest_first", max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            logit = model(**encoded).logits
        if logit.shape != (1, 1):
            raise ValueError(f"{name}: expected one logit, got shape {tuple(logit.shape)}")
        types = encoded["token_type_ids"][0].tolist()
        if types != sorted(types):
            raise ValueError(f"{name}: token types are not 0 first, then 1")
        rows.append(
            {
                "name": name,
                "query": query,
                "passage": passage,
                "logit": logit.item(),
                "tokens": len(whole),
                "truncated": len(whole) > MAX_TOKENS,
                "segment_a": types.count(0),
                "ids": encoded["input_ids"][0].tolist(),
            }
        )
    tiny_bert.write_jsonl(folder / "pairs.jsonl", rows)


if __name__ == "__main__":
    main()
