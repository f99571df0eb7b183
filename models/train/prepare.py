"""Makes the training lists of the reranker: queries, each with its right passages and hard wrong ones.

Reads judged questions and papers, splits them, mines every query's nearest passages with
all-MiniLM-L6-v2 (the retriever whose lists the reranker will see), takes out what is likely to be
right although nobody judged it, and writes

    texts.jsonl.gz    a line a passage: [title, text]
    train.jsonl.gz    a line a query: {set, query, positives, candidates, scores, positive_scores}
    valid.jsonl.gz    the same for the validation split: candidates are the retriever's own list

Passages are named by their line. The splits share no passage that answers a question. SciFact's
test queries and TREC DL are never read.
"""

import argparse
import csv
import gzip
import json
import pathlib
import random
import re
import zlib

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

# Shares of the queries kept for validation.
VALID_SHARE = {"web": 0.1, "squad": 0.15, "covid": 0.12, "pubmed": 0.1, "scifact": 0.12, "arxiv": 0.04}
# Neighbours that are mined for a query.
DEPTH = 60
# A passage this close to a right one is taken to be right as well, or a copy of it.
SAME_PASSAGE = 0.93

WORD = re.compile(r"[a-z0-9]+")


class Corpus:
    """All passages, and which pool each belongs to."""

    def __init__(self):
        self.texts, self.pools, self.groups = [], [], []

    def add(self, pool, group, title, text):
        self.texts.append([title, " ".join(text.split())])
        self.pools.append(pool)
        self.groups.append(group)
        return len(self.texts) - 1


def read_jsonl(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judged(folder, qrels):
    """Documents, queries and right documents of a collection in BEIR's layout."""
    documents = {d["_id"]: d for d in read_jsonl(folder / "corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl")}
    right = {}
    with open(folder / "qrels" / qrels, encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                right.setdefault(row["query-id"], []).append(row["corpus-id"])
    return documents, queries, right


def normalised(question):
    return " ".join(WORD.findall(question.lower()))


def questions(corpus, data):
    """Real questions and claims: (set, pool to find it in, query, right passages)."""
    found = {}
    sources = [
        # folder, qrels, set, pool, what passages a split must keep together
        ("train/nq-open-oracle", "test.tsv", "web", "web", lambda d: "nq " + d["title"]),
        ("train/qed-nq", "test.tsv", "web", "web", lambda d: "nq " + d["title"]),
        ("train/xquad-en", "test.tsv", "squad", "web", lambda d: "squad " + d["title"]),
        ("train/covid-qa", "test.tsv", "covid", "covid", lambda d: "covid " + d["_id"].split("p")[0]),
        ("train/pubmedqa-labeled", "test.tsv", "pubmed", "pubmed", lambda d: "pubmed " + d["_id"]),
        ("scifact", "train.tsv", "scifact", "scifact", lambda d: "scifact " + d["_id"]),
    ]
    for folder, qrels, name, pool, group in sources:
        documents, queries, right = judged(data / folder, qrels)
        numbers = {
            key: corpus.add(pool, group(d), d.get("title", "").replace("_", " "), d["text"])
            for key, d in documents.items()
        }
        for key, keys in right.items():
            # A question that stands in two collections has right passages in both.
            query = queries[key].strip()
            entry = found.setdefault((pool, normalised(query)), (name, pool, query, []))
            entry[3].extend(numbers[k] for k in keys)
    return list(found.values())


KEYWORD_STOP = set(
    "the a an of in on for and or to with by from at as is are be was were this that these those it its we our their"
    " they can which has have not but also than more such between using based via show shows paper propose proposed"
    " results method methods approach new study into both each when while how what there been however where may most"
    " over under through about all other some use used first two one data model models".split()
)


def paper_query(paper, style, rng, frequency):
    """A query of one style for a paper, with the text that should be found; none where it has none."""
    title, text = paper["title"], paper["summary"]
    if style in ("tldr", "method", "result"):
        return (paper.get(style) or "").strip(), text
    if style == "title":
        return title, text
    if style == "question":
        short = re.split(r"[:?]", title)[-1].strip() or title
        short = short[0].lower() + short[1:] if short[1:2].islower() else short
        form = rng.choice(
            ["what is {}", "{} explained", "how does {} work", "papers about {}", "what do we know about {}?", "{}"]
        )
        return form.format(short), text
    if style == "keywords":
        words = {w for w in WORD.findall((title + " " + text).lower()) if len(w) > 2 and w not in KEYWORD_STOP}
        rare = sorted(words, key=lambda w: (frequency.get(w, 0), w))
        # The very rarest are names and typing errors.
        picked = rng.sample(rare[2:14], min(rng.randint(2, 5), len(rare[2:14])))
        return " ".join(picked), text
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if 6 <= len(s.split()) <= 40]
    if len(sentences) < 4:
        return "", text
    sentence = rng.choice(sentences)
    # The sentence is cut out: the rest must be known by its meaning.
    return sentence, text.replace(sentence, " ")


def papers(corpus, data, n, rng):
    chosen = rng.sample(read_jsonl(data / "train" / "arxiv-tldr.jsonl.gz"), n)
    frequency = {}
    for paper in chosen:
        for word in set(WORD.findall((paper["title"] + " " + paper["summary"]).lower())):
            frequency[word] = frequency.get(word, 0) + 1
    styles = ["tldr", "method", "result", "title", "question", "keywords", "sentence"]
    found = []
    for paper in chosen:
        style = rng.choice(styles)
        query, text = paper_query(paper, style, rng, frequency)
        # The title would give the answer away where it is the query.
        title = "" if style in ("title", "question") else paper["title"]
        number = corpus.add("arxiv", "arxiv " + paper["id"], title, text)
        if len(query.split()) >= 2:
            found.append(("arxiv", "arxiv", query, [number]))
    return found


def web_sentences(corpus, rng):
    """Sentences of encyclopedic passages as queries for what stands around them."""
    found = []
    for number in [i for i, pool in enumerate(corpus.pools) if pool == "web"]:
        title, text = corpus.texts[number]
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if 6 <= len(s.split()) <= 40]
        if len(sentences) >= 3 and rng.random() < 0.4:
            sentence = rng.choice(sentences)
            rest = corpus.add("rest", corpus.groups[number], title, text.replace(sentence, " "))
            found.append(("sentence", "web", sentence, [rest]))
    return found


@torch.inference_mode()
def embed(model, texts, device, batch_tokens):
    """Unit vectors of texts, all-MiniLM-L6-v2's way: mean of the last layer, at most 256 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModel.from_pretrained(model, dtype=torch.float32).to(device).eval()
    # One list of ids a text; tokenised in slices, which bounds memory.
    ids = []
    for at in range(0, len(texts), 4096):
        ids += tokenizer(texts[at : at + 4096], truncation=True, max_length=256)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    vectors = numpy.zeros((len(ids), network.config.hidden_size), numpy.float32)
    at = 0
    while at < len(order):
        width = len(ids[order[at]])
        batch = order[at : at + max(1, batch_tokens // width)]
        at += len(batch)
        tokens = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, i in enumerate(batch):
            tokens[row, : len(ids[i])] = torch.tensor(ids[i])
            mask[row, : len(ids[i])] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            states = network(input_ids=tokens, attention_mask=mask).last_hidden_state
        states, mask = states.float(), mask.unsqueeze(-1).float()
        pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
        vectors[batch] = pooled.cpu().numpy()
    return vectors


def in_validation(name, group):
    share = VALID_SHARE.get(name, 0.0)
    return zlib.crc32(group.encode()) % 1000 < share * 1000


def write(path, lines):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with train/ and scifact/")
    parser.add_argument("--model", required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--papers", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    corpus = Corpus()
    queries = questions(corpus, arguments.data)
    queries += papers(corpus, arguments.data, arguments.papers, rng)
    queries += web_sentences(corpus, rng)

    documents = embed(
        arguments.model, [f"{title} {text}".strip() for title, text in corpus.texts], device, arguments.batch_tokens
    )
    asked = embed(arguments.model, [q[2] for q in queries], device, arguments.batch_tokens)

    # What a query is compared with: the passages of its own field.
    members = {}
    for number, pool in enumerate(corpus.pools):
        members.setdefault(pool, []).append(number)
    members = {pool: numpy.array(numbers) for pool, numbers in members.items()}

    train, valid = [], []
    for (name, pool, query, positives), vector in zip(queries, asked):
        positives = sorted(set(positives))
        numbers = members[pool]
        scores = documents[numbers] @ vector
        best = numpy.argsort(-scores, kind="stable")[: DEPTH + len(positives)]
        ranked = [(int(numbers[i]), float(scores[i])) for i in best]
        groups = {corpus.groups[p] for p in positives}
        entry = {"set": name, "query": query, "positives": positives}
        group = corpus.groups[positives[0]]
        if name == "sentence" and (in_validation("web", group) or in_validation("squad", group)):
            continue
        if in_validation(name, group):
            entry["candidates"] = [number for number, _ in ranked[:50]]
            entry["scores"] = [round(score, 4) for _, score in ranked[:50]]
            valid.append(entry)
            continue
        likeness = documents[[number for number, _ in ranked]] @ documents[positives].T
        kept = [
            (number, score)
            for (number, score), like in zip(ranked, likeness.max(axis=1))
            if number not in positives
            and like < SAME_PASSAGE
            # Windows of one article overlap, and those beside the judged one may hold the answer too.
            and not (name == "covid" and any(abs(number - p) <= 1 for p in positives))
            # The passage that the sentence was cut from.
            and not (name == "sentence" and corpus.groups[number] in groups)
        ]
        entry["candidates"] = [number for number, _ in kept]
        entry["scores"] = [round(score, 4) for _, score in kept]
        entry["positive_scores"] = [round(float(documents[p] @ vector), 4) for p in positives]
        train.append(entry)

    # No passage that answers a validation question teaches anything as a right one.
    held = {p for entry in valid for p in entry["positives"]}
    train = [entry for entry in train if not held & set(entry["positives"])]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "texts.jsonl.gz", corpus.texts)
    write(arguments.out / "train.jsonl.gz", train)
    write(arguments.out / "valid.jsonl.gz", valid)
    for name in sorted({entry["set"] for entry in train}):
        count = lambda entries: sum(entry["set"] == name for entry in entries)
        print(f"{name}: {count(train)} for training, {count(valid)} for validation")


if __name__ == "__main__":
    main()
