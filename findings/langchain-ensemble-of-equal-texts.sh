#!/bin/sh
# langchain-classic 1.0.8: EnsembleRetriever takes documents with equal texts for one document, whatever
# their ids and metadata.
#
# Guess: documents have ids, so two documents with different ids are two hits.
#
# Observed: without `id_key` the text is the identity. The second document is dropped, with its source,
# and its rank raises the score of the first one. `id_key` names a metadata field; the documents' own ids
# cannot be chosen.
#
#     id_key None: b (page 1) a (page 3)
#     id_key source: a (page 3) c (page 2) b (page 1)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    langchain-classic==1.0.8 langchain-core==1.8.3
cat > "$folder/run.py" <<'PYTHON'
from langchain_classic.retrievers import EnsembleRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class Fixed(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


dense = Fixed(documents=[
    Document(id="a", page_content="other", metadata={"source": "page 3"}),
    Document(id="b", page_content="same", metadata={"source": "page 1"}),
])
lexical = Fixed(documents=[Document(id="c", page_content="same", metadata={"source": "page 2"})])
for key in (None, "source"):
    ensemble = EnsembleRetriever(retrievers=[dense, lexical], weights=[0.5, 0.5], id_key=key)
    print(f"id_key {key}:", *(f"{d.id} ({d.metadata['source']})" for d in ensemble.invoke("query")))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
id_key None: b (page 1) a (page 3)
id_key source: a (page 3) c (page 2) b (page 1)
TEXT
cmp "$folder/seen" "$folder/expected"
