#!/bin/sh
# chonkie 1.7.0 and semchunk 4.1.1: given a tokenizer that truncates, the one drops the rest of the
# text, the other returns it as one chunk.
#
# Guess: a chunker needs all tokens of a text, so it switches the tokenizer's truncation off, or at
# least counts on from where a truncated part ends. No text is lost.
#
# Observed: chonkie's TokenChunker and RecursiveChunker cut the tokens that are left after
# truncation; 12 of 20 words are in no chunk, even where the chunk size is below the tokenizer's
# limit. With a larger chunk size semchunk and the RecursiveChunker count 8 tokens for the whole
# text, and return it whole. No warning is given.
#
# Why it matters: the tokenizer.json of an embedding model often has its truncation switched on, and
# is the natural choice for measuring chunks for that model.
#
#     truncation off, size 4: TokenChunker 4 4 4 4 4, RecursiveChunker 4 4 4 4 4, semchunk 4 4 4 4 4
#     truncation off, size 10: TokenChunker 10 10, RecursiveChunker 10 10, semchunk 10 10
#     truncation to 8, size 4: TokenChunker 4 4, RecursiveChunker 4 4, semchunk 4 4 4 4 4
#     truncation to 8, size 10: TokenChunker 8, RecursiveChunker 20, semchunk 20
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    chonkie==1.7.0 semchunk==4.1.1 tokenizers==0.23.3 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import chonkie
import semchunk
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"word{i}" for i in range(20)]
TEXT = " ".join(WORDS)


def tokenizer(limit):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="word0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if limit:
        made.enable_truncation(limit)
    return made


def words(chunks):
    return " ".join(str(len(chunk.split())) for chunk in chunks)


for limit, name in ((None, "truncation off"), (8, "truncation to 8")):
    for size in (4, 10):
        found = []
        for kind in (chonkie.TokenChunker, chonkie.RecursiveChunker):
            chunks = kind(tokenizer(limit), chunk_size=size)(TEXT)
            found.append(f"{kind.__name__} " + words(chunk.text for chunk in chunks))
        found.append("semchunk " + words(semchunk.chunkerify(tokenizer(limit), size)(TEXT)))
        print(f"{name}, size {size}:", ", ".join(found))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
truncation off, size 4: TokenChunker 4 4 4 4 4, RecursiveChunker 4 4 4 4 4, semchunk 4 4 4 4 4
truncation off, size 10: TokenChunker 10 10, RecursiveChunker 10 10, semchunk 10 10
truncation to 8, size 4: TokenChunker 4 4, RecursiveChunker 4 4, semchunk 4 4 4 4 4
truncation to 8, size 10: TokenChunker 8, RecursiveChunker 20, semchunk 20
TEXT
cmp "$folder/seen" "$folder/expected"
