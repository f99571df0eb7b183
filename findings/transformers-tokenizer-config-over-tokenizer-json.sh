#!/bin/sh
# transformers 5.24.0: the class in tokenizer_config.json builds the tokenizer anew, and its defaults
# win over tokenizer.json.
#
# Guess: AutoTokenizer loads tokenizer.json as it stands. A tokenizer.json that keeps upper case keeps
# it, whatever class tokenizer_config.json names, and with no tokenizer_config.json at all.
#
# Observed: BertTokenizer sets up its own normalizer from `do_lower_case`, which is true unless a file
# says otherwise; the normalizer in tokenizer.json is not used. So a cased tokenizer.json without
# tokenizer_config.json gives lower-case tokens. The class PreTrainedTokenizerFast keeps the file's
# normalizer, and sets `do_lower_case` aside even where tokenizer_config.json states it. It also gives
# no token types for a pair, though the template of the same file has them, and BertTokenizer does.
#
#     BertTokenizer: lower case, token types
#     no tokenizer_config.json: lower case, token types
#     BertTokenizer, do_lower_case false: upper case, token types
#     PreTrainedTokenizerFast: upper case, no token types
#     PreTrainedTokenizerFast, do_lower_case true: upper case, no token types
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/run.py" <<'PYTHON'
import json
import os
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

model = os.path.join(sys.argv[1], "model")
os.makedirs(model)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "Paris"]
made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
made.normalizer = normalizers.BertNormalizer(lowercase=False)
made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
made.post_processor = processors.TemplateProcessing(
    single="[CLS]:0 $A:0 [SEP]:0",
    pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
)
made.save(os.path.join(model, "tokenizer.json"))
with open(os.path.join(model, "config.json"), "w") as file:
    json.dump({"model_type": "bert", "vocab_size": len(pieces)}, file)
special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


def show(name, config):
    path = os.path.join(model, "tokenizer_config.json")
    if config is None:
        os.remove(path)
    else:
        with open(path, "w") as file:
            json.dump({**special, **config}, file)
    encoded = AutoTokenizer.from_pretrained(model)("Paris", "Paris")
    case = {5: "lower case", 6: "upper case"}[encoded["input_ids"][1]]
    types = "token types" if 1 in encoded.get("token_type_ids", []) else "no token types"
    print(f"{name}: {case}, {types}")


show("BertTokenizer", {"tokenizer_class": "BertTokenizer"})
show("no tokenizer_config.json", None)
show("BertTokenizer, do_lower_case false", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
show("PreTrainedTokenizerFast", {"tokenizer_class": "PreTrainedTokenizerFast"})
show("PreTrainedTokenizerFast, do_lower_case true", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True})
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
BertTokenizer: lower case, token types
no tokenizer_config.json: lower case, token types
BertTokenizer, do_lower_case false: upper case, token types
PreTrainedTokenizerFast: upper case, no token types
PreTrainedTokenizerFast, do_lower_case true: upper case, no token types
TEXT
cmp "$folder/seen" "$folder/expected"
