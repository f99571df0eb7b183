"""Makes the training lists of the reranker: queries with relevant passages and hard negatives.

Reads judged questions, papers and functions, and splits them into training and validation. Mines the
nearest passages of every query with all-MiniLM-L6-v2, the retriever whose lists the reranker will see.
Removes passages that are probably relevant although nobody judged them. Scores the rest by a
teacher. Writes

    texts.jsonl.gz    one line per passage: [title, text]
    train.jsonl.gz    one line per query: {set, query, positives, positive_teacher, candidates,
                      teacher}, and {wrong: [[passage, teacher], ...]} for passages that are known to be
                      wrong: judged so, or the relevant passage without the sentence nearest to the question
    valid.jsonl.gz    one line per query: {set, query, positives, candidates, scores, teacher};
                      candidates and scores are the retriever's own list

Passages are named by their line number. The splits share no passage that answers a question.
SciFact's test queries, TREC DL, SelQA and the packages that code_questions.py holds out are never read.

The teacher is the sum of up to four scores: the retriever's cosine, BM25 (k1 0.9, b 0.4), the inner product of
learned sparse vectors (Formal et al., "SPLADE v2", 2021) if `--sparse` names such a model, and the cosine of another
embedding model, if `--dense` names one. Their weights are fitted for every set, by the listwise cross-entropy of the
relevant passages of its training queries.
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
import warpseek
from transformers import AutoTokenizer, BertForMaskedLM

# Shares of the queries kept for validation.
VALID_SHARE = {
    "web": 0.1, "squad": 0.06, "covid": 0.12, "pubmed": 0.1, "scifact": 0.12, "arxiv": 0.04, "ares": 0.04,
    "boolq": 0.05, "short": 0.03, "leads": 0.03, "forum": 0.1, "code": 0.03,
}
# Nearest passages that are mined per query.
DEPTH = 50
# Cosine from which a passage counts as a copy of a relevant one, or as relevant as well.
SAME_PASSAGE = 0.93
# Share of the papers that are cut to a few neighbouring sentences, and the range of their words.
CUT_SHARE, CUT_WORDS = 0.7, (30, 110)

WORD = re.compile(r"[a-z0-9]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# The sets whose queries one sentence of the passage answers.
QUESTIONS = {"web", "squad", "covid", "ares", "boolq"}


class Corpus:
    """All passages, each with its pool (passages that are mined together) and its group (passages
    that a split keeps together)."""

    def __init__(self):
        self.texts, self.pools, self.groups = [], [], []

    def add(self, pool, group, title, text):
        self.texts.append([title, text])
        self.pools.append(pool)
        self.groups.append(group)
        return len(self.texts) - 1


def read_jsonl(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judged(folder, qrels):
    """Documents, queries, relevant documents and wrong ones of a collection in BEIR's layout."""
    documents = {d["_id"]: d for d in read_jsonl(folder / "corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl")}
    right, wrong = {}, {}
    with open(folder / "qrels" / qrels, encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            judged_as = right if int(row["score"]) > 0 else wrong
            judged_as.setdefault(row["query-id"], []).append(row["corpus-id"])
    return documents, queries, right, wrong


def normalised(question):
    return " ".join(WORD.findall(question.lower()))


def questions(corpus, data):
    """Questions, claims and titles: (set, pool, query, relevant passages, wrong passages)."""
    found, known = {}, {}
    title = lambda d: d.get("title", "")
    sources = [
        # folder, qrels, set, pool, group of a passage
        ("train/nq-open-oracle", "test.tsv", "web", "web", lambda d: "nq " + title(d)),
        ("train/qed-nq", "test.tsv", "web", "web", lambda d: "nq " + title(d)),
        ("train/xquad-en", "test.tsv", "squad", "web", lambda d: "squad " + title(d)),
        ("train/squad2-dev", "test.tsv", "squad", "web", lambda d: "squad " + title(d)),
        ("train/ares-wikipedia", "test.tsv", "ares", "web", lambda d: "ares " + d["_id"]),
        ("train/boolq-dev", "test.tsv", "boolq", "web", lambda d: "boolq " + d["_id"]),
        ("train/squad-sentences", "test.tsv", "short", "short", lambda d: "short " + d["_id"]),
        ("train/stackexchange-small", "test.tsv", "forum", "forum", lambda d: "forum " + d["_id"]),
        ("train/code", "test.tsv", "code", "code", lambda d: "code " + d["_id"]),
        ("train/covid-qa", "test.tsv", "covid", "covid", lambda d: "covid " + d["_id"].split("p")[0]),
        ("train/pubmedqa-labeled", "test.tsv", "pubmed", "pubmed", lambda d: "pubmed " + d["_id"]),
        ("scifact", "train.tsv", "scifact", "scifact", lambda d: "scifact " + d["_id"]),
    ]
    for folder, qrels, name, pool, group in sources:
        documents, queries, right, wrong = judged(data / folder, qrels)
        numbers = {}
        for key, d in documents.items():
            # Collections share passages: SQuAD's are in two of them.
            words = (pool, normalised(d["text"])[:300])
            if words not in known:
                text = d["text"] if name == "code" else " ".join(d["text"].split())
                known[words] = corpus.add(pool, group(d), title(d).replace("_", " "), text)
            numbers[key] = known[words]
        for key in right.keys() | wrong.keys():
            # A question that is in two collections has relevant passages in both.
            query = queries[key].strip()
            entry = found.setdefault((pool, normalised(query)), (name, pool, query, [], []))
            entry[3].extend(numbers[k] for k in right.get(key, []))
            entry[4].extend(numbers[k] for k in wrong.get(key, []))
    # SQuAD's unanswerable questions have no relevant passage, so no list.
    return [entry for _, entry in sorted(found.items()) if entry[3]]


TITLE_FORMS = [
    "what is {}", "define {}", "{}", "{} meaning", "what does {} refer to", "{} explained", "who or what is {}?",
    "tell me about {}", "{} definition", "why is {} important",
]


def leads(corpus, data, rng):
    """Definitions asked for by title; the title is hidden in some of the passages."""
    found = []
    for d in read_jsonl(data / "train" / "wikipedia-leads" / "corpus.jsonl"):
        title = re.sub(r"\s*\(.*\)", "", d["title"])
        text = " ".join(SENTENCE_END.split(d["text"])[: rng.choice([1, 2, 5])])
        if rng.random() < 0.2:
            text = re.sub(re.escape(title), "it", text, flags=re.I)
        number = corpus.add("web", "leads " + d["_id"], "", text)
        if len(text) > 60:
            asked = title[0].lower() + title[1:] if rng.random() < 0.5 else title
            found.append(("leads", "web", rng.choice(TITLE_FORMS).format(asked), [number], []))
    return found


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
    if style == "long":
        # 60 to 200 tokens, as when a paragraph is searched for.
        return " ".join((paper.get(part) or "").strip() for part in ("method", "tldr", "result")).strip(), text
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
    styles = ["tldr", "method", "result", "title", "question", "keywords", "sentence", "long", "long"]
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
            found.append(("arxiv", "arxiv", query, [number], []))
    return found


def web_sentences(corpus, rng):
    """Sentences of encyclopedic passages as queries for the rest of their passage."""
    found = []
    for number in [i for i, pool in enumerate(corpus.pools) if pool == "web"]:
        title, text = corpus.texts[number]
        sentences = [s for s in SENTENCE_END.split(text) if 6 <= len(s.split()) <= 40]
        if len(sentences) >= 3 and rng.random() < 0.15:
            sentence = rng.choice(sentences)
            rest = corpus.add("rest", corpus.groups[number], title, text.replace(sentence, " "))
            found.append(("sentence", "web", sentence, [rest], []))
    return found


def without_answers(corpus, queries, embed):
    """For each question, its first relevant passage without the sentence nearest to the question:
    on the subject, but probably without the answer. Returns passages by the question's position in
    `queries`."""
    spans, sentences = {}, []
    asked = [i for i, query in enumerate(queries) if query[0] in QUESTIONS]
    for i in asked:
        number = min(queries[i][3])
        if number not in spans:
            found = SENTENCE_END.split(corpus.texts[number][1])
            spans[number] = (len(sentences), len(sentences) + len(found))
            sentences += found
    sentence_vectors = embed(sentences)
    query_vectors = embed([queries[i][2] for i in asked])
    added = {}
    for i, vector in zip(asked, query_vectors):
        number = min(queries[i][3])
        begin, end = spans[number]
        if end - begin >= 3:
            answer = begin + int(numpy.argmax(sentence_vectors[begin:end] @ vector))
            rest = " ".join(sentences[begin:answer] + sentences[answer + 1 : end])
            added[i] = corpus.add("rest", "", corpus.texts[number][0], rest)
    return added


def batches(tokenizer, texts, batch_tokens, device):
    """Texts of similar length together: their numbers, token ids and masks."""
    ids = []
    # Tokenizing in slices bounds the memory.
    for at in range(0, len(texts), 4096):
        ids += tokenizer(texts[at : at + 4096], truncation=True, max_length=256)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    at = 0
    while at < len(order):
        width = len(ids[order[at]])
        batch = order[at : at + max(1, batch_tokens // width)]
        at += len(batch)
        filled = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, i in enumerate(batch):
            filled[row, : len(ids[i])] = torch.tensor(ids[i])
            mask[row, : len(ids[i])] = 1
        yield batch, filled.to(device), mask.to(device)


class Sparse:
    """Inner products of learned sparse vectors: the largest log(1 + relu(logit)) of every word of the vocabulary
    over the tokens of a text. Of passages only the states before the last product are kept, because a query has few words."""

    def __init__(self, model, device, batch_tokens):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.network = BertForMaskedLM.from_pretrained(model).to(device).eval()
        self.device, self.batch_tokens = device, batch_tokens
        self.words = self.network.get_input_embeddings().weight
        self.bias = self.network.cls.predictions.bias

    @torch.inference_mode()
    def states(self, texts):
        found = [None] * len(texts)
        for numbers, filled, mask in batches(self.tokenizer, texts, self.batch_tokens, self.device):
            hidden = self.network.bert(input_ids=filled, attention_mask=mask).last_hidden_state
            hidden = self.network.cls.predictions.transform(hidden)
            for row, i in enumerate(numbers):
                found[i] = hidden[row, : int(mask[row].sum())].half().cpu()
        return found

    @torch.inference_mode()
    def scores(self, query, passages):
        """Scores of passages, by their states and the query's."""
        logits = query.float().to(self.device) @ self.words.T + self.bias
        weights = torch.log1p(torch.relu(logits.amax(0)))
        terms = weights.nonzero()[:, 0]
        lengths = [len(p) for p in passages]
        joined = torch.cat(passages).float().to(self.device) @ self.words[terms].T + self.bias[terms]
        best = torch.stack([part.amax(0) for part in joined.split(lengths)])
        return (torch.log1p(torch.relu(best)) @ weights[terms]).cpu().numpy()


class Bm25:
    """BM25 over all passages."""

    def __init__(self, texts):
        self.words = [collections.Counter(WORD.findall(text.lower())) for text in texts]
        self.lengths = [sum(words.values()) for words in self.words]
        self.mean_length = sum(self.lengths) / len(self.lengths)
        self.frequency = collections.Counter(word for words in self.words for word in words)

    def __call__(self, query, number, k1=0.9, b=0.4):
        words, n, total = self.words[number], len(self.words), 0.0
        norm = k1 * (1 - b + b * self.lengths[number] / self.mean_length)
        for word in set(WORD.findall(query.lower())):
            if word in words:
                df = self.frequency[word]
                total += math.log(1 + (n - df + 0.5) / (df + 0.5)) * words[word] * (k1 + 1) / (words[word] + norm)
        return total


def fitted(lists):
    """Weights of the signals by which the first passage of each list is most probable (softmax over the list)."""
    width, n_signals = max(len(signals) for signals in lists), len(lists[0][0])
    padded = torch.zeros((len(lists), width, n_signals), dtype=torch.float64)
    outside = torch.ones((len(lists), width), dtype=torch.bool)
    for i, signals in enumerate(lists):
        padded[i, : len(signals)] = torch.tensor(signals)
        outside[i, : len(signals)] = False
    scale = padded[~outside].std(0).clamp_min(1e-9)
    weights = torch.full((n_signals,), 1.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def loss():
        optimizer.zero_grad()
        scores = (padded / scale @ weights).masked_fill(outside, -1e9)
        value = -torch.log_softmax(scores, dim=1)[:, 0].mean() + 1e-3 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    # A signal against which the labels speak is left out.
    return (weights.detach().clamp_min(0) / scale).numpy()


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
    parser.add_argument("--sparse", help="folder of a learned sparse model (BertForMaskedLM) for the teacher")
    parser.add_argument("--dense", help="folder or name of another embedding model for the teacher")
    parser.add_argument("--papers", type=int, default=60000)
    parser.add_argument("--most", type=int, default=20000, help="queries of a set, at most")
    parser.add_argument("--queries", type=int, help="queries of all sets, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    corpus = Corpus()
    queries = questions(corpus, arguments.data)
    queries += leads(corpus, arguments.data, rng)
    queries += papers(corpus, arguments.data, arguments.papers, rng)
    queries += web_sentences(corpus, rng)
    rng.shuffle(queries)
    kept = collections.Counter()
    queries = [q for q in queries if kept.update([q[0]]) or kept[q[0]] <= arguments.most]
    queries = queries[: arguments.queries]
    embed = warpseek.Embedder(arguments.model).encode
    unanswered = without_answers(corpus, queries, embed)

    full = [f"{title} {text}".strip() for title, text in corpus.texts]
    documents = embed(full)
    asked = embed([q[2] for q in queries])
    print(f"{len(full)} passages, {len(queries)} queries", flush=True)
    if arguments.dense:
        embed_otherwise = warpseek.Embedder(arguments.dense).encode
        other_documents, other_asked = embed_otherwise(full), embed_otherwise([q[2] for q in queries])
    bm25 = Bm25(full)
    if arguments.sparse:
        sparse = Sparse(arguments.sparse, device, arguments.batch_tokens)
        sparse_documents, sparse_asked = sparse.states(full), sparse.states([q[2] for q in queries])

    def signals(i, numbers):
        """Cosine, BM25, sparse score and other cosine of passages for query `i`."""
        query = queries[i][2]
        found = numpy.zeros((len(numbers), 4))
        found[:, 0] = documents[numbers] @ asked[i]
        found[:, 1] = [bm25(query, number) for number in numbers]
        if arguments.sparse:
            found[:, 2] = sparse.scores(sparse_asked[i], [sparse_documents[n] for n in numbers])
        if arguments.dense:
            found[:, 3] = other_documents[numbers] @ other_asked[i]
        return found

    # A query is compared with the passages of its own field.
    members = collections.defaultdict(list)
    for number, pool in enumerate(corpus.pools):
        members[pool].append(number)
    members = {pool: numpy.array(numbers) for pool, numbers in members.items()}
    vectors_of = {pool: documents[numbers] for pool, numbers in members.items()}

    train, valid = [], []
    for i, (name, pool, query, positives, wrong) in enumerate(queries):
        positives = sorted(set(positives))
        scores = vectors_of[pool] @ asked[i]
        most = min(DEPTH + len(positives), len(scores) - 1)
        best = numpy.argpartition(-scores, most)[:most]
        best = best[numpy.argsort(-scores[best], kind="stable")]
        ranked = [int(n) for n in members[pool][best]]
        groups = {corpus.groups[p] for p in positives}
        group = corpus.groups[positives[0]]
        if name == "sentence" and any(in_validation(s, group) for s in ("web", "squad", "ares", "boolq", "leads")):
            continue
        entry = {"set": name, "query": query, "positives": positives}
        if in_validation(name, group):
            entry["candidates"] = ranked
            entry["scores"] = (documents[ranked] @ asked[i]).astype(float).round(4).tolist()
            entry["signals"] = signals(i, ranked)
            valid.append(entry)
            continue
        likeness = (documents[ranked] @ documents[positives].T).max(axis=1)
        wrong = sorted(set(wrong) - set(positives))[:8] + ([unanswered[i]] if i in unanswered else [])
        entry["candidates"] = [
            number
            for number, like in zip(ranked, likeness)
            if number not in positives
            and number not in wrong
            and like < SAME_PASSAGE
            # Windows of one article overlap: the neighbours of the judged one may answer too.
            and not (name == "covid" and any(abs(number - p) <= 1 for p in positives))
            # Excludes the passage that the sentence was cut from.
            and not (name == "sentence" and corpus.groups[number] in groups)
        ]
        entry["wrong"] = wrong
        entry["signals"] = signals(i, positives + wrong + entry["candidates"])
        train.append(entry)

    # A passage that answers a validation question is no positive example in training.
    held = {p for entry in valid for p in entry["positives"]}
    train = [entry for entry in train if not held & set(entry["positives"])]
    for name in sorted({entry["set"] for entry in train}):
        here = [entry for entry in train if entry["set"] == name]
        # The first relevant passage, and the passages that are not relevant.
        weights = fitted([[e["signals"][0], *e["signals"][len(e["positives"]) :]] for e in here[:1500]])
        ours = [entry for entry in valid if entry["set"] == name]
        print(f"{name}: {len(here)} for training, {len(ours)} for validation; weights", weights.round(3).tolist())
        for entry in here + ours:
            scored = (entry.pop("signals") @ weights).round(3).tolist()
            if "scores" in entry:
                entry["teacher"] = scored
                continue
            n, m = len(entry["positives"]), len(entry["wrong"])
            entry["positive_teacher"] = scored[:n]
            entry["wrong"] = list(zip(entry["wrong"], scored[n : n + m]))
            entry["teacher"] = scored[n + m :]
    valid = [entry for entry in valid if "signals" not in entry]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "texts.jsonl.gz", corpus.texts)
    write(arguments.out / "train.jsonl.gz", train)
    write(arguments.out / "valid.jsonl.gz", valid)


if __name__ == "__main__":
    main()
