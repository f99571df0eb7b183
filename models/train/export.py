"""Writes a trained reranker as warpseek ships it: matrices in int8, the rest in float32.

With --mean-with its weights are averaged with those of another run, or of a reranker in int8.

A matrix `X` of shape [rows, columns] becomes `X` (int8) and per-row scales `X.scale` (float32,
[rows]): value = int8 * scale of its row, scale = largest magnitude of the row / 127. Prints the
files' entries for models/manifest.toml.
"""

import argparse
import hashlib
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save


def weights_of(folder):
    """The weights of a folder in float32."""
    stored = load_file(folder / "model.safetensors")
    weights = {}
    for name, value in stored.items():
        if not name.endswith(".scale"):
            scale = stored.get(name + ".scale")
            weights[name] = value.float() * (1.0 if scale is None else scale[:, None])
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=pathlib.Path, help="output folder of train.py")
    parser.add_argument("base", type=pathlib.Path, help="the folder of all-MiniLM-L6-v2, whose tokenizer.json is kept")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--mean-with", type=pathlib.Path, help="a folder as `checkpoint`, or one that this script wrote")
    arguments = parser.parse_args()

    weights = weights_of(arguments.checkpoint)
    if arguments.mean_with:
        other = weights_of(arguments.mean_with)
        weights = {name: 0.5 * other[name] + 0.5 * value for name, value in weights.items()}
    tensors = {}
    for name, value in weights.items():
        if value.dim() != 2 or value.shape[0] < 2:
            tensors[name] = value.float().contiguous()
            continue
        scale = value.abs().amax(dim=1).clamp_min(1e-12) / 127
        tensors[name] = torch.round(value / scale[:, None]).clamp(-127, 127).to(torch.int8)
        tensors[name + ".scale"] = scale.float()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "model.safetensors").write_bytes(save(tensors))

    config = json.loads((arguments.checkpoint / "config.json").read_text())
    keep = [
        "architectures", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "hidden_act", "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "vocab_size", "pad_token_id",
    ]
    small = {key: config[key] for key in keep}
    small["id2label"], small["label2id"] = {"0": "relevance"}, {"relevance": 0}
    (arguments.out / "config.json").write_text(json.dumps(small, indent=2) + "\n")
    shutil.copyfile(arguments.base / "tokenizer.json", arguments.out / "tokenizer.json")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        data = (arguments.out / name).read_bytes()
        print(f'    {{ path = "{name}", size = {len(data)}, sha256 = "{hashlib.sha256(data).hexdigest()}" }},')


if __name__ == "__main__":
    main()
