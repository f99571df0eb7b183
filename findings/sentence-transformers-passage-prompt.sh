#!/bin/sh
# sentence-transformers 6.2.0: encode_document adds no prompt to a model whose prompts are named
# "query" and "passage".
#
# Guess: its documentation says that the first available prompt of "document", "passage" and "corpus"
# is used, so a folder with {"query": "query: ", "passage": "passage: "}, as E5 models have, gets
# "passage: " in front of documents, as it gets "query: " in front of queries.
#
# Observed: every model is given an empty prompt named "document" when it is loaded. That one is the
# first available, so "passage" and "corpus" are never reached, and documents are encoded bare.
#
#     prompts {'query': 'query: ', 'document': '', 'passage': 'passage: '}
#     encode_query uses 'query: ': True
#     encode_document uses 'passage: ': False
#     encode_document uses no prompt: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    sentence-transformers==6.2.0 transformers==5.24.0 tokenizers==0.23.3 torch==2.15.0 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import json
import os
import sys
import warnings

warnings.filterwarnings("ignore")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"
import numpy as np
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

model = os.path.join(sys.argv[1], "model")
os.makedirs(model)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":", "text"]
made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
made.normalizer = normalizers.BertNormalizer()
made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
made.post_processor = processors.TemplateProcessing(
    single="[CLS]:0 $A:0 [SEP]:0",
    pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
)
made.save(os.path.join(model, "tokenizer.json"))
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(model)
files = {
    "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 64},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
    "config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}},
}
for name, content in files.items():
    os.makedirs(os.path.dirname(os.path.join(model, name)), exist_ok=True)
    with open(os.path.join(model, name), "w") as file:
        json.dump(content, file)

loaded = SentenceTransformer(model, device="cpu")
print("prompts", loaded.prompts)
query, document = loaded.encode_query("text"), loaded.encode_document("text")
equal = lambda a, prompt: bool(np.allclose(a, loaded.encode("text", prompt=prompt), atol=1e-6))
print("encode_query uses 'query: ':", equal(query, "query: "))
print("encode_document uses 'passage: ':", equal(document, "passage: "))
print("encode_document uses no prompt:", equal(document, ""))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" 2> "$folder/messages" > "$folder/seen" ||
    { cat "$folder/messages"; exit 1; }
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
prompts {'query': 'query: ', 'document': '', 'passage': 'passage: '}
encode_query uses 'query: ': True
encode_document uses 'passage: ': False
encode_document uses no prompt: True
TEXT
cmp "$folder/seen" "$folder/expected"
