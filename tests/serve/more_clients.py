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


def same(found, expected=passages):
    assert numpy.array(found).shape == numpy.array(expected).shape, numpy.array(found).shape
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


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
    same([embedder.run(text=text)["embedding"] for text in texts])


def chroma(url):
    """chromadb==1.5.9"""
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    same(HuggingFaceEmbeddingServer(url=url)(texts))


def llama_index(url):
    """llama-index-embeddings-cohere==0.9.0"""
    from llama_index.embeddings.cohere import CohereEmbedding

    model = CohereEmbedding(api_key="k", base_url=url, model_name="embed-v4.0", input_type="search_document")
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
    reply = litellm.embedding("huggingface/any", input=texts, api_base=url, api_key="k")
    same([row["embedding"] for row in reply.data])


for name in sys.argv[2:]:
    globals()[name](sys.argv[1])
    print(f"{name} agrees with the program")
