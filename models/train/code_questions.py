"""Makes a collection of questions about code: the first sentence of a function's documentation, and the function
without it. Writes BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`); every passage names its package,
version, file and licence.

The packages are wheels of permissive licences, downloaded with pip. None of the packages of HELD_OUT is read: their
functions are for evaluation.
"""

import argparse
import ast
import collections
import json
import pathlib
import random
import subprocess
import textwrap
import zipfile

# Package, version, licence.
PACKAGES = [
    ("django", "5.2.8", "BSD-3-Clause"),
    ("sqlalchemy", "2.0.44", "MIT"),
    ("twisted", "25.5.0", "MIT"),
    ("astropy", "7.1.1", "BSD-3-Clause"),
    ("dask", "2025.11.0", "BSD-3-Clause"),
    ("xarray", "2025.10.1", "Apache-2.0"),
    ("statsmodels", "0.14.5", "BSD-3-Clause"),
    ("bokeh", "3.8.1", "BSD-3-Clause"),
    ("celery", "5.5.3", "BSD-3-Clause"),
    ("scrapy", "2.13.3", "BSD-3-Clause"),
    ("trio", "0.32.0", "MIT"),
    ("sphinx", "8.2.3", "BSD-2-Clause"),
    ("ipython", "9.6.0", "BSD-3-Clause"),
    ("werkzeug", "3.1.3", "BSD-3-Clause"),
    ("pydantic", "2.12.4", "MIT"),
    ("scikit-image", "0.25.2", "BSD-3-Clause"),
    ("shapely", "2.1.2", "BSD-3-Clause"),
]
HELD_OUT = {
    "numpy", "pandas", "networkx", "requests", "joblib", "nltk", "jinja2", "nbformat", "rich", "tornado", "aiohttp",
    "scipy", "scikit-learn", "sympy",
}
# At most so many functions of one package.
MOST = 600


def functions(source):
    """First sentences of the documentation of the functions in `source`, and the functions without it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or len(node.body) < 3:
            continue
        documentation = ast.get_docstring(node)
        if not documentation:
            continue
        first = documentation.strip().split("\n\n")[0].replace("\n", " ").split(". ")[0].strip()
        if not 4 <= len(first.split()) <= 30 or "(" in first[:30] or "deprecated" in first.lower():
            continue
        signature = lines[node.lineno - 1 : node.body[0].lineno - 1]
        body = lines[node.body[0].end_lineno : node.end_lineno]
        if 4 <= len(body) <= 60:
            yield first.rstrip("."), textwrap.dedent("\n".join(signature + body))[:1600]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wheels", type=pathlib.Path, required=True, help="folder for the downloads")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(1)
    arguments.wheels.mkdir(parents=True, exist_ok=True)
    found, seen = [], set()
    for package, version, licence in PACKAGES:
        assert package not in HELD_OUT
        command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"{package}=={version}"]
        subprocess.run([*command, "--dest", arguments.wheels], check=True)
        name = package.replace("-", "_").lower()
        wheel = next(w for w in arguments.wheels.glob("*.whl") if w.name.lower().startswith(f"{name}-{version}-"))
        here = []
        with zipfile.ZipFile(wheel) as archive:
            for path in sorted(archive.namelist()):
                if not path.endswith(".py") or "test" in path:
                    continue
                source = archive.read(path).decode("utf-8", "replace")
                for first, text in functions(source):
                    if first.lower() not in seen:
                        seen.add(first.lower())
                        here.append((first, text, f"{package} {version}, {path}", licence))
        rng.shuffle(here)
        found += here[:MOST]
    (arguments.out / "qrels").mkdir(parents=True, exist_ok=True)
    counts = collections.Counter(source.split()[0] for _, _, source, _ in found)
    with (
        open(arguments.out / "corpus.jsonl", "w", encoding="utf-8") as corpus,
        open(arguments.out / "queries.jsonl", "w", encoding="utf-8") as queries,
        open(arguments.out / "qrels" / "test.tsv", "w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for i, (first, text, source, licence) in enumerate(found):
            record = {"_id": f"f{i}", "title": "", "text": text, "source": source, "licence": licence}
            corpus.write(json.dumps(record, ensure_ascii=False) + "\n")
            queries.write(json.dumps({"_id": f"q{i}", "text": first}, ensure_ascii=False) + "\n")
            qrels.write(f"q{i}\tf{i}\t1\n")
    print(", ".join(f"{package} {n}" for package, n in counts.items()))


if __name__ == "__main__":
    main()
