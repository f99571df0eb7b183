"""Python clients that are too large for the gate, against a running server: `more_clients.py URL NAME...`.

Each name is a function below; its packages stand in its comment. Results must equal those of the program itself, which
WARPSEEK names.
"""

import json
import os
import subprocess
import sys

import numpy

texts = ["The tide comes in twice a day.", "Bread rises because yeast makes gas.", "Ünïcödé 😀 and more"]
question = "why does bread rise?"


def embedded(role, lines):
    program = [os.environ["WARPSEEK"], "embed", "--role", role]
    run = subprocess.run(program, input="\n".join(lines), capture_output=True, text=True, check=True)
    return [json.loads(line)["vector"] for line in run.stdout.splitlines()]


passages, queries = embedded("passage", texts), embedded("query", [question])
# Clients without roles: the model's prompt stands in their texts.
prompt = os.environ.get("PASSAGE_PROMPT", "")
prompted = [prompt + text for text in texts]


def unit(vectors):
    return numpy.array(vectors) / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def same(found, expected=passages):
    assert numpy.array(found).shape == numpy.array(expected).shape, numpy.array(found).shape
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


run = subprocess.run([os.environ["WARPSEEK"], "rerank", question, *texts, "--json"], capture_output=True, text=True, check=True)
ranking = [(r["index"], r["rerank_score"]) for r in json.loads(run.stdout)["results"]]


def same_ranking(found):
    assert [i for i, _ in found] == [i for i, _ in ranking][: len(found)], (found, ranking)
    numpy.testing.assert_allclose([s for _, s in found], [s for _, s in ranking][: len(found)], rtol=0, atol=2e-6)


def cohere(url):
    """cohere==7.3.1"""
    import cohere

    client = cohere.ClientV2("k", base_url=url)
    reply = client.embed(model="embed-v4.0", input_type="search_document", texts=texts, embedding_types=["float", "int8"])
    same(reply.embeddings.float_)
    assert len(reply.embeddings.int8) == len(texts)
    same(cohere.Client("k", base_url=url).embed(model="embed-v4.0", input_type="search_document", texts=texts).embeddings)


def cohere_haystack(url):
    """cohere-haystack==11.0.0"""
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder

    options = {"api_key": Secret.from_token("k"), "api_base_url": url}
    same([CohereTextEmbedder(**options).run(text=question)["embedding"]], queries)
    documents = CohereDocumentEmbedder(**options).run([Document(content=text) for text in texts])["documents"]
    same([document.embedding for document in documents])


def haystack_hugging_face(url):
    """huggingface-api-haystack==3.1.0"""
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder

    embedder = HuggingFaceAPITextEmbedder(api_type="text_embeddings_inference", api_params={"url": url})
    # By default, the client asks for vectors that are not scaled to unit length.
    same(unit([embedder.run(text=text)["embedding"] for text in prompted]))


def chroma(url):
    """chromadb==1.5.9"""
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    same(HuggingFaceEmbeddingServer(url=url)(prompted))


def llama_index(url):
    """llama-index-embeddings-cohere==0.9.0"""
    from llama_index.embeddings.cohere import CohereEmbedding

    model = CohereEmbedding(api_key="k", base_url=url, model_name="embed-v4.0")
    same(model.get_text_embedding_batch(texts))
    same([model.get_query_embedding(question)], queries)


def pydantic_ai(url):
    """pydantic-ai-slim[cohere]==2.68.0"""
    from cohere import AsyncClientV2
    from pydantic_ai import Embedder
    from pydantic_ai.embeddings.cohere import CohereEmbeddingModel
    from pydantic_ai.providers.cohere import CohereProvider

    model = CohereEmbeddingModel("embed-v4.0", provider=CohereProvider(cohere_client=AsyncClientV2("k", base_url=url)))
    same(Embedder(model).embed_documents_sync(texts).embeddings)
    same(Embedder(model).embed_query_sync(question).embeddings, queries)


def litellm(url):
    """litellm==1.110.2"""
    import litellm

    reply = litellm.embedding("cohere/embed-v4.0", input=texts, api_base=f"{url}/v2/embed", api_key="k", input_type="search_document")
    same([row["embedding"] for row in reply.data])
    reply = litellm.embedding("huggingface/any", input=prompted, api_base=url, api_key="k", input_type="feature-extraction")
    same([row["embedding"] for row in reply.data])


def langchain_ollama(url):
    """langchain-ollama==1.1.0"""
    from langchain_ollama import OllamaEmbeddings

    model = OllamaEmbeddings(model="all-minilm", base_url=url)
    same(model.embed_documents(prompted))
    same([model.embed_query(prompted[0])], passages[:1])


def langchain_community(url):
    """langchain-community==0.4.2"""
    from langchain_community.embeddings import OllamaEmbeddings

    # The client puts words of its own in front of texts, unless it is told not to.
    model = OllamaEmbeddings(model="all-minilm", base_url=url, embed_instruction="", query_instruction="")
    same(model.embed_documents(prompted))


def litellm_others(url):
    """litellm==1.110.2"""
    import litellm

    for model, address in [
        ("ollama/all-minilm", url),
        ("jina_ai/jina-embeddings-v3", f"{url}/v1"),
        ("infinity/any", url),
        ("hosted_vllm/any", f"{url}/v1"),
    ]:
        reply = litellm.embedding(model, input=prompted, api_base=address, api_key="k")
        same([row["embedding"] for row in reply.data])
    for model, address in [
        ("cohere/rerank-v3.5", url),
        ("jina_ai/jina-reranker-v2", url),
        ("voyage/rerank-2.5", f"{url}/v1/rerank"),
        ("infinity/any", url),
        ("hosted_vllm/any", f"{url}/v1"),
    ]:
        reply = litellm.rerank(model, query=question, documents=texts, top_n=2, api_base=address, api_key="k")
        same_ranking([(row["index"], row["relevance_score"]) for row in reply.results])


def voyage(url):
    """voyageai==0.5.0"""
    import voyageai

    client = voyageai.Client("k", base_url=f"{url}/v1")
    same(client.embed(texts, model="voyage-3.5", input_type="document").embeddings)
    same(client.embed([question], model="voyage-3.5", input_type="query").embeddings, queries)
    signs = client.embed(texts, model="voyage-3.5", input_type="document", output_dtype="ubinary").embeddings
    assert (numpy.array(signs) == numpy.packbits(numpy.array(passages) > 0, axis=1)).all()
    reply = client.rerank(question, texts, model="rerank-2.5", top_k=2)
    same_ranking([(row.index, row.relevance_score) for row in reply.results])
    try:
        client.embed(texts, model="voyage-3.5", output_dimension=7)
        raise AssertionError("7 dimensions were given")
    except voyageai.error.InvalidRequestError as error:
        assert "`output_dimension` can only be" in str(error), error


for name in sys.argv[2:]:
    globals()[name](sys.argv[1])
    print(f"{name} agrees with the program")
