"""Makes the training lists of the reranker: queries with relevant passages and hard negatives.

Reads judged questions and papers and splits them into training and validation. Mines the nearest
passages of every query with all-MiniLM-L6-v2, the retriever whose lists the reranker will see.
Removes passages that are probably relevant although nobody judged them. Scores the rest by a
teacher. Writes

    texts.jsonl.gz    one line per passage: [title, text]
    train.jsonl.gz    one line per query: {set, query, positives, positive_teacher, candidates,
                      teacher}, and for questions {unanswered: [passage, teacher]}: the relevant
                      passage without the sentence nearest to the question
    valid.jsonl.gz    one line per query: {set, query, positives, candidates, scores, teacher};
                      candidates and scores are the retriever's own list

Passages are named by their line number. The splits share no passage that answers a question.
SciFact's test queries and TREC DL are never read.

The teacher is untrained. It is the sum of three scores, each standardized within the list: the
retriever's cosine, half of BM25 (k1 0.9, b 0.4), and the late interaction of the retriever's own
token vectors. Late interaction is the mean over the query's tokens, weighted by their inverse
document frequency, of the largest cosine with a token of the passage (Khattab and Zaharia,
"ColBERT", SIGIR 2020, without its training).
"""

import argparse
import collections
import csv
import gzip
import json
import math
import pathlib
import random
import re
import zlib

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

# Shares of the queries kept for validation.
VALID_SHARE = {"web": 0.1, "squad": 0.15, "covid": 0.12, "pubmed": 0.1, "scifact": 0.12, "arxiv": 0.04}
# Nearest passages that are mined per query.
DEPTH = 60
# Cosine from which a passage counts as a copy of a relevant one, or as relevant as well.
SAME_PASSAGE = 0.93
# Share of the papers that are cut to a few neighbouring sentences, and the range of their words.
CUT_SHARE, CUT_WORDS = 0.7, (30, 110)
# The teacher's weights: cosine, BM25, late interaction.
TEACHER = (1.0, 0.5, 1.0)

WORD = re.compile(r"[a-z0-9]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# The sets whose queries one sentence of the passage answers.
QUESTIONS = {"web", "squad", "covid"}


class Corpus:
    """All passages, each with its pool (passages that are mined together) and its group (passages
    that a split keeps together)."""

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
    """Documents, queries and relevant documents of a collection in BEIR's layout."""
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
    """Real questions and claims: (set, pool, query, relevant passages)."""
    found = {}
    sources = [
        # folder, qrels, set, pool, group of a passage
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
            # A question that is in two collections has relevant passages in both.
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
    """A query of one style for a paper, and the text that it should find. The query is empty if the
    paper does not support the style."""
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
        # The rarest words are names and typing errors.
        picked = rng.sample(rare[2:14], min(rng.randint(2, 5), len(rare[2:14])))
        return " ".join(picked), text
    sentences = [s for s in SENTENCE_END.split(text) if 6 <= len(s.split()) <= 40]
    if len(sentences) < 4:
        return "", text
    sentence = rng.choice(sentences)
    # The sentence is cut out, so that the passage can be found by its meaning only.
    return sentence, text.replace(sentence, " ")


def cut(text, rng):
    """A few neighbouring sentences."""
    sentences = SENTENCE_END.split(text)
    first, wanted = rng.randrange(len(sentences)), rng.randint(*CUT_WORDS)
    last = first + 1
    while len(" ".join(sentences[first:last]).split()) < wanted and (first > 0 or last < len(sentences)):
        first, last = (first, last + 1) if last < len(sentences) else (first - 1, last)
    return " ".join(sentences[first:last])


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
        # A title that is the query as well would give the answer away.
        title = "" if style in ("title", "question") else paper["title"]
        if rng.random() < CUT_SHARE:
            text = cut(text, rng)
        number = corpus.add("arxiv", "arxiv " + paper["id"], title, text)
        if len(query.split()) >= 2:
            found.append(("arxiv", "arxiv", query, [number]))
    return found


def web_sentences(corpus, rng):
    """Sentences of encyclopedic passages as queries for the rest of their passage."""
    found = []
    for number in [i for i, pool in enumerate(corpus.pools) if pool == "web"]:
        title, text = corpus.texts[number]
        sentences = [s for s in SENTENCE_END.split(text) if 6 <= len(s.split()) <= 40]
        if len(sentences) >= 3 and rng.random() < 0.4:
            sentence = rng.choice(sentences)
            rest = corpus.add("rest", corpus.groups[number], title, text.replace(sentence, " "))
            found.append(("sentence", "web", sentence, [rest]))
    return found


def without_answers(corpus, queries, states):
    """For each question, its first relevant passage without the sentence nearest to the question:
    on the subject, but probably without the answer. Returns passages by the question's position in
    `queries`."""
    spans, sentences = {}, []
    asked = [i for i, (name, _, _, _) in enumerate(queries) if name in QUESTIONS]
    for i in asked:
        number = min(queries[i][3])
        if number not in spans:
            found = SENTENCE_END.split(corpus.texts[number][1])
            spans[number] = (len(sentences), len(sentences) + len(found))
            sentences += found
    sentence_vectors, _ = states(sentences)
    query_vectors, _ = states([queries[i][2] for i in asked])
    added = {}
    for i, vector in zip(asked, query_vectors):
        number = min(queries[i][3])
        begin, end = spans[number]
        if end - begin >= 3:
            answer = begin + int(numpy.argmax(sentence_vectors[begin:end] @ vector))
            rest = " ".join(sentences[begin:answer] + sentences[answer + 1 : end])
            added[i] = corpus.add("rest", "", corpus.texts[number][0], rest)
    return added


class States:
    """Embeds texts as all-MiniLM-L6-v2 does: the mean of the last layer over at most 256 tokens,
    scaled to unit length. Optionally also returns unit vectors of the tokens, without the special
    ones."""

    def __init__(self, model, device, batch_tokens):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.network = AutoModel.from_pretrained(model, dtype=torch.float32).to(device).eval()
        self.device, self.batch_tokens = device, batch_tokens

    @torch.inference_mode()
    def __call__(self, texts, keep_tokens=False):
        ids = []
        # Tokenising in slices bounds the memory.
        for at in range(0, len(texts), 4096):
            ids += self.tokenizer(texts[at : at + 4096], truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = numpy.zeros((len(ids), self.network.config.hidden_size), numpy.float32)
        tokens = [None] * len(ids)
        at = 0
        while at < len(order):
            width = len(ids[order[at]])
            batch = order[at : at + max(1, self.batch_tokens // width)]
            at += len(batch)
            filled = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            for row, i in enumerate(batch):
                filled[row, : len(ids[i])] = torch.tensor(ids[i])
                mask[row, : len(ids[i])] = 1
            filled, mask = filled.to(self.device), mask.to(self.device)
            with torch.autocast(self.device, dtype=torch.bfloat16):
                states = self.network(input_ids=filled, attention_mask=mask).last_hidden_state
            states, wide = states.float(), mask.unsqueeze(-1).float()
            pooled = torch.nn.functional.normalize((states * wide).sum(1) / wide.sum(1), dim=1)
            vectors[batch] = pooled.cpu().numpy()
            if keep_tokens:
                states = torch.nn.functional.normalize(states, dim=2).half().cpu().numpy()
                for row, i in enumerate(batch):
                    tokens[i] = (numpy.array(ids[i][1:-1]), states[row, 1 : len(ids[i]) - 1].copy())
        return vectors, tokens


class Teacher:
    """Scores passages for a query, without any training."""

    def __init__(self, texts, tokens):
        self.words = [collections.Counter(WORD.findall(text.lower())) for text in texts]
        self.lengths = [sum(words.values()) for words in self.words]
        self.mean_length = sum(self.lengths) / len(self.lengths)
        self.frequency = collections.Counter(word for words in self.words for word in words)
        self.tokens = tokens
        self.token_frequency = collections.Counter(int(t) for ids, _ in tokens for t in numpy.unique(ids))

    def bm25(self, query, number, k1=0.9, b=0.4):
        words, n, total = self.words[number], len(self.words), 0.0
        norm = k1 * (1 - b + b * self.lengths[number] / self.mean_length)
        for word in set(WORD.findall(query.lower())):
            if word in words:
                df = self.frequency[word]
                total += math.log(1 + (n - df + 0.5) / (df + 0.5)) * words[word] * (k1 + 1) / (words[word] + norm)
        return total

    def late_interaction(self, query_tokens, numbers):
        ids, states = query_tokens
        rarity = [math.log(1 + len(self.tokens) / (1 + self.token_frequency[int(t)])) for t in ids]
        rarity = numpy.array(rarity, numpy.float32)
        parts = [self.tokens[number][1] for number in numbers]
        starts = numpy.cumsum([0] + [len(part) for part in parts[:-1]])
        likeness = states.astype(numpy.float32) @ numpy.concatenate(parts).astype(numpy.float32).T
        best = numpy.maximum.reduceat(likeness, starts, axis=1)
        return rarity @ best / rarity.sum()

    def __call__(self, query, query_tokens, numbers, cosines):
        if len(query_tokens[0]) == 0 or any(len(self.tokens[number][0]) == 0 for number in numbers):
            return standardised(cosines)
        lexical = [self.bm25(query, number) for number in numbers]
        scores = (cosines, lexical, self.late_interaction(query_tokens, numbers))
        return sum(weight * standardised(s) for weight, s in zip(TEACHER, scores))


def standardised(values):
    values = numpy.array(values, numpy.float64)
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else numpy.zeros_like(values)


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
    parser.add_argument("--papers", type=int, default=60000, help="a thousand take about 120 MB of memory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    corpus = Corpus()
    queries = questions(corpus, arguments.data)
    queries += papers(corpus, arguments.data, arguments.papers, rng)
    queries += web_sentences(corpus, rng)
    states = States(arguments.model, device, arguments.batch_tokens)
    unanswered = without_answers(corpus, queries, states)

    full = [f"{title} {text}".strip() for title, text in corpus.texts]
    documents, tokens = states(full, keep_tokens=True)
    asked, asked_tokens = states([q[2] for q in queries], keep_tokens=True)
    teacher = Teacher(full, tokens)

    # What a query is compared with: the passages of its own field.
    members = collections.defaultdict(list)
    for number, pool in enumerate(corpus.pools):
        members[pool].append(number)
    members = {pool: numpy.array(numbers) for pool, numbers in members.items()}
    vectors_of = {pool: documents[numbers] for pool, numbers in members.items()}

    train, valid = [], []
    for i, (name, pool, query, positives) in enumerate(queries):
        positives = sorted(set(positives))
        scores = vectors_of[pool] @ asked[i]
        best = numpy.argpartition(-scores, min(DEPTH + len(positives), len(scores) - 1))[: DEPTH + len(positives)]
        best = best[numpy.argsort(-scores[best], kind="stable")]
        ranked = [int(n) for n in members[pool][best]]
        groups = {corpus.groups[p] for p in positives}
        group = corpus.groups[positives[0]]
        if name == "sentence" and (in_validation("web", group) or in_validation("squad", group)):
            continue
        score = lambda numbers: (
            teacher(query, asked_tokens[i], numbers, documents[numbers] @ asked[i]).round(3).tolist()
        )
        entry = {"set": name, "query": query, "positives": positives}
        if in_validation(name, group):
            entry["candidates"] = ranked[:50]
            entry["scores"] = (documents[ranked[:50]] @ asked[i]).astype(float).round(4).tolist()
            entry["teacher"] = score(ranked[:50])
            valid.append(entry)
            continue
        likeness = (documents[ranked] @ documents[positives].T).max(axis=1)
        entry["candidates"] = [
            number
            for number, like in zip(ranked, likeness)
            if number not in positives
            and like < SAME_PASSAGE
            # Windows of one article overlap: the neighbours of the judged one may answer too.
            and not (name == "covid" and any(abs(number - p) <= 1 for p in positives))
            # Excludes the passage that the sentence was cut from.
            and not (name == "sentence" and corpus.groups[number] in groups)
        ]
        # All in one list, so that the standardized scores share one scale.
        extra = [unanswered[i]] if i in unanswered else []
        scored = score(positives + extra + entry["candidates"])
        entry["positive_teacher"] = scored[: len(positives)]
        entry["teacher"] = scored[len(positives) + len(extra) :]
        if extra:
            entry["unanswered"] = [extra[0], scored[len(positives)]]
        train.append(entry)

    # A passage that answers a validation question is no positive example in training.
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
