"""Speed of embedding and reranking on a GPU, side by side with transformers and Candle.

    python benches/gpu_models.py --warpseek BINARY [--record FOLDER]

Runs `warpseek bench --models-only --device cuda` with models of MiniLM's shape. The same run
measures transformers' BERT and Candle's BERT (`benches/candle/build.sh`) in half precision on the
same numbers of tokens, from token ids on the device to vectors on the device, each with its best
batch size. Weights are random unless --model and --reranker name folders: times do not depend on
them. Prints Markdown, and appends it to FOLDER/<gpu>/<date>.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--warpseek", default="target/release/warpseek")
parser.add_argument("--candle", type=pathlib.Path, default=pathlib.Path(__file__).with_name("candle-bert"), help="what benches/candle/build.sh made")
parser.add_argument("--record", type=pathlib.Path)
parser.add_argument("--model", type=pathlib.Path)
parser.add_argument("--reranker", type=pathlib.Path)
parser.add_argument("--corpus", type=pathlib.Path, help="what is indexed; random words by default")
parser.add_argument("--device", default="cuda")
arguments = parser.parse_args()

HIDDEN, INNER, LAYERS, HEADS, VOCABULARY, POSITIONS = 384, 1536, 6, 12, 30522, 512
WORDS = "water light house music river stone paper green north story table world small night market science".split()
lines = []


def say(line=""):
    print(line, flush=True)
    lines.append(line)


def shapes():
    """Names and shapes of MiniLM's tensors, without a prefix."""
    for name, n in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", (n, HIDDEN)
    norms = ["embeddings.LayerNorm"]
    linears = []
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        linears += [(f"{at}.attention.{part}", HIDDEN, HIDDEN) for part in ("self.query", "self.key", "self.value", "output.dense")]
        linears += [(f"{at}.intermediate.dense", INNER, HIDDEN), (f"{at}.output.dense", HIDDEN, INNER)]
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    linears.append(("pooler.dense", HIDDEN, HIDDEN))
    for name, out, of in linears:
        yield f"{name}.weight", (out, of)
        yield f"{name}.bias", (out,)
    for name in norms:
        yield f"{name}.weight", (HIDDEN,)
        yield f"{name}.bias", (HIDDEN,)


def make_model(folder, cross_encoder):
    """A model folder with random weights and a vocabulary of the benchmark's words."""
    folder.mkdir()
    prefix = "bert." if cross_encoder else ""
    tensors = [(prefix + name, shape) for name, shape in shapes()]
    if cross_encoder:
        tensors += [("classifier.weight", (1, HIDDEN)), ("classifier.bias", (1,))]
    # Small random numbers in half precision: one block of them, repeated.
    source = random.Random(1)
    block = b"".join(struct.pack("<e", source.uniform(-0.1, 0.1)) for _ in range(1 << 16))
    header, at = {}, 0
    for name, shape in tensors:
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at > 0:
            file.write(block[: min(at, len(block))])
            at -= min(at, len(block))
    config = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "hidden_act": "gelu", "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "num_labels": 1,
        "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": POSITIONS}))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    added = [{"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, word in enumerate(special)]
    one = lambda name, kind: {name: {"id": kind, "type_id": 0}}
    sep = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [one("SpecialToken", "[CLS]"), one("Sequence", "A"), sep],
            "pair": [one("SpecialToken", "[CLS]"), one("Sequence", "A"), sep, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {word: {"id": word, "ids": [vocabulary[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def ours(model, reranker, tokens, pair_tokens):
    command = [arguments.warpseek, "bench", "--models-only", "--json", "--device", arguments.device, "--tokens", str(tokens), "--pair-tokens", str(pair_tokens)]
    command += ["--model", str(model), "--reranker", str(reranker)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def index_time(model, folder):
    """Time of a process that indexes 41,584 texts."""
    source = random.Random(2)
    corpus = arguments.corpus or folder / "corpus.jsonl"
    if arguments.corpus is None:
        with open(corpus, "w", encoding="utf-8") as file:
            for i in range(41_584):
                file.write(json.dumps({"id": str(i), "text": " ".join(source.choices(WORDS, k=source.randint(100, 300)))}) + "\n")
    command = [arguments.warpseek, "index", str(corpus), "--into", str(folder / "index"), "--model", str(model), "--device", arguments.device, "--json"]
    started = time.perf_counter()
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds = time.perf_counter() - started
    what = "random words" if arguments.corpus is None else "real texts"
    return f"`index` of {report['rows']:,} {what}, {report['tokens']:,} tokens, process start to committed index: {seconds:.2f} s."


def candle_rate(model, tokens):
    """Texts per second of Candle's BERT in half precision, or the reason why there is no number.

    It needs CUDA's libraries, which come with torch.
    """
    if not arguments.candle.exists():
        return "not built"
    folders = [str(path) for site in sys.path for path in pathlib.Path(site, "nvidia").glob("*/lib")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(folders + [os.environ.get("LD_LIBRARY_PATH", "")])}
    command = [arguments.candle.absolute(), str(model), str(tokens), "64,256,1024"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode != 0:
        return (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1].replace("|", "/")
    return json.loads(run.stdout)["texts_per_second"]


def torch_rate(tokens):
    """Texts per second of transformers' BERT in half precision with its best batch size, from token
    ids to mean-pooled vectors."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER, max_position_embeddings=POSITIONS
    )
    bert = transformers.BertModel(config, add_pooling_layer=False).half().cuda().eval()
    best = 0
    for batch in (64, 256, 1024):
        ids = torch.randint(5, VOCABULARY, (batch, tokens), device="cuda")
        mask = torch.ones_like(ids)

        def work():
            return torch.nn.functional.normalize(bert(input_ids=ids, attention_mask=mask).last_hidden_state.float().mean(1))

        with torch.inference_mode():
            for _ in range(3):
                work()
            times = []
            started = time.monotonic()
            while len(times) < 5 or (time.monotonic() - started < 0.5 and len(times) < 50):
                torch.cuda.synchronize()
                begun = time.perf_counter()
                work()
                torch.cuda.synchronize()
                times.append(time.perf_counter() - begun)
        best = max(best, batch / statistics.median(times))
    return best


try:
    import torch
    import transformers

    has_peer = torch.cuda.is_available()
except ImportError:
    has_peer = False

with tempfile.TemporaryDirectory() as folder:
    model, reranker = arguments.model, arguments.reranker
    if model is None:
        model = pathlib.Path(folder, "embedder")
        make_model(model, False)
    if reranker is None:
        reranker = pathlib.Path(folder, "reranker")
        make_model(reranker, True)
    say()
    say("## Models of MiniLM's shape")
    say()
    if not has_peer:
        say("torch with transformers is not here: no peer was measured.")
        say()
    say("| work | tokens | texts/s | tokens/s | ids to numbers, tokens/s | one search, ms | transformers fp16, tokens/s | ours / theirs | Candle fp16, tokens/s | ours / its |")
    say(f"| --- {'| --- ' * 9}|")
    shares, query_ms = {}, []
    for tokens, pair_tokens in ((16, 40), (128, 100), (256, 200), (512, 512)):
        found = ours(model, reranker, tokens, pair_tokens)
        for work, rate in (("embed", found["embed"]), ("rerank", found["rerank"])):
            n = rate["tokens"]
            encoded = rate["encoded_per_second"] * n
            peer = torch_rate(n) * n if has_peer and work == "embed" else None
            candle = candle_rate(model, n) if work == "embed" else ""
            cells = [work, n, f"{rate['texts_per_second']:,.0f}", f"{rate['texts_per_second'] * n:,.0f}", f"{encoded:,.0f}", f"{rate['one_search_ms']:.3f}"]
            cells += [f"{peer:,.0f}" if peer else "", f"{encoded / peer:.2f}" if peer else ""]
            cells += [candle, ""] if isinstance(candle, str) else [f"{candle * n:,.0f}", f"{encoded / candle / n:.2f}"]
            say(f"| {' | '.join(map(str, cells))} |")
        shares[found["embed"]["tokens"]] = found["embed"]["shares"]
        query_ms.append(found["query_ms"])
    say()
    say(f"A query of 12 tokens, from its text to the ten best of 41,584 rows: {statistics.median(query_ms):.3f} ms.")
    names = [name for name, _ in next(iter(shares.values()))]
    if names:
        say()
        say("Where the time of the embedder's kernels goes, each timed by events of its own:")
        say()
        say(f"| tokens | {' | '.join(names)} |")
        say(f"| --- {'| --- ' * len(names)}|")
        for tokens, parts in shares.items():
            say(f"| {tokens} | {' | '.join(f'{share:.1%}' for _, share in parts)} |")
    say()
    say(index_time(model, pathlib.Path(folder)))
if arguments.record:
    try:
        named = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        named = "gpu"
    folder = arguments.record / (re.sub(r"[^A-Za-z0-9]+", "-", named).strip("-").lower() or "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{datetime.date.today()}.md", "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
