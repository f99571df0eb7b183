"""Writes settings.json: the keys of the files of model folders, and what a changed one gives.

    python make_settings.py [--out FILE]

Reads families/ through make_families.py.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

import families

HERE = Path(__file__).parent
TEXTS = ["The NIGHT train leaves \u6771\u4eac, caf\u00e9 cre\u0300me", "old bridge " * 60]
PAIR = ("Old bridge", "A NIGHT train")

# Folder, file, and the settings that change in it.
CHANGES = [
    ("xlm-roberta", "config.json", {"layer_norm_eps": 0.01}),
    ("xlm-roberta", "config.json", {"hidden_act": "gelu_new"}),
    ("xlm-roberta", "config.json", {"hidden_act": "relu"}),
    ("xlm-roberta", "config.json", {"hidden_dropout_prob": 0.5}),
    ("xlm-roberta", "tokenizer_config.json", {"add_prefix_space": False}),
    ("xlm-roberta", "tokenizer_config.json", {"eos_token": "<mask>"}),
    ("xlm-roberta", "tokenizer_config.json", {"truncation_side": "left"}),
    ("xlm-roberta", "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("xlm-roberta", "sentence_bert_config.json", {"max_seq_length": 12}),
    ("xlm-roberta", "sentence_bert_config.json", {"do_lower_case": True}),
    ("xlm-roberta", "sentence_bert_config.json", {"max_seq_length": None}),
    ("xlm-roberta", "config_sentence_transformers.json", {"prompts": {"query": "find: ", "document": "text: "}}),
    ("roberta", "tokenizer_config.json", {"add_prefix_space": True}),
    ("roberta", "tokenizer_config.json", {"model_max_length": 20}),
    ("roberta", "1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}),
    ("roberta", "1_Pooling/config.json", {"pooling_mode": "lasttoken"}),
    ("mpnet", "tokenizer_config.json", {"do_lower_case": False}),
    ("mpnet", "tokenizer_config.json", {"strip_accents": False}),
    ("mpnet", "tokenizer_config.json", {"tokenize_chinese_chars": False}),
    ("distilbert", "tokenizer_config.json", {"do_lower_case": False}),
    ("distilbert", "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.ReLU"}),
    ("distilbert", "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Sigmoid"}),
    ("distilbert", "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.SiLU"}),
    ("distilbert", "1_Pooling/config.json", {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": False}),
    ("electra", "config_sentence_transformers.json", {"truncate_dim": 7}),
    ("electra", "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}),
    ("electra", "tokenizer_config.json", {"cls_token": "[MASK]"}),
    ("electra", "tokenizer_config.json", {"tokenizer_class": "MobileBertTokenizer", "do_lower_case": False}),
    ("electra", "tokenizer_config.json", {"extra_special_tokens": ["the"]}),
    ("electra", "special_tokens_map.json", {"sep_token": "[MASK]"}),
    ("xlm-roberta", "sentence_bert_config.json", {"processor_kwargs": {"model_max_length": 32}}),
    ("xlm-roberta", "tokenizer.json", {"truncation": {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}}),
    ("xlm-roberta", "config_sentence_transformers.json", {"prompts": {"query": "q: ", "sts": "s: "}, "default_prompt_name": "sts"}),
    ("modernbert", "config.json", {"sliding_window": 3}),
    ("modernbert", "config.json", {"local_attention": 6}),
    ("modernbert", "config.json", {"layer_types": ["full_attention"] * 4}),
    ("modernbert", "config.json", {"layer_types": None, "global_attn_every_n_layers": 2}),
    ("modernbert", "config.json", {"rope_parameters": None, "global_rope_theta": 500.0, "local_rope_theta": 50.0}),
    ("modernbert", "config.json", {"norm_eps": 0.01}),
    ("modernbert", "config.json", {"hidden_activation": "gelu_pytorch_tanh"}),
    ("modules", "config_sentence_transformers.json", {"prompts": {"query": "", "document": "Read: "}}),
    ("modules", "1_Pooling/config.json", {"include_prompt": True}),
    ("modules", "4_Dense/config.json", {"use_residual": False}),
    ("modules", "config.json", {"layer_norm_eps": None}),
    ("bert-reranker-without-types", "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}),
    ("bert-reranker-without-types", "tokenizer_config.json", {"model_input_names": ["input_ids", "token_type_ids"]}),
    ("bert-reranker-without-types", "config.json", {"type_vocab_size": 2, "classifier_dropout": 0.4}),
    ("electra-reranker", "tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]}),
    ("modernbert-reranker", "config.json", {"classifier_pooling": "cls"}),
    ("modernbert-reranker", "config.json", {"classifier_activation": "relu"}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "settings.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    lines = [json.dumps({"keys": keys()})]
    for model, file, changes in CHANGES:
        lines.append(json.dumps({"model": model, "file": file, "set": changes, **changed(model, file, changes)}))
        print(lines[-1][:150])
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii")


def keys() -> dict[str, list[str]]:
    """The keys of each file, from the classes that read and write them."""
    configs = [
        transformers.BertConfig,
        transformers.RobertaConfig,
        transformers.XLMRobertaConfig,
        transformers.MPNetConfig,
        transformers.DistilBertConfig,
        transformers.ElectraConfig,
        transformers.ModernBertConfig,
    ]
    tokenizers = ["tokenizer_class", "model_max_length", "model_input_names", "truncation_side", "padding_side"]
    tokenizers += ["split_special_tokens", "added_tokens_decoder", "extra_special_tokens", "chat_template"]
    tokenizers += ["clean_up_tokenization_spaces", "backend", "is_local", "name_or_path"]
    import inspect

    for kind in (transformers.BertTokenizer, transformers.MPNetTokenizer, transformers.RobertaTokenizer, transformers.XLMRobertaTokenizer):
        names = inspect.signature(kind.__init__).parameters
        tokenizers += [n for n in names if n not in ("self", "vocab", "merges", "kwargs") and not n.startswith("_")]
    return {
        "config.json": sorted({key for kind in configs for key in kind().to_dict()}),
        "tokenizer_config.json": sorted(set(tokenizers)),
        "sentence_bert_config.json": sorted({*Transformer.config_keys, "max_seq_length", "do_lower_case"}),
        "config_sentence_transformers.json": sorted(
            {"__version__", "default_prompt_name", "model_type", "prompts", "similarity_fn_name", "truncate_dim"}
        ),
        "Pooling": sorted({*Pooling.config_keys, *Pooling.config_key_renames, *legacy_pooling()}),
        "Dense": sorted(Dense.config_keys),
        "Normalize": sorted(Normalize.config_keys),
        "LayerNorm": sorted(LayerNorm.config_keys),
    }


def legacy_pooling() -> list[str]:
    from sentence_transformers.sentence_transformer.modules import pooling

    return list(pooling._LEGACY_POOLING_MODE_KWARGS)


def changed(model: str, file: str, changes: dict) -> dict:
    """The vectors of TEXTS as query and passage, or the logit of PAIR, from a changed copy."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "model"
        shutil.copytree(HERE / "families" / model, folder)
        for table in folder.rglob("tensors.json"):
            tensors = {k: families.values(k, *row) for k, row in json.loads(table.read_text()).items()}
            save_file(tensors, table.parent / "model.safetensors", metadata={"format": "pt"})
        path = folder / file
        values = (json.loads(path.read_text()) if path.exists() else {}) | changes
        path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
        kwargs = {"device": "cpu", "model_kwargs": {"dtype": torch.float32, "attn_implementation": "eager"}}
        if "reranker" in model:
            encoder = CrossEncoder(str(folder), **kwargs)
            logit = encoder.predict([PAIR], activation_fn=torch.nn.Identity(), show_progress_bar=False)
            return {"logit": round(float(logit[0]), 5)}
        embedder = SentenceTransformer(str(folder), **kwargs)
        rows = [embedder.encode_query(TEXTS[0]), *(embedder.encode_document(text) for text in TEXTS)]
        return {"vectors": [[round(float(v), 5) for v in row] for row in rows]}


if __name__ == "__main__":
    main()
