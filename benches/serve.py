"""Latency and throughput of a running server under load.

    python benches/serve.py URL --texts FILE [--seconds 30] [--bulk 4]

FILE is BEIR's corpus.jsonl. Measures searches without reranking, one after the other: alone, and
beside clients that embed texts without a pause. Then measures those clients alone. Prints
percentiles of the searches' latency, and the tokens per second of the clients.

With --overload SECONDS, measures back-pressure instead. First it measures how many requests per
second of a mix (searches with and without reranking, embeddings, rerankings, upserts) are answered.
Then it sends twice that rate, without waiting for replies. Every request must be answered, or
refused with 429 or 503. --pid prints the memory of that process along the way.
"""

import argparse
import collections
import http.client
import json
import queue
import sys
import threading
import time
from urllib.parse import urlsplit

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--seconds", type=float, default=30)
parser.add_argument("--bulk", type=int, default=4)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--texts", required=True)
parser.add_argument("--overload", type=float)
parser.add_argument("--connections", type=int, default=1000)
parser.add_argument("--pid", type=int)
arguments = parser.parse_args()
address = urlsplit(arguments.url).netloc
records = [json.loads(line) for line in open(arguments.texts, encoding="utf-8")]
texts = [f"{r.get('title', '')} {r['text']}".strip() for r in records]
queries = [r.get("title") or r["text"][:80] for r in records]


def connect():
    return http.client.HTTPConnection(address, timeout=120)


def post(connection, path, body):
    started = time.perf_counter()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    data = reply.read()
    return reply.status, data, time.perf_counter() - started


def search(until, times, statuses):
    connection = connect()
    number = 0
    while time.monotonic() < until:
        status, _, took = post(connection, "/v1/search", {"query": queries[number % len(queries)], "rerank_depth": 0})
        statuses[status] += 1
        times.append(took)
        number += 1


def bulk(until, which, tokens, statuses):
    connection = connect()
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
    return f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms of {len(times)}"


def together(searchers, clients, seconds):
    times, tokens, statuses = [], [0] * clients, collections.Counter()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=search, args=(until, times, statuses)) for _ in range(searchers)]
    threads += [threading.Thread(target=bulk, args=(until, i, tokens, statuses)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, sum(tokens) / seconds, dict(statuses)


def mixed(number):
    """Name, path and body of a request of the mix."""
    query, at = queries[number % len(queries)], number * 7 % (len(texts) - 10)
    kind = number % 8
    if kind < 3:
        return "search", "/v1/search", {"query": query, "rerank_depth": 0}
    if kind < 5:
        return "search, reranked", "/v1/search", {"query": query, "rerank_depth": 10}
    if kind == 5:
        return "rerank", "/v1/rerank", {"query": query, "documents": texts[at : at + 10], "model": "m"}
    if kind == 6:
        return "embed", "/v1/embeddings", {"input": texts[at : at + 8], "model": "m"}
    document = {"id": f"load-{number % 500}", "text": texts[at], "title": f"version {number}"}
    return "upsert", "/v1/documents", {"documents": [document]}


def memory():
    lines = open(f"/proc/{arguments.pid}/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def send_mix(seconds, rate):
    """Sends the mix at `rate` requests per second; with None, as fast as replies come.

    Returns the replies' statuses and times, the failures, and the number of requests sent.
    """
    due = queue.SimpleQueue()
    statuses, times, failures, sent = collections.Counter(), collections.defaultdict(list), [], []
    numbers = iter(range(1 << 60))
    lock = threading.Lock()
    until = time.monotonic() + seconds

    def client():
        connection = connect()
        while True:
            if rate is None:
                if time.monotonic() > until:
                    return
                with lock:
                    number = next(numbers)
            elif (number := due.get()) is None or time.monotonic() > until:
                return
            name, path, body = mixed(number)
            sent.append(number)
            try:
                try:
                    status, data, took = post(connection, path, body)
                except (BrokenPipeError, http.client.RemoteDisconnected):
                    # The server had closed the connection, because it was idle for long.
                    connection = connect()
                    status, data, took = post(connection, path, body)
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{name}: {error!r}")
                connection = connect()
                continue
            with lock:
                statuses[status] += 1
            if status == 200:
                times[name].append(took)
            elif status not in (429, 503):
                failures.append(f"{name}: {status} {data[:200]!r}")

    threads = [threading.Thread(target=client) for _ in range(8 if rate is None else arguments.connections)]
    for thread in threads:
        thread.start()
    wanted = 0
    if rate is not None:
        started = time.monotonic()
        shown = started
        while (now := time.monotonic()) < until:
            for _ in range(int((now - started) * rate) - wanted):
                due.put(wanted)
                wanted += 1
            if arguments.pid and now >= shown:
                shown += max(5.0, seconds / 10)
                print(f"  after {now - started:.0f} s: {memory()} MiB, {dict(statuses)}, {due.qsize()} wait for a connection", flush=True)
            time.sleep(0.005)
        for _ in threads:
            due.put(None)
    for thread in threads:
        thread.join()
    # Requests for which no connection was free were never sent.
    return statuses, times, failures, len(sent)


if arguments.overload:
    statuses, _, failures, _ = send_mix(10, None)
    rate = statuses[200] / 10
    print(f"8 clients, each sending when it is answered: {rate:.0f} requests/s {dict(statuses)}")
    statuses, times, more, sent = send_mix(arguments.overload, 2 * rate)
    failures += more
    print(f"{2 * rate:.0f} requests/s for {arguments.overload:.0f} s: {sent} sent, {sum(statuses.values())} answered {dict(statuses)}")
    for name in sorted(times):
        print(f"  {name}: {percentiles(times[name])}")
    if arguments.pid:
        print(f"  memory at the end: {memory()} MiB")
    for failure in failures[:10]:
        print(f"  failed: {failure}")
    sys.exit(1 if failures else 0)

times, _, statuses = together(1, 0, min(10, arguments.seconds))
print(f"searches alone: {percentiles(times)} {statuses}")
times, rate, statuses = together(1, arguments.bulk, arguments.seconds)
print(f"searches beside {arguments.bulk} bulk clients: {percentiles(times)}; bulk {rate:.0f} tokens/s {statuses}")
_, rate, statuses = together(0, arguments.bulk, arguments.seconds)
print(f"{arguments.bulk} bulk clients alone: {rate:.0f} tokens/s {statuses}")
