"""Embedding and reranking beside sentence-transformers and ONNX Runtime.

All tools get the same texts, weights and threads, and run in turn. Bulk work: warpseek is measured
as the commands `embed` and `rerank` over files, with start, reading and writing (the start is also
measured alone and shown). The peers get texts that are in memory already. Latency of one search:
embedding a query of 12 tokens and reranking 25 passages of 200, warm on both sides; warpseek's is
measured by `warpseek bench`. All times are medians over rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="BEIR's corpus.jsonl")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--reranker", default="models/warpseek-rerank-mini", help="its folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16", "auto"])
    parser.add_argument("--warpseek", default="target/release/warpseek")
    arguments = parser.parse_args()
    if arguments.pairs < 25:
        parser.error("--pairs: at least 25, which is what one search waits for")
    os.environ["HF_HUB_OFFLINE"] = "1"
    warpseek = [str(pathlib.Path(arguments.warpseek).resolve()), "--threads", str(arguments.threads), "--quiet"]
    model = subprocess.run(
        [*warpseek, "models", "path", "all-MiniLM-L6-v2"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with open(arguments.corpus, encoding="utf-8") as file:
        records = [json.loads(line) for line, _ in zip(file, range(arguments.texts))]
    texts = [f"{r.get('title', '')} {r['text']}".strip() for r in records]

    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokens = sum(len(ids) for ids in tokenizer(texts, truncation=True, max_length=256)["input_ids"])
    with tempfile.TemporaryDirectory() as folder:
        works, encode = embedding_peers(model, texts, arguments.threads, pathlib.Path(folder))
        source = pathlib.Path(folder, "texts.tsv")
        source.write_text("".join(f"{i}\t{' '.join(t.split())}\n" for i, t in enumerate(texts)), encoding="utf-8")
        one = pathlib.Path(folder, "one.tsv")
        one.write_text("0\ta\n", encoding="utf-8")

        def embed(precision, file):
            command = [*warpseek, "--precision", precision, "embed", str(file), "--out", str(pathlib.Path(folder, "out.npy"))]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        for precision in arguments.precisions:
            works[f"warpseek {precision}"] = lambda p=precision: embed(p, source)
            works[f"(start of warpseek {precision})"] = lambda p=precision: embed(p, one)
        show(f"embedding {len(texts)} texts of {tokens / len(texts):.0f} tokens, {arguments.threads} threads", works, arguments.rounds, tokens, "tokens/s")
        predict = rerank(arguments, warpseek, texts, tokenizer, pathlib.Path(folder))
        one_search(arguments, warpseek, {"embed": encode, "rerank": predict})


def embedding_peers(model, texts, threads, folder):
    import numpy
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from transformers import AutoModel, AutoTokenizer

    def sentence_transformers(dtype):
        transformer = modules.Transformer(model, max_seq_length=256, model_args={"torch_dtype": dtype})
        pooling = modules.Pooling(transformer.get_word_embedding_dimension(), "mean")
        peer = SentenceTransformer(modules=[transformer, pooling, modules.Normalize()], device="cpu")
        peer.encode(texts[:32])
        return peer

    plain, small = sentence_transformers(torch.float32), sentence_transformers(torch.bfloat16)
    works = {
        "sentence-transformers float32": lambda: plain.encode(texts, batch_size=32),
        "sentence-transformers bfloat16": lambda: small.encode(texts, batch_size=32),
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, ids, mask, types):
            return self.network(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    sample = dict(tokenizer(["a text", "another one"], padding=True, return_tensors="pt"))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    exported, quantised = str(folder / "model.onnx"), str(folder / "int8.onnx")
    axes = {name: {0: "texts", 1: "tokens"} for name in [*names, "states"]}
    torch.onnx.export(
        States().eval(), tuple(sample[n] for n in names), exported, input_names=names, output_names=["states"],
        dynamic_axes=axes, opset_version=17, dynamo=False,
    )
    quantize_dynamic(exported, quantised, weight_type=QuantType.QInt8)
    for name, path in (("float32", exported), ("int8", quantised)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def encode(session=session):
            # Longest first, as sentence-transformers does, for little padding.
            order = sorted(texts, key=len, reverse=True)
            for at in range(0, len(order), 32):
                batch = tokenizer(order[at : at + 32], padding=True, truncation=True, max_length=256, return_tensors="np")
                states = session.run(None, {n: batch[n] for n in names})[0]
                mask = batch["attention_mask"][..., None].astype(numpy.float32)
                pooled = (states * mask).sum(1) / mask.sum(1)
                pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)

        works[f"ONNX Runtime {name}"] = encode
    query = " ".join(["water", "light", "house", "music", "river"] * 2)
    return works, lambda: plain.encode([query])


def rerank(arguments, warpseek, texts, tokenizer, folder):
    import torch
    from safetensors.torch import load_file
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    # The peer gets the same weights in float32.
    tensors = load_file(pathlib.Path(arguments.reranker, "model.safetensors"))
    plain = {n: t.float() * tensors[n + ".scale"][:, None] if n + ".scale" in tensors else t for n, t in tensors.items() if not n.endswith(".scale")}
    network = BertForSequenceClassification(BertConfig.from_pretrained(arguments.reranker, num_labels=1))
    network.load_state_dict(plain, strict=False)
    network.save_pretrained(folder / "peer")
    tokenizer.save_pretrained(folder / "peer")
    query = "what do we know about the role of these cells in disease?"
    n_query = len(tokenizer(query)["input_ids"])
    room = 200 - n_query - 1
    passages = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= room:
            passages.append(tokenizer.decode(ids[:room]))
    passages = (passages * arguments.pairs)[: arguments.pairs]
    source = folder / "passages.txt"
    source.write_text("".join(f"{i}\t{' '.join(p.split())}\n" for i, p in enumerate(passages)), encoding="utf-8")
    first = folder / "passage.txt"
    first.write_text("0\ta\n", encoding="utf-8")
    peer = CrossEncoder(str(folder / "peer"), max_length=256, device="cpu")
    pairs = [(query, p) for p in passages]
    peer.predict(pairs[:8])
    works = {"CrossEncoder float32": lambda: peer.predict(pairs, batch_size=32)}

    def score(precision, file):
        command = [*warpseek, "--precision", precision, "rerank", query, "--passages", str(file), "--reranker", arguments.reranker, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    for precision in arguments.precisions:
        works[f"warpseek {precision}"] = lambda p=precision: score(p, source)
        works[f"(start of warpseek {precision})"] = lambda p=precision: score(p, first)
    show(f"reranking {len(passages)} pairs of about 200 tokens", works, arguments.rounds, len(passages), "pairs/s")
    return lambda: peer.predict(pairs[:25], batch_size=32)


def one_search(arguments, warpseek, peers):
    times = {}
    for _ in range(arguments.rounds):
        for precision in arguments.precisions:
            command = [*warpseek, "--precision", precision, "bench", "--json", "--rows", "1000", "--batch", "1"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for work in peers:
                times.setdefault((work, f"warpseek {precision}"), []).append(json.loads(done.stdout)[work]["one_search_ms"])
        for work, peer in peers.items():
            peer()
            for _ in range(10):
                began = time.perf_counter()
                peer()
                times.setdefault((work, "float32"), []).append((time.perf_counter() - began) * 1e3)
    ours = [f"warpseek {precision}" for precision in arguments.precisions]
    median = lambda work, name: statistics.median(times[work, name])
    print("\nwhat one search waits for, warm; ms, medians\n")
    header = ["", "sentence-transformers float32", *ours, *(f"{name.split()[-1]} of warpseek is" for name in ours)]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for work, name in (("embed", "a query of 12 tokens"), ("rerank", "25 passages of 200 tokens")):
        theirs = median(work, "float32")
        cells = [f"{theirs:.2f}", *(f"{median(work, o):.2f}" for o in ours), *(f"{theirs / median(work, o):.2f} times" for o in ours)]
        print("| " + " | ".join([name, *cells]) + " |")


def show(title, works, rounds, amount, unit):
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(t) for name, t in times.items()}
    ours = [name for name in works if name.startswith("warpseek")]
    peers = [name for name in works if not name.startswith(("warpseek", "("))]
    print(f"\n{title}; medians of {rounds} rounds, start and files included for warpseek\n")
    header = ["", "seconds", unit, *(f"{name.split()[-1]} of warpseek is" for name in ours)]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for name in [*peers, *ours, *(n for n in works if n.startswith("("))]:
        rate = f"{amount / seconds[name]:,.0f}" if not name.startswith("(") else ""
        ratios = [f"{seconds[name] / seconds[o]:.2f} times" if name in peers else "" for o in ours]
        print("| " + " | ".join([name, f"{seconds[name]:.2f}", rate, *ratios]) + " |")


if __name__ == "__main__":
    main()
