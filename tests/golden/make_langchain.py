"""Writes langchain/: FAISS vector stores as LangChain saves them, and what they hold.

    python make_langchain.py NAME [--out FOLDER]

Run by each of the versions that README.md lists, with the NAME that stands there. A store is
NAME-texts, NAME-changed or NAME-distances: index.faiss, index.pkl, and expected.jsonl, a line per
vector with its id, text, metadata and vector. The embedding is made of the text's hash.
"""

import argparse
import datetime as dt
import decimal
import hashlib
import inspect
import json
import math
import pathlib
import pickle
import uuid
from collections import OrderedDict, defaultdict

import numpy as np

try:
    from langchain_community.docstore.document import Document
    from langchain_community.vectorstores.faiss import FAISS
    from langchain_core.embeddings import Embeddings
except ImportError:
    from langchain.docstore.document import Document
    from langchain.embeddings.base import Embeddings
    from langchain.vectorstores.faiss import FAISS

try:
    from langchain_community.vectorstores.utils import DistanceStrategy
except ImportError:
    try:
        from langchain.vectorstores.utils import DistanceStrategy
    except ImportError:
        DistanceStrategy = None

DIM = 8


class HashEmbeddings(Embeddings):
    """Vectors of the length `scale` that depend on nothing but the text."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def embed_query(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        vector = np.random.RandomState(seed).standard_normal(DIM)
        return [float(v) for v in np.float32(vector / np.linalg.norm(vector) * self.scale)]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


UTC = dt.timezone.utc
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
KINDS = [
    {},
    {"z": 1, "a": -1, "m": 255, "big": 65536, "long": 2**53 + 1, "max": 2**64 - 1, "min": -(2**63)},
    {"beyond": 2**64, "below": -(2**63) - 1, "googol": 10**100},
    {"yes": True, "no": False, "none": None, "half": 0.5, "tiny": 5e-324, "minus_zero": -0.0},
    {"nan": math.nan, "infinities": [math.inf, -math.inf], "nan2": {"deep": [math.nan]}},
    {"naive": dt.datetime(2024, 2, 29, 23, 59, 58), "micro": dt.datetime(1, 1, 1, 0, 0, 0, 7)},
    {
        "utc": dt.datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC),
        "east": dt.datetime(9999, 12, 31, tzinfo=EAST),
    },
    {"fold": dt.datetime(2024, 10, 27, 2, 30, fold=1), "date": dt.date(1999, 12, 31)},
    {
        "time": dt.time(7, 8, 9),
        "time_tz": dt.time(23, 0, 0, 120000, EAST),
        "night": dt.time(1, fold=1),
    },
    {"short": dt.timedelta(seconds=90), "back": dt.timedelta(days=-1, microseconds=5)},
    {"none": dt.timedelta(0), "week": dt.timedelta(weeks=1, hours=2)},
    {
        "price": decimal.Decimal("19.90"),
        "exponent": decimal.Decimal("1E+3"),
        "nan": decimal.Decimal("NaN"),
    },
    {"uuid": uuid.UUID("12345678-9abc-def0-0123-456789abcdef"), "zero": uuid.UUID(int=0)},
    {
        "source": pathlib.PurePosixPath("/data//reports/./2024.pdf"),
        "file": pathlib.PurePosixPath("a/b"),
    },
    {
        "here": pathlib.PurePosixPath("."),
        "windows": pathlib.PureWindowsPath("C:/Users", "x", "y.txt"),
    },
    {"ordered": OrderedDict([("b", 1), ("a", 2)]), "default": defaultdict(list, {"k": [1]})},
    {"tuple": (), "pair": (1, "x"), "triple": (1, (2,), [3]), "four": (1, 2, 3, 4)},
    {"set": {3}, "frozen": frozenset(["only"]), "empty": set(), "list": [], "dict": {}},
    {"nested": {"a": [{"b": {"c": [1, [2, [3]]]}}]}, "numbers": {1: "one", 2: "two"}},
    {"float32": np.float32(0.1), "float64": np.float64(2.5), "float16": np.float16(0.25)},
    {
        "int64": np.int64(-7),
        "int8": np.int8(-8),
        "uint8": np.uint8(200),
        "uint64": np.uint64(2**63),
    },
    {"bool": np.bool_(True), "text": np.str_("Grüße"), "nan32": np.float32("nan")},
    {"ключ": "значение", "emoji": "🙂", 'quote"': "line\nbreak\ttab\0zero"},
    {"id": "shadow", "title": "A title", "text": "not the text", "page_content": "nor this"},
    {"page": 3, "source": "shared.pdf", "long_text": "word " * 60},
]


def texts(n):
    return [
        f"Passage {i}: {'été ' if i % 3 else 'naïve 漢字 🙂 '}{'x' * (i * 13)}" for i in range(n)
    ]


def iso_duration(value):
    micros = (value.days * 86400 + value.seconds) * 10**6 + value.microseconds
    sign, micros = "-" if micros < 0 else "", abs(micros)
    seconds, micros = divmod(micros, 10**6)
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    fraction = f"{micros / 10**6:.6f}"[1:].rstrip("0").rstrip(".") if micros else ""
    time = f"{hours}H" if hours else ""
    time += f"{minutes}M" if minutes else ""
    time += f"{seconds}{fraction}S" if seconds or fraction else ""
    date = f"{days}D" if days else ""
    if not date and not time:
        return "PT0S"
    return f"{sign}P{date}" + (f"T{time}" if time else "")


def expected(value):
    """The JSON value that stands for a value of metadata."""
    if isinstance(value, (np.float32, np.float16)):
        value = float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): expected(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [expected(item) for item in value]
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return iso_duration(value)
    if isinstance(value, decimal.Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, (uuid.UUID, pathlib.PurePath)):
        return str(value)
    raise TypeError(type(value))


def save(store, folder, index_name="index"):
    store.save_local(str(folder), **({} if index_name == "index" else {"index_name": index_name}))
    with open(folder / "expected.jsonl", "w", encoding="ascii") as out:
        for position in range(store.index.ntotal):
            id_ = store.index_to_docstore_id[position]
            document = store.docstore._dict[id_]
            vector = store.index.reconstruct(position).tolist()
            line = {
                "id": str(id_),
                "text": document.page_content,
                "metadata": expected(document.metadata),
                "vector": vector,
            }
            out.write(json.dumps(line) + "\n")


def strategy(name):
    return (
        {} if DistanceStrategy is None else {"distance_strategy": getattr(DistanceStrategy, name)}
    )


def with_ids(function, ids):
    """The argument `ids`, where a version has it."""
    takes = inspect.signature(function).parameters
    return {"ids": ids} if "ids" in takes else {}


def make_texts(folder):
    """All kinds of metadata, from texts; ids that LangChain makes; L2, unit vectors."""
    store = FAISS.from_texts(texts(len(KINDS)), HashEmbeddings(), metadatas=KINDS)
    save(store, folder)
    return store


def make_changed(folder):
    """From documents, with ids; texts, vectors and a store added; documents deleted."""
    documents = [
        Document(page_content=text, metadata={"n": i, "source": "shared.pdf", "tags": ["a", "b"]})
        for i, text in enumerate(texts(6))
    ]
    kwargs = {**strategy("MAX_INNER_PRODUCT")}
    if hasattr(FAISS, "delete"):
        kwargs["ids"] = [f"doc-{i}" for i in range(6)]
    store = FAISS.from_documents(documents, HashEmbeddings(), **kwargs)
    more = [f"added {i}" for i in range(3)]
    shared = {"source": "the same object"}
    store.add_texts(more, [shared] * 3, **with_ids(store.add_texts, ["x 0", "x/1", "ü2"]))
    if hasattr(store, "add_embeddings"):
        pairs = [(text, HashEmbeddings().embed_query(text)) for text in ("vector a", "vector b")]
        store.add_embeddings(pairs, [{"from": "a vector"}, {}])
    if hasattr(store, "merge_from"):
        other = FAISS.from_texts(
            ["merged 0", "merged 1"], HashEmbeddings(), **strategy("MAX_INNER_PRODUCT")
        )
        store.merge_from(other)
    if hasattr(store, "delete"):
        store.delete(["doc-1", "doc-5", store.index_to_docstore_id[7]])
    # A document that no position names, as a failed change leaves it behind.
    store.docstore.add({"orphan": Document(page_content="left behind")})
    save(store, folder)
    return store


def make_distances(folder):
    """L2 distances of vectors that are not of unit length, under another name of the index."""
    store = FAISS.from_texts(texts(3), HashEmbeddings(scale=2.0))
    save(store, folder, "papers")


def make_normalized(folder):
    """Vectors of another length that LangChain scales itself."""
    store = FAISS.from_texts(texts(3), HashEmbeddings(scale=2.0), normalize_L2=True)
    save(store, folder)


def make_protocols(folder):
    """One store in all protocols of pickle: p0.pkl to p5.pkl."""
    store = FAISS.from_texts(texts(len(KINDS)), HashEmbeddings(), metadatas=KINDS)
    save(store, folder)
    for protocol in range(6):
        with open(folder / f"p{protocol}.pkl", "wb") as out:
            pickle.dump((store.docstore, store.index_to_docstore_id), out, protocol=protocol)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "langchain"
    )
    args = parser.parse_args()
    makers = [make_texts, make_changed]
    if args.name == "current":
        makers += [make_distances, make_normalized, make_protocols]
    for make in makers:
        folder = args.out / f"{args.name}-{make.__name__[5:]}"
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)


if __name__ == "__main__":
    main()
