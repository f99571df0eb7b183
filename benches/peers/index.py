"""warpseek's `index` beside sentence-transformers' `encode`: the same texts and threads, in turn.

warpseek does all of the work: it reads gzip, tokenises, embeds and writes a durable index. The peer
tokenises and embeds texts that are in memory already. Prints medians and their ratio as JSON.
"""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", help="jsonl or jsonl.gz in the schema with `chunk`, or with `title` and `text`")
    parser.add_argument("--records", dest="n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warpseek", default="target/release/warpseek")
    arguments = parser.parse_args()

    os.environ["HF_HUB_OFFLINE"] = "1"
    warpseek = [str(pathlib.Path(arguments.warpseek).resolve()), "--threads", str(arguments.threads)]
    subprocess.run([*warpseek, "models", "pull", "all-MiniLM-L6-v2"], check=True, stdout=subprocess.DEVNULL)
    model = subprocess.run(
        [*warpseek, "models", "path", "all-MiniLM-L6-v2"], check=True, capture_output=True, text=True
    ).stdout.strip()

    # These libraries read the environment variables when they are imported.
    import torch
    from sentence_transformers import SentenceTransformer, models as modules

    torch.set_num_threads(arguments.threads)
    transformer = modules.Transformer(model, max_seq_length=256)
    pooling = modules.Pooling(transformer.get_word_embedding_dimension(), "mean")
    peer = SentenceTransformer(modules=[transformer, pooling, modules.Normalize()], device="cpu")

    opener = gzip.open if arguments.records.endswith(".gz") else open
    with opener(arguments.records, "rt", encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(arguments.n))]
    records = [json.loads(line) for line in lines]
    texts = [r["chunk"] if "chunk" in r else f"{r.get('title', '')} {r['text']}".strip() for r in records]
    encoded = peer.tokenizer(texts, truncation=True, max_length=256)["input_ids"]
    tokens = sum(len(ids) for ids in encoded)

    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "records.jsonl.gz")
        with gzip.open(source, "wt", encoding="utf-8") as file:
            file.writelines(lines)
        peer.encode(texts[:64], batch_size=arguments.batch_size)
        for _ in range(arguments.rounds):
            target = pathlib.Path(folder, "index")
            shutil.rmtree(target, ignore_errors=True)
            started = time.perf_counter()
            subprocess.run(
                [*warpseek, "index", str(source), "--into", str(target), "--quiet"],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            peer.encode(texts, batch_size=arguments.batch_size)
            theirs.append(time.perf_counter() - started)

    a, b = statistics.median(ours), statistics.median(theirs)
    print(
        json.dumps(
            {
                "records": len(texts),
                "tokens": tokens,
                "threads": arguments.threads,
                "torch": torch.__version__,
                "warpseek_seconds": [round(s, 2) for s in ours],
                "peer_seconds": [round(s, 2) for s in theirs],
                "warpseek_tokens_per_second": round(tokens / a),
                "peer_tokens_per_second": round(tokens / b),
                "ratio": round(b / a, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
