"""Writes embeddings/: 64 texts, their tokens and their all-MiniLM-L6-v2 vectors.

    python make_embeddings.py MODEL_FOLDER [--out FOLDER]

MODEL_FOLDER is the unpacked sentence-transformers/all-MiniLM-L6-v2 (model.safetensors with the
SHA-256 below).
"""

import argparse
import hashlib
import sys
import unicodedata
from pathlib import Path

sys.dont_write_bytecode = True

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from sentences import SENTENCES, text_of_tokens, words
from tiny_bert import write_jsonl

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
COUNT = 64

ACCENTS = "Crème brûlée à la façon de Zoë, piñata, smörgåsbord, Łódź, čeština, Ørsted."


def texts(tokens_in) -> list[tuple[str, str]]:
    """(name, text); `tokens_in` counts word pieces without specials."""
    return [
        # Almost nothing.
        ("full_stop", "."),
        ("letter", "a"),
        ("hyphen", "-"),
        ("word", "lighthouse"),
        ("punctuation_only", "?! ... ;:, -- () [] {} <> \"' /\\ @#$%^&*_+=~`|"),
        ("zero_width_only", "\u200b\u200b"),
        # Emoji.
        ("emoji", "\U0001f642"),
        (
            "emoji_joined",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
            "\U0001f469\U0001f3fd\u200d\U0001f680 \u2764\ufe0f\u200d\U0001f525",
        ),
        (
            "flags",
            "Two: \U0001f1eb\U0001f1ee \U0001f1e7\U0001f1f7 "
            "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        ),
        (
            "emoji_in_sentence",
            "The ferry was late again \U0001f629 but the coffee was good \u2615\ufe0f!",
        ),
        # Scripts.
        ("chinese", "灯塔每十五秒闪两次光。我们在港口等船。"),
        ("japanese", "夜行列車は七番線から出発し、カモメが鳴く海岸に着きます。"),
        ("korean", "등대는 십오 초마다 두 번 빛을 비춥니다."),
        ("arabic", "تومض المنارة مرتين كل خمس عشرة ثانية. كِتَابٌ"),
        ("hebrew", "המגדלור מהבהב פעמיים בכל חמש עשרה שניות. שָׁלוֹם"),
        ("hindi", "प्रकाशस्तंभ हर पंद्रह सेकंड में दो बार चमकता है।"),
        ("thai", "ประภาคารกะพริบ 2 ครั้ง ทุก 15 วินาที"),
        ("cyrillic", "Маяк мигает два раза каждые пятнадцать секунд. Ёлка и йод."),
        ("greek", "Ο φάρος αναβοσβήνει δύο φορές κάθε δεκαπέντε δευτερόλεπτα. ΟΔΥΣΣΕΥΣ"),
        ("vietnamese", "Ngọn hải đăng nhấp nháy hai lần mỗi mười lăm giây."),
        ("mixed_directions", "The word שלום means peace, سلام does too, and 平和 as well."),
        # Accents and case.
        ("accents_composed", unicodedata.normalize("NFC", ACCENTS)),
        ("accents_decomposed", unicodedata.normalize("NFD", ACCENTS)),
        ("sharp_s", "Die Straße, die STRASSE, die STRA\u1e9eE: Maße und Füße."),
        (
            "turkish_i",
            "I\u011fd\u0131r'da \u0131l\u0131k, \u0130stanbul'da ISLAK, izmir'de \u0130ncir.",
        ),
        (
            "compatibility_forms",
            "\ufb01le \ufb02ow \uff21\uff22\uff43 \uff11\uff12 \u00bd \u2163 \u2122 \u210c",
        ),
        ("mixed_case", "The NIGHT train LeAvEs pLaTfOrM Seven At mcDonald's iPhone"),
        ("upper_case", SENTENCES[1].upper()),
        # Technical text.
        ("url", "https://example.org/a/very_long-path?query=two%20words&page=2#section-3.1"),
        (
            "mail_and_path",
            "Write to first.last+tag@example.org about C:\\Temp\\data.csv and ~/.config/x.toml",
        ),
        ("code_rust", "fn main() { let v: Vec<u8> = vec![0; 16]; println!(\"{:?}\", &v[..4]); }"),
        ("code_python", "def f(x):\n\tfor i in range(10):\n\t\tyield x ** i  # power\n"),
        (
            "json",
            '{"id": 17, "tags": ["a", "b"], "score": -0.25e-3, "ok": true, "none": null}',
        ),
        (
            "html",
            "<p class=\"note\">Salt &amp; water: <b>frozen</b> at &minus;2&nbsp;&deg;C<br/></p>",
        ),
        (
            "numbers",
            "3.14159 1,000,000 1.000.000,50 0x7F 1e-9 2024-06-01 22:45:07 +44 20 7946 0000",
        ),
        ("mathematics", "∀x ∈ ℝ: ∑ᵢ xᵢ² ≤ ‖x‖² ⇒ √2 ≈ 1.41, ∂f/∂x ≠ ∞, α→β, A∩B=∅"),
        ("typographic", "“Quoted” — ‘single’ – dash… €5, £3, ¥100, 20 °C, § 4, † note ¹²"),
        # Characters that are not seen.
        (
            "tabs_and_newlines",
            "one\ttwo\nthree\r\nfour\x0bfive\x0csix\u0085seven\u2028eight\u2029nine",
        ),
        ("outer_white_space", "  \t\n\u00a0\u3000the harbour\u2003stays\u00a0open  \n"),
        (
            "zero_width",
            "light\u200bhouse light\u200chouse light\u200dhouse light\u2060house \ufefflighthouse",
        ),
        ("soft_hyphens", "light\u00adhouse keep\u00ader and re\u00adrank\u00ading"),
        (
            "control_characters",
            "nul\x00bell\x07back\x08escape\x1b[31mred\x1b[0m delete\x7f c1\x9b end",
        ),
        ("direction_marks", "left\u200eright\u200f \u202eoverride\u202c \u2067isolate\u2069"),
        ("private_and_replacement", "a\ufffdb c\ue000d e\U0010fffff g\U000f0000h \ufdd0"),
        # Words that the vocabulary treats apart.
        ("letters_100", "x" + "yz" * 49 + "x"),
        ("letters_101", "x" + "yz" * 49 + "yx"),
        ("letters_300_in_sentence", "The word " + "abc" * 100 + " is unknown."),
        ("repeated_word", " ".join(["echo"] * 40)),
        ("separator_literal", "left [SEP] right [SEP]"),
        ("class_literal", "[CLS] begins twice [cls] [ CLS ]"),
        ("mask_pad_unknown_literals", "fill the [MASK] with [PAD] [PAD] or [UNK] and [unused7]"),
        # Plain English.
        ("question", "How do bees carry pollen back to the hive?"),
        ("sentence", SENTENCES[51]),
        ("paragraph", " ".join(SENTENCES[60:66])),
        # Around and past the limit; the counts in the names include the two special tokens.
        ("words_100", " ".join(words(100, 1))),
        ("words_200", " ".join(words(200, 2))),
        ("tokens_254", text_of_tokens(252, 3, tokens_in)),
        ("tokens_255", text_of_tokens(253, 4, tokens_in)),
        ("tokens_256", text_of_tokens(254, 5, tokens_in)),
        ("tokens_257", text_of_tokens(255, 6, tokens_in)),
        (
            "cut_inside_word",
            text_of_tokens(252, 7, tokens_in) + " antidisestablishmentarianism ends.",
        ),
        ("words_300", " ".join(words(300, 8))),
        ("words_1000", " ".join(words(1000, 9))),
        ("cyrillic_past_limit", "Маяк мигает два раза каждые пятнадцать секунд. " * 12),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "embeddings")
    arguments = parser.parse_args()
    found = hashlib.sha256((arguments.model / "model.safetensors").read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"model.safetensors has SHA-256 {found}, expected {SHA256}")
    torch.set_num_threads(1)

    model = SentenceTransformer(
        str(arguments.model), device="cpu", model_kwargs={"dtype": torch.float32}
    )
    if model.max_seq_length != MAX_TOKENS:
        raise ValueError(f"max_seq_length is {model.max_seq_length}, expected {MAX_TOKENS}")
    # The folder's own tokenizer file, read without transformers, counts the uncut tokens.
    plain = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()

    named = texts(lambda word: len(plain.encode(word, add_special_tokens=False).ids))
    if len(named) != COUNT or len({name for name, _ in named}) != COUNT:
        raise ValueError(f"expected {COUNT} texts with different names, got {len(named)}")
    rows = []
    for name, text in named:
        whole = plain.encode(text).ids
        ids = model.preprocess([text])["input_ids"][0].tolist()
        cut = whole if len(whole) <= MAX_TOKENS else whole[: MAX_TOKENS - 1] + whole[-1:]
        if ids != cut:
            raise ValueError(f"{name}: sentence-transformers and tokenizers disagree")
        if name.startswith("tokens_") and len(whole) != int(name.removeprefix("tokens_")):
            raise ValueError(f"{name}: has {len(whole)} tokens")
        rows.append({"name": name, "tokens": len(whole), "ids": ids})

    # One text at a time: no padding, so no influence of one text on another.
    vectors = model.encode([text for _, text in named], batch_size=1, show_progress_bar=False)
    if vectors.dtype != np.float32 or vectors.shape != (COUNT, 384):
        raise ValueError(f"got {vectors.dtype} {vectors.shape}")
    write_jsonl(arguments.out / "texts.jsonl", [{"name": n, "text": t} for n, t in named])
    write_jsonl(arguments.out / "tokens.jsonl", rows)
    np.save(arguments.out / "minilm.npy", np.ascontiguousarray(vectors))


if __name__ == "__main__":
    main()
