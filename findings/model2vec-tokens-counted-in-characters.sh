#!/bin/sh
# model2vec 0.10.0: a text is cut by characters before it is cut by tokens, so that `max_length`
# tokens are often not read.
#
# Guess: `encode` reads the first 512 tokens, as its documentation says of `max_length`.
#
# Observed: the text's first 512 * m characters are read, m being the median length of the
# vocabulary's entries (here 3), and at most 512 tokens of those. Spaces count too, so of words of
# the median length 384 are read, and of long words 67. With max_length=None all are.
#
# Why it matters: two implementations that both read "512 tokens" give different vectors for a long
# text, and the cut moves when a vocabulary is pruned or extended.
#
#     short words: 383 before the last one are read, 384 are not
#     long words: 66 before the last one are read, 67 are not
#     long words, no max_length: 5000 are read
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    model2vec==0.10.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import numpy
from model2vec import StaticModel
from tokenizers import Tokenizer, models, pre_tokenizers

LONG = "electroencephalography"
WORDS = ["[UNK]", "[PAD]", "a", "of", "the", "and", "for", "sea", "end", LONG]
ids = {word: i for i, word in enumerate(WORDS)}
tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
model = StaticModel(numpy.eye(len(WORDS), dtype=numpy.float32), tokenizer, normalize=False)


def is_read(word, count, **options):
    """Whether the word "end" has a share in the vector of `count` words and it."""
    return model.encode(f"{word} " * count + "end", **options)[WORDS.index("end")] > 0


for name, word in (("short", "sea"), ("long", LONG)):
    count = max(n for n in range(512) if is_read(word, n))
    print(f"{name} words: {count} before the last one are read, {count + 1} are not")
if is_read(LONG, 5000, max_length=None):
    print("long words, no max_length: 5000 are read")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
short words: 383 before the last one are read, 384 are not
long words: 66 before the last one are read, 67 are not
long words, no max_length: 5000 are read
TEXT
cmp "$folder/seen" "$folder/expected"
