"""A peer for `benches/serve.py`: a minimal server of FastAPI, sentence-transformers and FAISS.

    python benches/peers/serve.py MODEL_DIR VECTORS.npy DOCUMENTS.jsonl [--threads 2] [--port 8901]

`warpseek export INDEX --vectors VECTORS.npy --documents DOCUMENTS.jsonl` writes the two files.
Serves /v1/search, without reranking, and /v1/embeddings. FastAPI runs each request in a thread of
its pool.
"""

import argparse
import base64
import json
import os

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("vectors")
parser.add_argument("documents")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--port", type=int, default=8901)
arguments = parser.parse_args()
os.environ["HF_HUB_OFFLINE"] = "1"

import faiss
import numpy
import torch
import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer, models as modules

torch.set_num_threads(arguments.threads)
faiss.omp_set_num_threads(arguments.threads)
transformer = modules.Transformer(arguments.model, max_seq_length=256)
pooling = modules.Pooling(transformer.get_word_embedding_dimension(), "mean")
model = SentenceTransformer(modules=[transformer, pooling, modules.Normalize()], device="cpu")
vectors = numpy.load(arguments.vectors).astype("float32")
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
documents = [json.loads(line) for line in open(arguments.documents, encoding="utf-8")]
app = FastAPI()


@app.post("/v1/search")
def search(body: dict):
    scores, rows = index.search(model.encode([body["query"]]), body.get("k", 10))
    return {"hits": [{"score": float(s), **documents[r]} for s, r in zip(scores[0], rows[0])]}


@app.post("/v1/embeddings")
def embeddings(body: dict):
    found = model.encode(body["input"])
    tokens = sum(len(ids) for ids in model.tokenizer(body["input"], truncation=True, max_length=256)["input_ids"])
    data = [{"index": i, "embedding": base64.b64encode(v.tobytes()).decode()} for i, v in enumerate(found)]
    return {"data": data, "usage": {"total_tokens": tokens}}


uvicorn.run(app, port=arguments.port, log_level="warning")
