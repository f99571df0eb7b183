#!/bin/sh
# langchain-community 0.4.2, FAISS vector store: an add that is refused leaves its vectors behind.
#
# Guess: `add_texts` with an id that the store has raises ValueError and changes nothing, so that the
# store goes on as it was.
#
# Observed: it raises, but the vectors are in the FAISS index by then. They have no document, so that
# every document added later gets the position of the one before it: a search for "gamma" by its own
# vector (distance 0) finds nothing of that position and raises KeyError, and a search for the text
# that was refused returns "gamma".
#
#     ValueError
#     vectors 4 documents 3
#     alpha -> alpha
#     refused -> gamma
#     gamma -> KeyError
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    langchain-community==0.4.2 langchain-core==1.8.3 faiss-cpu==1.15.1 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
from langchain_community.vectorstores import FAISS
from langchain_core.embeddings import Embeddings

WORDS = ["alpha", "beta", "refused", "gamma"]


class OneHot(Embeddings):
    """A dimension for each word."""

    def embed_query(self, text):
        return [float(text == word) for word in WORDS]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


store = FAISS.from_texts(["alpha", "beta"], OneHot(), ids=["a", "b"])
try:
    store.add_texts(["refused"], ids=["b"])
except ValueError as error:
    print(type(error).__name__)
store.add_texts(["gamma"], ids=["c"])
print("vectors", store.index.ntotal, "documents", len(store.index_to_docstore_id))
for query in ("alpha", "refused", "gamma"):
    try:
        found = store.similarity_search(query, k=1)[0].page_content
    except KeyError as error:
        found = type(error).__name__
    print(query, "->", found)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
ValueError
vectors 4 documents 3
alpha -> alpha
refused -> gamma
gamma -> KeyError
TEXT
cmp "$folder/seen" "$folder/expected"
