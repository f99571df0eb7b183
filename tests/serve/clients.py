"""Python clients against a running server: `clients.py URL`.

Their results must equal those of the program itself, which WARPSEEK names.
"""

import base64
import json
import os
import subprocess
import sys

import cohere
import infinity_client
import numpy
import ollama
import openai
from huggingface_hub import InferenceClient
from infinity_client.api.default import embeddings as infinity_embeddings
from infinity_client.api.default import rerank as infinity_rerank
from infinity_client.models import OpenAIEmbeddingInputText, RerankInput
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_openai import OpenAIEmbeddings
from rerankers import Reranker

base = sys.argv[1]
texts = ["The tide comes in twice a day.", "Bread rises because yeast makes gas.", "Ünïcödé 😀 and more"]
question = "why does bread rise?"


def warpseek(*arguments, stdin=None):
    run = subprocess.run([os.environ["WARPSEEK"], *arguments], input=stdin, capture_output=True, text=True, check=True)
    return run.stdout


vectors = [json.loads(line)["vector"] for line in warpseek("embed", stdin="\n".join(texts)).splitlines()]
ranking = [(r["index"], r["rerank_score"]) for r in json.loads(warpseek("rerank", question, *texts, "--json"))["results"]]


def same_vectors(found, expected=vectors):
    assert numpy.array(found).shape == numpy.array(expected).shape, numpy.array(found).shape
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def same_ranking(found):
    assert [i for i, _ in found] == [i for i, _ in ranking][: len(found)], (found, ranking)
    numpy.testing.assert_allclose([s for _, s in found], [s for _, s in ranking][: len(found)], rtol=0, atol=2e-6)


client = openai.OpenAI(base_url=f"{base}/v1", api_key="x")
for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
    reply = client.embeddings.create(input=texts, model="text-embedding-3-small", **form)
    found = [d.embedding for d in reply.data]
    if form.get("encoding_format") == "base64":
        found = [numpy.frombuffer(base64.b64decode(v), "<f4") if isinstance(v, str) else v for v in found]
    same_vectors(found)
assert reply.usage.total_tokens > 0 and len(client.models.list().data) == 2
try:
    client.embeddings.create(input=texts, model="m", dimensions=7)
    raise AssertionError("7 dimensions were given")
except openai.BadRequestError as error:
    assert error.param == "dimensions", error

same_vectors(OpenAIEmbeddings(base_url=f"{base}/v1", api_key="x", check_embedding_ctx_length=False).embed_documents(texts))
try:
    OpenAIEmbeddings(base_url=f"{base}/v1", api_key="x").embed_documents(texts)
    raise AssertionError("foreign token ids were embedded")
except openai.BadRequestError as error:
    assert "check_embedding_ctx_length=False" in str(error), error
except OSError:
    # Without a network the client cannot load the foreign vocabulary itself.
    pass

reply = cohere.ClientV2("k", base_url=base).rerank(model="rerank-v3.5", query=question, documents=texts)
same_ranking([(r.index, r.relevance_score) for r in reply.results])
reply = cohere.Client("k", base_url=base).rerank(model="rerank-v3.5", query=question, documents=texts, top_n=2)
same_ranking([(r.index, r.relevance_score) for r in reply.results])
compressor = CohereRerank(base_url=base, cohere_api_key="k", model="rerank-v3.5", top_n=3)
same_ranking([(r["index"], r["relevance_score"]) for r in compressor.rerank(texts, question)])

client = cohere.ClientV2("k", base_url=base)
types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
reply = client.embed(model="embed-v4.0", texts=texts, input_type="search_document", embedding_types=types)
floats = numpy.array(reply.embeddings.float_, dtype=numpy.float32)
same_vectors(floats)
assert reply.texts == texts and reply.meta.billed_units.input_tokens > 0, reply
bits = numpy.packbits(floats > 0, axis=1)
assert (numpy.array(reply.embeddings.ubinary) == bits).all() and (numpy.array(reply.embeddings.binary) == bits.view(numpy.int8)).all()
small = numpy.array(reply.embeddings.int8)
numpy.testing.assert_allclose(small / numpy.linalg.norm(small, axis=1, keepdims=True), floats, rtol=0, atol=0.004)
assert (numpy.array(reply.embeddings.uint8) - 128 == small).all()
same_vectors([numpy.frombuffer(base64.b64decode(text), "<f4") for text in reply.embeddings.base64])
asked = json.loads(warpseek("embed", "--role", "query", stdin=question))["vector"]
parts = [{"content": [{"type": "text", "text": question}]}]
reply = client.embed(model="embed-v4.0", inputs=parts, input_type="search_query", output_dimension=len(asked), truncate="NONE")
same_vectors(reply.embeddings.float_, [asked])
first = cohere.Client("k", base_url=base)
# More texts than the client sends at a time.
many = first.embed(model="embed-v4.0", texts=texts * 40, input_type="search_document")
same_vectors(many.embeddings, vectors * 40)
assert len(first.embed(model="embed-v4.0", texts=texts, input_type="clustering", embedding_types=["int8"]).embeddings.int8) == len(texts)
try:
    client.embed(model="embed-v4.0", images=["data:image/png;base64,AAAA"], input_type="image")
    raise AssertionError("an image was embedded")
except cohere.BadRequestError as error:
    assert "image" in error.body["message"], error
langchain = CohereEmbeddings(base_url=base, cohere_api_key="k", model="embed-v4.0")
same_vectors(langchain.embed_documents(texts))
same_vectors([langchain.embed_query(question)], [asked])

hub = InferenceClient()
for address in (base, f"{base}/"):
    same_vectors([numpy.squeeze(hub.feature_extraction(text, model=address)) for text in texts])
same_vectors([numpy.squeeze(hub.feature_extraction(question, model=base, prompt_name="query", normalize=True, truncate=True))], [asked])
alike = hub.sentence_similarity(texts[0], other_sentences=texts, model=base)
numpy.testing.assert_allclose(alike, numpy.array(vectors) @ vectors[0], rtol=0, atol=1e-5)
same_vectors([numpy.squeeze(hub.feature_extraction(text, model=f"{base}/embed")) for text in texts])

local = ollama.Client(base)
(model,) = local.list().models
same_vectors(local.embed(model.model, texts, options={"num_ctx": 256}).embeddings)
same_vectors([local.embeddings("nomic-embed-text", texts[0]).embedding], vectors[:1])
shown = local.show(model.model)
assert shown.capabilities == ["embedding"] and shown.modelinfo["bert.embedding_length"] == len(vectors[0]), shown
for call, status, part in [
    (lambda: local.embed("any", texts, dimensions=7), 400, "`dimensions`"),
    (lambda: local.show("llama3"), 404, "llama3"),
    (lambda: local.generate("any", "hello"), 404, "no such route"),
]:
    try:
        call()
        raise AssertionError(f"no error about {part}")
    except ollama.ResponseError as error:
        assert error.status_code == status and part in error.error and "{" not in error.error, error

infinity = infinity_client.Client(base)
found = infinity_embeddings.sync(client=infinity, body=OpenAIEmbeddingInputText(input_=texts, model="any"))
same_vectors([row.embedding for row in found.data])
found = infinity_rerank.sync(client=infinity, body=RerankInput(query=question, documents=texts, return_documents=True))
same_ranking([(r.index, r.relevance_score) for r in found.results])
assert [r.document for r in found.results] == [texts[i] for i, _ in ranking], found

ranker = Reranker("text-embeddings-inference", url=f"{base}/rerank", api_key="k")
if ranker is not None:
    same_ranking([(r.doc_id, r.score) for r in ranker.rank(query=question, docs=texts).results])
else:
    raise AssertionError("the package rerankers does not know text-embeddings-inference")
print("all clients agree with the program")
