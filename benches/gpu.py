"""Speed of the GPU scan, side by side with torch and FAISS.

    python benches/gpu.py --warpseek BINARY [--record FOLDER] [--quick]

Runs `warpseek bench --device cuda` for several batch sizes, k, filters and matrix sizes. The same
run measures what most people use instead: torch's matmul and topk in half precision, with the best
of several chunk sizes, and FAISS on the GPU if it can be imported. Peers return approximate results
in half precision; warpseek's are exact. Prints Markdown, and writes it to FOLDER/<gpu>/<date>.md.

Two times of warpseek are shown: that of its kernels ("GPU"), and that of the whole call, with
queries copied from the host and results copied to it ("all").
"""

import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--warpseek", default="target/release/warpseek")
parser.add_argument("--record", type=pathlib.Path)
parser.add_argument("--commit", default="")
parser.add_argument("--quick", action="store_true", help="few shapes, and small ones")
arguments = parser.parse_args()
lines = []


def say(line=""):
    print(line, flush=True)
    lines.append(line)


def smi(*fields):
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def ours(rows, batches, ks, passing=(100,), more=()):
    """Rates by (batch, k, percentage of rows that pass the filter), and the machine's limits."""
    command = [arguments.warpseek, "bench", "--search-only", "--json", "--device", "cuda", "--rows", str(rows), *more]
    for name, values in (("--batch", batches), ("--top-k", ks), ("--pass", passing)):
        command += [name, ",".join(map(str, values))]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {(s["queries"], s["k"], s["percent"]): s for s in found["scan"]}, found["limits"]["gpu"]


class Torch:
    """matmul and topk over chunks of rows. The best of several chunk sizes counts."""

    def __init__(self, rows):
        self.rows = torch.nn.functional.normalize(torch.randn(rows, 384, device="cuda"), dim=1).half()

    def once(self, queries, k, chunk):
        best = None
        for start in range(0, len(self.rows), chunk):
            part = self.rows[start : start + chunk]
            scores, indices = torch.topk(queries @ part.T, min(k, len(part)), dim=1)
            indices = indices + start
            if best is not None:
                scores, order = torch.topk(torch.cat([best[0], scores], 1), k, dim=1)
                indices = torch.gather(torch.cat([best[1], indices], 1), 1, order)
            best = scores, indices
        return best

    def seconds(self, batch, k):
        queries = torch.nn.functional.normalize(torch.randn(batch, 384, device="cuda"), dim=1).half()
        best = float("inf")
        for chunk in (len(self.rows), 1 << 18, 1 << 16):
            if batch * min(chunk, len(self.rows)) > 4 << 30:
                continue
            try:
                best = min(best, median(lambda: self.once(queries, k, chunk)))
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
        return best


def median(work):
    for _ in range(2):
        work()
    times = []
    started = time.monotonic()
    while len(times) < 5 or (time.monotonic() - started < 0.5 and len(times) < 50):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def matmul_rate():
    a, b = (torch.randn(8192, 8192, device="cuda").half() for _ in range(2))
    return 8192**3 / median(lambda: a @ b)


try:
    import torch

    has_torch = torch.cuda.is_available()
except ImportError:
    has_torch = False
try:
    import faiss

    has_faiss = hasattr(faiss, "StandardGpuResources")
except ImportError:
    has_faiss = False

name = smi("name")
say(f"# {datetime.date.today()}, {name}")
say()
say(f"Driver {smi('driver_version')}; clocks {smi('clocks.sm', 'clocks.mem', 'clocks.max.sm')}; power limit {smi('power.limit')}; commit {arguments.commit or 'unknown'}.")
if not has_torch:
    say("torch is not here: no peer was measured, and no rate of a matrix product.")
if not has_faiss:
    say("FAISS has no GPU part here: not measured.")
sizes = [41_584] if arguments.quick else [41_584, 1_000_000, 10_000_000]
batches = [1, 32, 1024] if arguments.quick else [1, 8, 32, 64, 128, 512, 1024, 4096, 8192]
ks = [10, 100] if arguments.quick else [10, 100, 1000]
matmul = matmul_rate() if has_torch else None
for rows in sizes:
    found, limits = ours(rows, batches, ks, more=["--no-prefilter"])
    bytes_found, _ = ours(rows, batches, ks)
    forced, _ = ours(rows, [b for b in batches if b > 64], ks, more=["--force-prefilter"])
    torches = Torch(rows) if has_torch else None
    say()
    say(f"## {rows:,} x 384")
    say()
    say(f"Copy {limits['copy_bytes'] / 1e12:.2f} TB/s, mma.sync {2 * limits['half_products'] / 1e12:.0f} TFLOP/s" + (f", 8192^3 matmul {2 * matmul / 1e12:.0f} TFLOP/s." if matmul else "."))
    say()
    say("| batch | k | GPU us | all us | rows read once, of copy | of matmul | torch us | torch / ours |")
    say("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (batch, k, _), rate in found.items():
        gpu, everything = rate["gpu_seconds"], batch / rate["queries_per_second"]
        products = batch * rows * 384 / gpu
        peer = torches.seconds(batch, k) if torches else None
        cells = [batch, k, f"{gpu * 1e6:.1f}", f"{everything * 1e6:.1f}", f"{rows * 768 / gpu / limits['copy_bytes']:.2f}"]
        cells += [f"{products / matmul:.2f}" if matmul else "", f"{peer * 1e6:.1f}" if peer else "", f"{peer / gpu:.2f}" if peer else ""]
        say(f"| {' | '.join(map(str, cells))} |")
    say()
    say("Over the rows in 8 bits:")
    say()
    say("| batch | k | GPU us | faster than half precision | chosen by itself |")
    say("| --- | --- | --- | --- | --- |")
    for key, rate in {**bytes_found, **forced}.items():
        chosen = "yes" if bytes_found[key]["reads_bytes"] else "no"
        if rate["reads_bytes"]:
            say(f"| {key[0]} | {key[1]} | {rate['gpu_seconds'] * 1e6:.1f} | {found[key]['gpu_seconds'] / rate['gpu_seconds']:.2f} times | {chosen} |")
    if has_faiss and torches and rows <= 1_000_000:
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 384)
        index.add(torches.rows.float().cpu().numpy())
        for batch in (1, 32, 1024):
            queries = torches.rows[:batch].float().cpu().numpy()
            index.search(queries, 100)
            started = time.perf_counter()
            for _ in range(5):
                index.search(queries, 100)
            say(f"FAISS GpuIndexFlatIP (float32), batch {batch}, k 100: {(time.perf_counter() - started) / 5 * 1e6:.0f} us with copies.")
    del torches
    filtered, _ = ours(rows, [1, 32, 1024], [100], [1, 10, 50, 100])
    say()
    say("| batch | k | rows that pass | GPU us |")
    say("| --- | --- | --- | --- |")
    for (batch, k, percent), rate in filtered.items():
        say(f"| {batch} | {k} | {percent} % | {rate['gpu_seconds'] * 1e6:.1f} |")
if arguments.record:
    folder = arguments.record / (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{datetime.date.today()}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
