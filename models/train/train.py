"""Trains the reranker: all-MiniLM-L6-v2's encoder as a cross-encoder with one output.

Every step takes a few queries, each with one relevant passage and several hard negatives, which the
retriever ranks high or which are judged wrong. The loss is the cross-entropy of the relevant passage
within its list, plus the Kullback-Leibler divergence from the softmax of the teacher's scores (see
prepare.py). The judgments name one passage per list; the teacher orders all of them. The saved weights are a
running average. Validation reranks the retriever's own lists.

Every `--save-every` steps the state of the run is written to `state.pt` in the output folder; the same command goes on
from there.
"""

import argparse
import collections
import gzip
import json
import math
import pathlib
import random
import time

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

# Relative shares of the sets from which queries come: 0.1 or more for every kind of question (medicine and encyclopedic
# passages have two sets each).
MIXTURE = {
    "web": 0.13, "squad": 0.1, "ares": 0.1, "boolq": 0.1, "short": 0.12, "leads": 0.07, "sentence": 0.03, "forum": 0.1,
    "code": 0.1, "covid": 0.05, "pubmed": 0.05, "scifact": 0.11, "arxiv": 0.14,
}
# The maximum share of passages that are judged wrong, or lack their answer, in a list.
WRONG_SHARE = 0.4


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Lists:
    """Draws training lists."""

    def __init__(self, folder, negatives, rng):
        self.texts = read(folder / "texts.jsonl.gz")
        self.negatives, self.rng = negatives, rng
        self.sets = collections.defaultdict(list)
        for entry in read(folder / "train.jsonl.gz"):
            self.sets[entry["set"]].append(entry)
        self.order = {name: [] for name in self.sets}
        self.names = [name for name in MIXTURE if name in self.sets]
        self.weights = [MIXTURE[name] for name in self.names]

    def passage(self, number):
        title, text = self.texts[number]
        # With and without titles, because indexes exist in both kinds.
        return f"{title} {text}" if title and self.rng.random() < 0.5 else text

    def next_of(self, name):
        if not self.order[name]:
            self.order[name] = list(range(len(self.sets[name])))
            self.rng.shuffle(self.order[name])
        return self.sets[name][self.order[name].pop()]

    def draw(self):
        """A query, its passages with the relevant one first, and the teacher's scores of them."""
        rng = self.rng
        entry = self.next_of(rng.choices(self.names, self.weights)[0])
        right = rng.randrange(len(entry["positives"]))
        chosen = [(entry["positives"][right], entry["positive_teacher"][right])]
        wrong = [tuple(pair) for pair in entry["wrong"]]
        chosen += rng.sample(wrong, min(len(wrong), int(self.negatives * WRONG_SHARE)))
        ranked = list(zip(entry["candidates"], entry["teacher"]))
        # Half of the others from the retriever's first ten, half from behind them.
        head, tail = ranked[:10], ranked[10:]
        n_others = self.negatives + 1 - len(chosen)
        n_head = min(len(head), math.ceil(n_others / 2))
        chosen += rng.sample(head, n_head) + rng.sample(tail, min(len(tail), n_others - n_head))
        while len(chosen) <= self.negatives:
            # An easy negative: a passage of another query of the set.
            other = rng.choice(rng.choice(self.sets[entry["set"]])["positives"])
            if other not in entry["positives"]:
                chosen.append((other, min(entry["teacher"] or [0.0]) - 1.0))
        query = entry["query"]
        if rng.random() < 0.3:
            query = query.rstrip("?. ")
        return query, [self.passage(number) for number, _ in chosen], [score for _, score in chosen]


class Scorer:
    """Computes the logits of pairs, in batches of similar length."""

    def __init__(self, model, tokenizer, device, max_tokens, piece):
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.max_tokens, self.piece = max_tokens, piece

    def __call__(self, pairs):
        encoded = self.tokenizer(
            [q for q, _ in pairs], [p for _, p in pairs], truncation="longest_first", max_length=self.max_tokens
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(pairs)), key=lambda i: lengths[i])
        logits = [None] * len(pairs)
        while order:
            piece, order = order[-self.piece :], order[: -self.piece]
            # Few different shapes, because a CPU compiles kernels for each.
            batch = self.tokenizer.pad(
                {key: [encoded[key][i] for i in piece] for key in ("input_ids", "token_type_ids", "attention_mask")},
                pad_to_multiple_of=16,
                return_tensors="pt",
            ).to(self.device)
            with torch.autocast(self.device, dtype=torch.bfloat16):
                out = self.model(**batch).logits[:, 0].float()
            for i, logit in zip(piece, out):
                logits[i] = logit
        return torch.stack(logits)


def ndcg(ranked, right, k=10):
    gain = sum(1 / math.log2(i + 2) for i, number in enumerate(ranked[:k]) if number in right)
    return gain / sum(1 / math.log2(i + 2) for i in range(min(k, len(right))))


def standardised(values):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return [(v - mean) / deviation if deviation > 0 else 0.0 for v in values]


@torch.inference_mode()
def validate(scorer, texts, entries, depth, weights):
    """Mean nDCG@10 over the retriever's first `depth` passages, by set and retriever weight."""
    scorer.model.eval()
    sums = collections.defaultdict(lambda: collections.defaultdict(float))
    for entry in entries:
        candidates = entry["candidates"][:depth]
        pairs = [(entry["query"], " ".join(t for t in texts[c] if t)) for c in candidates]
        ours = standardised(scorer(pairs).tolist())
        theirs = standardised(entry["scores"][:depth])
        right = set(entry["positives"])
        for weight in weights:
            mixed = [weight * t + (1 - weight) * o for t, o in zip(theirs, ours)]
            ranked = [c for _, c in sorted(zip(mixed, candidates), key=lambda x: -x[0])]
            sums[entry["set"]][weight] += ndcg(ranked, right)
        sums[entry["set"]]["n"] += 1
    scorer.model.train()
    table = {name: {w: s[w] / s["n"] for w in weights} for name, s in sums.items()}
    table["mean"] = {w: sum(t[w] for t in table.values()) / len(table) for w in weights}
    return table


def show(table):
    for name, row in table.items():
        print("   ", f"{name:9}", "  ".join(f"{w}: {v:.4f}" for w, v in row.items()), flush=True)


def opened(folder, attention):
    """A cross-encoder with the weights of an encoder, of a run of this script, or in int8 as export.py writes them."""
    config = BertConfig.from_pretrained(folder, num_labels=1, attn_implementation=attention)
    weights = load_file(folder / "model.safetensors")
    if not any(name.endswith(".scale") for name in weights):
        return BertForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
    model = BertForSequenceClassification(config)
    for name, value in model.state_dict().items():
        scale = weights.get(name + ".scale")
        value.copy_(weights[name].float() * (1.0 if scale is None else scale[:, None]))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lists", type=pathlib.Path, required=True, help="output folder of prepare.py")
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2, or of a reranker to go on from")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--queries", type=int, default=8, help="queries per step")
    parser.add_argument("--negatives", type=int, default=7, help="negatives per query")
    parser.add_argument("--max-tokens", type=int, default=176)
    parser.add_argument("--piece", type=int, default=16, help="pairs in one forward pass")
    parser.add_argument("--dropout", type=float, default=0.0, help="0.1 costs a third of a CPU's speed")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--teacher-loss", type=float, default=1.0, help="weight of the divergence from the teacher")
    parser.add_argument("--average", type=float, default=0.997, help="decay of the running average of the weights")
    parser.add_argument("--validate-every", type=int, default=1000, help="steps")
    parser.add_argument("--validate-queries", type=int, default=30, help="per set, while training")
    parser.add_argument("--save-every", type=int, default=100, help="steps")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    lists = Lists(arguments.lists, arguments.negatives, rng)
    valid = read(arguments.lists / "valid.jsonl.gz")
    rng.shuffle(valid)
    seen, sample = collections.Counter(), []
    for entry in valid:
        seen[entry["set"]] += 1
        if seen[entry["set"]] <= arguments.validate_queries:
            sample.append(entry)

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    # Unfused attention is faster for short texts on a CPU.
    attention = "sdpa" if device == "cuda" else "eager"
    model = opened(pathlib.Path(arguments.model), attention).to(device)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = arguments.dropout
    # Frozen, so that words outside the training data keep their position relative to the others.
    model.bert.embeddings.word_embeddings.weight.requires_grad = False
    scorer = Scorer(model, tokenizer, device, arguments.max_tokens, arguments.piece)
    trained = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in trained]
    decayed = [p for p in trained if p.dim() > 1]
    others = [p for p in trained if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=arguments.learning_rate,
        fused=device == "cuda",
    )

    def with_average(action):
        kept = [p.detach().clone() for p in trained]
        with torch.no_grad():
            for p, a in zip(trained, average):
                p.copy_(a)
        outcome = action()
        with torch.no_grad():
            for p, k in zip(trained, kept):
                p.copy_(k)
        return outcome

    for name in ("scores", "teacher"):
        means = validate_without(sample, name)
        print(f"{name}:", "  ".join(f"{s} {value:.4f}" for s, value in means.items()), flush=True)
    model.train()
    state, first_step = arguments.out / "state.pt", 1
    if state.exists():
        first_step = resume(state, arguments, model, optimizer, average, lists) + 1
        print(f"going on after step {first_step - 1}", flush=True)
    started, pairs_seen = time.monotonic(), 0
    recent = collections.deque(maxlen=50)
    for step in range(first_step, arguments.steps + 1):
        progress = step / arguments.steps
        rate = arguments.learning_rate * min(1.0, progress / 0.05, (1.0 - progress) / 0.95 + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = rate
        drawn = [lists.draw() for _ in range(arguments.queries)]
        logits = scorer([(query, passage) for query, passages, _ in drawn for passage in passages])
        logits = logits.view(arguments.queries, arguments.negatives + 1)
        log_p = torch.log_softmax(logits, dim=1)
        theirs = torch.softmax(torch.tensor([s for _, _, s in drawn], device=device), dim=1)
        divergence = (theirs * (theirs.clamp_min(1e-9).log() - log_p)).sum(1).mean()
        loss = -log_p[:, 0].mean() + arguments.teacher_loss * divergence
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        decay = min(arguments.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for p, a in zip(trained, average):
                a.lerp_(p, 1 - decay)
        pairs_seen += logits.numel()
        right_first = (logits.argmax(1) == 0).float().mean().item()
        recent.append((loss.item(), divergence.item(), right_first))
        if step % 50 == 0:
            mean = [sum(x) / len(recent) for x in zip(*recent)]
            spent = time.monotonic() - started
            print(
                f"step {step}, {spent / 60:.1f} min, {pairs_seen / spent:.1f} pairs/s: loss {mean[0]:.4f}, "
                f"divergence {mean[1]:.4f}, right first {mean[2]:.3f}",
                flush=True,
            )
        if step % arguments.save_every == 0:
            arguments.out.mkdir(parents=True, exist_ok=True)
            saved = {
                "step": step, "settings": settings(arguments), "model": model.state_dict(), "average": average,
                "optimizer": optimizer.state_dict(), "random": rng.getstate(), "order": lists.order,
            }
            torch.save(saved, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)
        if step % arguments.validate_every == 0 and step < arguments.steps:
            show(with_average(lambda: validate(scorer, lists.texts, sample, 30, [0.0, 0.3, 0.5])))
            with_average(lambda: save(model, tokenizer, arguments.out))

    with torch.no_grad():
        for p, a in zip(trained, average):
            p.copy_(a)
    save(model, tokenizer, arguments.out)
    print(f"{pairs_seen} pairs, {time.monotonic() - started:.0f} s in all", flush=True)
    show(validate(scorer, lists.texts, sample, 50, [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]))


def settings(arguments):
    """The arguments that a run must not change halfway."""
    names = ["lists", "model", "steps", "queries", "negatives", "max_tokens", "learning_rate", "teacher_loss", "average", "seed"]
    return {name: str(getattr(arguments, name)) for name in names}


def resume(path, arguments, model, optimizer, average, lists):
    """Puts a saved state back. Returns its step."""
    saved = torch.load(path, weights_only=False)
    for name, value in settings(arguments).items():
        if saved["settings"][name] != value:
            was = saved["settings"][name]
            raise SystemExit(f"{path} was made with {name} {was}, not {value}: use that, or another --out")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    lists.rng.setstate(saved["random"])
    lists.order = saved["order"]
    with torch.no_grad():
        for p, a in zip(average, saved["average"]):
            p.copy_(a)
    return saved["step"]


def validate_without(entries, scores):
    """Mean nDCG@10 of the candidates by scores in the lists (retriever or teacher), by set."""
    sums, n = collections.Counter(), collections.Counter()
    for entry in entries:
        ranked = [c for _, c in sorted(zip(entry[scores], entry["candidates"]), key=lambda x: -x[0])]
        sums[entry["set"]] += ndcg(ranked, set(entry["positives"]))
        n[entry["set"]] += 1
    return {name: sums[name] / n[name] for name in sums}


def save(model, tokenizer, folder):
    model.config.architectures = ["BertForSequenceClassification"]
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
