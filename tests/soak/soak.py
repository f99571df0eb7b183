"""Runs warpseek for hours under kills, damage and overload, and prints one table.

Every attempt has one of these outcomes: right (the answer of an untouched index), warned (right,
with a warning), refused (a named error), VERIFY ALONE (an answer that differs, and `verify` names
the damage), WRONG (an answer that differs, and nothing tells), LOST (acknowledged or committed data
are missing), PANIC (the program ended by itself), HUNG (it did not end). The capital ones fail the run.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BAD = ("WRONG", "VERIFY ALONE", "LOST", "PANIC", "HUNG")
WORDS = "river stone cloud bread lamp wolf paper salt garden storm winter copper".split()


class Soak:
    """State of a run: the program, its random numbers, and the outcomes."""

    def __init__(self, program, seed, place):
        self.program, self.random, self.place = program, random.Random(seed), Path(place)
        self.outcomes, self.examples = defaultdict(Counter), []
        golden = ROOT / "tests/golden"
        self.env = dict(os.environ, WARPSEEK_MODEL=str(golden / "models/e5-like"), WARPSEEK_OFFLINE="1",
                        HOME=str(self.place), XDG_CONFIG_HOME=str(self.place), RUST_BACKTRACE="0")
        self.reranker = str(golden / "cross-encoder")

    def start(self, *args, **options):
        return subprocess.Popen([self.program, *map(str, args)], cwd=self.place, env=self.env, text=True, **options)

    def run(self, *args, limit=120):
        """Status, standard output and standard error of a command; status None if it did not end."""
        process = self.start(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None, "", ""
        return process.returncode, out, err

    def record(self, work, outcome, what=""):
        self.outcomes[work][outcome] += 1
        if outcome in BAD:
            self.examples.append(f"{work}: {outcome}: {what}")
            print(self.examples[-1], flush=True)

    def text(self, n=25):
        return " ".join(self.random.choice(WORDS) for _ in range(n))

    def corpus(self, name, numbers, word=""):
        lines = (json.dumps({"_id": f"d{i}", "title": f"T {i}", "text": f"{word} {i} {self.text()}", "year": 1990 + i % 30}) for i in numbers)
        (self.place / name).write_text("\n".join(lines) + "\n")

    def ids(self, index):
        """The ids of an index, or None if it cannot be read."""
        code, _, err = self.run("export", index, "--documents", "ids.jsonl")
        if code != 0:
            return None, err
        return Counter(json.loads(line)["id"] for line in (self.place / "ids.jsonl").read_text().splitlines()), ""


def ended_badly(code):
    """The outcome of a status that no command may have: Rust's panics and signals."""
    if code is None:
        return "HUNG"
    return "PANIC" if code == 101 or code < 0 or code >= 128 else None


def killed(soak, *args):
    """Starts a command and kills it at a random instant."""
    process = soak.start(*args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(soak.random.random() ** 2 * 0.6)
    process.kill()
    process.wait()


def check_sound(soak, work, index, expected):
    """Verifies an index after a kill. `expected` tells whether its ids are possible."""
    code, out, err = soak.run("verify", index)
    if bad := ended_badly(code):
        return soak.record(work, bad, err[-300:])
    if code == 8 and "no index here" in err:
        return soak.record(work, "right")
    if code != 0:
        return soak.record(work, "LOST", (out + err)[-400:])
    found, err = soak.ids(index)
    if found is None or not expected(found):
        return soak.record(work, "LOST", err or f"{len(found)} documents, {found.most_common(1)}")
    soak.record(work, "right")


def kill_index(soak):
    shutil.rmtree(soak.place / "k", ignore_errors=True)
    soak.corpus("k.jsonl", range(1500))
    command = ("index", "k.jsonl", "--into", "k", "--commit-rows", "100", "--quiet")
    killed(soak, *command)
    check_sound(soak, "kill: index", "k", lambda found: max(found.values(), default=1) == 1)
    code, _, err = soak.run(*command)
    found = soak.ids("k")[0] if code == 0 else None
    soak.record("kill: index, resumed", "right" if found and len(found) == 1500 else "LOST", err[-300:])


def kill_change(soak):
    """Updates, deletions and compactions of one index."""
    if soak.run("info", "c")[0] != 0:
        soak.corpus("c.jsonl", range(1200))
        soak.run("index", "c.jsonl", "--into", "c", "--quiet")
    before, _ = soak.ids("c")
    kind = soak.random.choice(["update", "delete", "compact", "import"])
    possible = lambda found: found == before
    if kind == "update":
        soak.corpus("c.jsonl", range(1200), soak.random.choice(WORDS))
        killed(soak, "index", "c.jsonl", "--into", "c", "--commit-rows", "100", "--quiet")
        possible = lambda found: set(found) >= set(before) and max(found.values()) == 1
    elif kind == "delete":
        year = 1990 + soak.random.randrange(30)
        killed(soak, "delete", "c", "--filter", f"year = {year}")
        possible = lambda found: found == before or len(found) >= len(before) - 40
    elif kind == "compact":
        killed(soak, "compact", "c")
    else:
        shutil.rmtree(soak.place / "m", ignore_errors=True)
        rows = [[soak.random.uniform(-1, 1) for _ in range(24)] for _ in range(4000)]
        (soak.place / "m.fbin").write_bytes(struct.pack("<II", 4000, 24) + b"".join(struct.pack("<24f", *row) for row in rows))
        killed(soak, "import", "m.fbin", "--into", "m")
        return check_sound(soak, "kill: import", "m", lambda found: len(found) <= 4000)
    check_sound(soak, f"kill: {kind}", "c", possible)


class Server:
    def __init__(self, soak, *args):
        self.process = soak.start("serve", "--port", "0", *args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        address = self.process.stdout.readline().split("//")[-1].strip()
        self.host = address
        self.pid = self.process.pid

    def post(self, path, body, timeout=60):
        """Status and body of a reply; status 0 if the connection failed."""
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def memory(self):
        """Resident memory in MiB."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None


def kill_server(soak):
    """Acknowledged upserts of a server that is killed are found, by export and by a search."""
    if soak.run("info", "s")[0] != 0:
        soak.corpus("s.jsonl", range(50))
        soak.run("index", "s.jsonl", "--into", "s", "--quiet")
    server = Server(soak, "s")
    acknowledged, stop = [], threading.Event()

    def upsert(writer):
        n = 0
        while not stop.is_set():
            name = f"{server.pid}w{writer}n{n}"
            if server.post("/v1/documents", {"documents": [{"id": name, "text": f"mark {name} {WORDS[n % 12]}"}]}, 5)[0] == 200:
                acknowledged.append(name)
            n += 1

    writers = [threading.Thread(target=upsert, args=(writer,)) for writer in range(3)]
    [writer.start() for writer in writers]
    time.sleep(0.1 + soak.random.random() * 0.6)
    server.stop(soak.random.choice([signal.SIGKILL, signal.SIGTERM]))
    stop.set()
    [writer.join() for writer in writers]
    check_sound(soak, "kill: serve", "s", lambda found: all(found[name] == 1 for name in acknowledged))
    if acknowledged:
        name = soak.random.choice(acknowledged)
        code, out, _ = soak.run("search", "s", f"mark {name}", "--filter", f"id = '{name}'", "--json")
        hits = json.loads(out)["hits"] if code == 0 else []
        soak.record("kill: serve, found by a search", "right" if [hit["id"] for hit in hits] == [name] else "LOST", name)
    if len(acknowledged) > 2000 or soak.random.random() < 0.02:
        shutil.rmtree(soak.place / "s", ignore_errors=True)


def answers(soak, index):
    """Status, answers and messages of a set of searches."""
    code, out, err = soak.run("batch", index, "q.jsonl", "--out", "o.jsonl", "-k", "8", "--restart", "--quiet", "--hybrid", "--with-text")
    if code != 0:
        return code, None, err
    lines = [json.loads(line) for line in (soak.place / "o.jsonl").read_text().splitlines()]
    return code, [[(hit.get("id"), hit.get("score"), hit.get("text")) for hit in line["hits"]] for line in lines], err


def damage(soak, path):
    data = bytearray(path.read_bytes())
    at, kind = soak.random.randrange(max(len(data), 1)), soak.random.randrange(9)
    if kind == 8:
        path.unlink()
        return "removed"
    if data and kind <= 4:
        data[at] ^= 1 << soak.random.randrange(8)
    elif data and kind <= 6:
        end = min(len(data), at + soak.random.choice([1, 16, 512]))
        data[at:end] = soak.random.randbytes(end - at)
    else:
        del data[at:]
    path.write_bytes(data)
    return f"kind {kind} at {at}"


def mutate_index(soak):
    base = soak.place / "base"
    if not base.exists():
        # Copied while the log holds commits: a server that idles empties it.
        soak.corpus("b.jsonl", range(400))
        soak.run("index", "b.jsonl", "--into", "live", "--commit-rows", "150", "--quiet")
        server = Server(soak, "live")
        server.post("/v1/documents", {"documents": [{"id": f"n{i}", "text": soak.text()} for i in range(40)]})
        shutil.copytree(soak.place / "live", base)
        server.stop()
        queries = [{"_id": str(i), "text": soak.text(3), **({"filter": "year < 2005"} if i % 2 else {})} for i in range(12)]
        (soak.place / "q.jsonl").write_text("\n".join(map(json.dumps, queries)))
        soak.expected = answers(soak, "base")[1]
    shutil.rmtree(soak.place / "x", ignore_errors=True)
    shutil.copytree(base, soak.place / "x")
    names = sorted(p.name for p in base.iterdir() if p.name not in ("lock", "documents.db-shm"))
    name = soak.random.choice(names)
    how = damage(soak, soak.place / "x" / name)
    code, got, err = answers(soak, "x")
    outcome = ended_badly(code)
    if outcome is None and code != 0:
        outcome = "refused"
    if outcome is None and got == soak.expected:
        outcome = "warned" if err.strip() else "right"
    if outcome is None:
        outcome = "VERIFY ALONE" if soak.run("verify", "x")[0] == 5 else "WRONG"
    soak.record(f"damage: {name}", outcome, f"{how} {err[-200:]}")


def samples(soak):
    """Small inputs of many formats, by file name."""
    rows = [(f"r{i}", soak.text(8)) for i in range(20)]
    made = {
        "a.jsonl": "\n".join(json.dumps({"_id": i, "text": t, "n": [1, {"a": t}]}) for i, t in rows),
        "a.json": json.dumps([{"id": i, "text": t} for i, t in rows]),
        "a.csv": "id,text,year\n" + "\n".join(f'{i},"{t}, ""x""",2001' for i, t in rows),
        "a.tsv": "id\ttext\n" + "\n".join(f"{i}\t{t}" for i, t in rows),
        "a.md": "# A\n\n" + "\n\n## B\n\n".join(t for _, t in rows) + "\n\n```rust\nfn a() {}\n```\n",
        "a.html": "<html><body>" + "".join(f"<p id='{i}'>{t}<br><span hidden>x</span></p>" for i, t in rows) + "</body></html>",
        "a.tex": "\\documentclass{a}\\begin{document}" + "\n\n".join(f"\\section{{{i}}} {t} $x^2$" for i, t in rows) + "\\end{document}",
        "a.rst": "\n\n".join(f"{i}\n==\n\n{t}" for i, t in rows),
        "a.org": "\n".join(f"* {i}\n{t}" for i, t in rows),
        "a.eml": "From: a@b.example\nSubject: S\nContent-Type: multipart/mixed; boundary=Q\n\n--Q\nContent-Type: text/plain\n\n" + rows[0][1] + "\n--Q--\n",
        "a.ipynb": json.dumps({"cells": [{"cell_type": "markdown", "source": [t]} for _, t in rows], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}),
        "a.py": "\n\n".join(f"def f{n}():\n    return '{t}'" for n, (_, t) in enumerate(rows)),
        "a.txt": "\n\n".join(t for _, t in rows),
    }
    return {name: text.encode() for name, text in made.items()} | {name: office(name, rows) for name in ("a.docx", "a.odt", "a.xlsx", "a.epub")}


def office(name, rows):
    """A minimal file of an office format."""
    paragraphs = "".join(f"<w:p><w:r><w:t>{t}</w:t></w:r></w:p>" for _, t in rows)
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{t}</t></is></c></row>' for n, (_, t) in enumerate(rows, 1))
    parts = {
        "a.docx": {"[Content_Types].xml": "<Types/>", "word/document.xml": f'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{paragraphs}</w:body></w:document>'},
        "a.odt": {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text>' + "".join(f"<text:p>{t}</text:p>" for _, t in rows) + "</office:text></office:body></office:document-content>"},
        "a.xlsx": {"[Content_Types].xml": "<Types/>", "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>',
                   "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
                   "xl/worksheets/sheet1.xml": f'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{cells}</sheetData></worksheet>'},
        "a.epub": {"mimetype": "application/epub+zip", "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
                   "c.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>',
                   "a.xhtml": "<html><body>" + "".join(f"<p>{t}</p>" for _, t in rows) + "</body></html>"},
    }[name]
    path = Path(tempfile.mkstemp()[1])
    with zipfile.ZipFile(path, "w") as archive:
        [archive.writestr(part, text) for part, text in parts.items()]
    data = path.read_bytes()
    path.unlink()
    return data


def mutate_input(soak):
    """A damaged input is indexed or refused; it never ends the program, nor takes long."""
    name, data = soak.random.choice(list(samples(soak).items()))
    data = bytearray(data)
    for _ in range(soak.random.choice([1, 1, 3, 20])):
        at = soak.random.randrange(len(data))
        kind = soak.random.randrange(5)
        if kind == 0:
            data[at] ^= 1 << soak.random.randrange(8)
        elif kind == 1:
            data[at:at + soak.random.randrange(1, 40)] = soak.random.randbytes(soak.random.randrange(40))
        elif kind == 2:
            part = data[at:at + soak.random.randrange(1, 200)]
            data[at:at] = part * soak.random.choice([1, 2, 50])
        elif kind == 3:
            data[at:at] = soak.random.choice([b"\x00", b"\xff\xfe", b"{", b"[" * 300, b'"', b"<", b"</", b"\r", b"9" * 40, b"\\u d800"])
        elif len(data) > 1:
            del data[at:]
        if not data:
            data = bytearray(b" ")
    (soak.place / name).write_bytes(data)
    shutil.rmtree(soak.place / "f", ignore_errors=True)
    code, _, err = soak.run("index", name, "--into", "f", "--on-error", "skip", "--quiet", limit=90)
    if outcome := ended_badly(code):
        shutil.copy(soak.place / name, ROOT / "target" / f"soak-{int(time.time())}-{name}")
    soak.record(f"input: {name}", outcome or ("refused" if code else "right"), err[-300:])


def overload(soak):
    """Twice and ten times the work that can be done: how much of it is done in time."""
    if not (soak.place / "o").exists():
        soak.corpus("o.src.jsonl", range(500))
        soak.run("index", "o.src.jsonl", "--into", "o", "--quiet")
    server = Server(soak, "o", "--reranker", soak.reranker, "--timeout", "2")
    body = {"query": "river lamp", "k": 5, "rerank_depth": 400}
    for _ in range(5):
        server.post("/v1/search", body)
    started, n = time.time(), 0
    while time.time() - started < 3:
        n += server.post("/v1/search", body)[0] == 200
    rate = n / (time.time() - started)
    for times in (2, 10):
        seconds, replies, peak = 6.0, [], server.memory()

        def ask():
            began = time.time()
            status = server.post("/v1/search", body, 20)[0]
            replies.append((status, time.time() - began))

        threads, count = [], int(rate * times * seconds)
        began = time.time()
        for i in range(count):
            time.sleep(max(0.0, began + i * seconds / count - time.time()))
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
            peak = max(peak, server.memory()) if i % 20 == 0 else peak
        [thread.join() for thread in threads]
        took = time.time() - began
        statuses = Counter(status for status, _ in replies)
        refused = sorted(t for status, t in replies if status == 429)
        done = statuses[200] / (rate * took)
        late = refused[int(len(refused) * 0.95)] * 1e3 if refused else 0
        what = f"{count} requests: {dict(statuses)}, {done:.2f} of what an idle server does, refusals p95 {late:.0f} ms, {peak:.0f} MiB"
        print(f"overload x{times}: {what}", flush=True)
        soak.notes[f"overload x{times}"].append((done, late, peak))
        soak.record(f"overload x{times}", "PANIC" if server.process.poll() is not None else "right", what)
    server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of work: kill, damage, input or overload")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    kinds = {"kill": [kill_index, kill_change, kill_change, kill_server, kill_server], "damage": [mutate_index] * 5, "input": [mutate_input] * 3}
    works = kinds[args.only] if args.only in kinds else [] if args.only else sum(kinds.values(), [])
    with tempfile.TemporaryDirectory(prefix="warpseek-soak-") as place:
        soak = Soak(args.program.resolve(), args.seed, place)
        soak.notes = defaultdict(list)
        until, next_overload = time.time() + args.hours * 3600, 0.0
        try:
            while time.time() < until:
                if args.only in (None, "overload") and time.time() >= next_overload:
                    overload(soak)
                    next_overload = time.time() + 600
                for work in soak.random.sample(works, len(works)):
                    if time.time() < until:
                        work(soak)
        except KeyboardInterrupt:
            print("stopped")
    print(f"\n{'work':32} {'tries':>7}  outcomes")
    for work, outcomes in sorted(soak.outcomes.items()):
        print(f"{work:32} {sum(outcomes.values()):7}  {', '.join(f'{name} {n}' for name, n in outcomes.most_common())}")
    for work, all_of in sorted(soak.notes.items()):
        done, late, peak = (sorted(values) for values in zip(*all_of))
        print(f"{work}: done {done[0]:.2f} to {done[-1]:.2f} of what an idle server does, refusals p95 up to {late[-1]:.0f} ms, up to {peak[-1]:.0f} MiB")
    bad = sum(outcomes[name] for outcomes in soak.outcomes.values() for name in BAD)
    print(f"{sum(sum(o.values()) for o in soak.outcomes.values())} tries, {bad} wrong, lost, panicking or hung")
    sys.exit(1 if bad else 0)


main()
