"""A running server under load: `python benches/serve.py URL [--seconds 30] [--bulk 4] [--texts FILE]`.

Bulk clients embed texts without a pause while one client searches without reranking, one query after the other. Prints the tokens a
second that the bulk clients get, and percentiles of the searches' times, alone and under load. FILE is BEIR's corpus.jsonl.
"""

import argparse
import collections
import http.client
import json
import threading
import time
from urllib.parse import urlsplit

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--seconds", type=float, default=30)
parser.add_argument("--bulk", type=int, default=4)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--texts", required=True)
arguments = parser.parse_args()
address = urlsplit(arguments.url).netloc
records = [json.loads(line) for line in open(arguments.texts, encoding="utf-8")]
texts = [f"{r.get('title', '')} {r['text']}".strip() for r in records]
queries = [r.get("title") or r["text"][:80] for r in records]


def post(connection, path, body):
    started = time.perf_counter()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    data = reply.read()
    return reply.status, data, time.perf_counter() - started


def search(until, times, statuses):
    connection = http.client.HTTPConnection(address)
    number = 0
    while time.monotonic() < until:
        status, _, took = post(connection, "/v1/search", {"query": queries[number % len(queries)], "rerank_depth": 0})
        statuses[status] += 1
        times.append(took)
        number += 1


def bulk(until, which, tokens, statuses):
    connection = http.client.HTTPConnection(address)
    at = which * 997
    while time.monotonic() < until:
        part = [texts[(at + i) % len(texts)] for i in range(arguments.batch)]
        at += arguments.batch
        status, data, _ = post(connection, "/v1/embeddings", {"input": part, "model": "m", "encoding_format": "base64"})
        statuses[status] += 1
        if status == 200 and time.monotonic() < until:
            tokens[which] += json.loads(data)["usage"]["total_tokens"]


def percentiles(times):
    times = sorted(times)
    at = lambda p: times[min(len(times) - 1, int(p * len(times)))] * 1e3
    return f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms of {len(times)} searches"


def measure(clients, seconds):
    times, tokens, statuses = [], [0] * clients, collections.Counter()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=search, args=(until, times, statuses))]
    threads += [threading.Thread(target=bulk, args=(until, i, tokens, statuses)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, sum(tokens) / seconds, dict(statuses)


times, _, statuses = measure(0, min(10, arguments.seconds))
print(f"alone: {percentiles(times)} {statuses}")
times, rate, statuses = measure(arguments.bulk, arguments.seconds)
print(f"beside {arguments.bulk} bulk clients: {percentiles(times)}, bulk {rate:.0f} tokens/s {statuses}")
