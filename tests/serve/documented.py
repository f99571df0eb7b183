"""Routes and fields that other services document, from their own clients and descriptions: `documented.py FOLDER > documented.json`.

Packages: openai==3.57.0 cohere==7.3.1 ollama==0.6.3 pyyaml==6.0.3. FOLDER holds
- voyageai: the unpacked npm package voyageai@0.4.0
- tei.json: docs/openapi.json of huggingface/text-embeddings-inference, commit 0d124dc9773b
- jina.json: api.jina.ai/openapi.json of 2026-02-03, a copy of which is openapi/jina-openapi.json of PAIR-Systems-Inc/jina4j
- ollama.yaml: docs/openapi.yaml of ollama/ollama, commit fb30760996871

A field of an object in a field is named with its path; lists add nothing to it: `data.index` is the index of each row.
"""

import importlib.metadata
import json
import re
import sys
import typing
from pathlib import Path

import cohere
import ollama._types as ollama
import openai.types as openai
import openai.types.chat as chat
import yaml
from cohere.types.rerank_relevant_spans import RerankRelevantSpans
from cohere.v2.types.v2rerank_response import V2RerankResponse
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from typing_extensions import is_typeddict

folder = Path(sys.argv[1])
apis = {}


def api(name, *sources):
    return apis.setdefault(name, {"sources": list(sources), "routes": {}})["routes"]


def package(name):
    return f"{name} {importlib.metadata.version(name)}"


def source_of(module):
    return "\n".join(path.read_text() for path in sorted(Path(module.__file__).parent.rglob("*client*.py")))


def parts(kind):
    """The types that a type consists of, without lists, options and unions."""
    inner = typing.get_args(kind)[:1] if typing.get_origin(kind) is typing.Annotated else typing.get_args(kind)
    if not inner or typing.get_origin(kind) in (typing.Literal, dict):
        return [kind]
    return [part for one in inner for part in parts(one)]


def below(name, inner, is_plain):
    """Paths of a field: those of the objects in it, and its own name if it can be no object."""
    return [f"{name}.{path}" for path in inner] + ([] if inner and not is_plain else [name])


def model(kind, depth=9):
    """Paths of the fields of a pydantic model or a typed dictionary, of at most `depth` names."""
    fields = getattr(kind, "model_fields", None)
    if fields is not None:
        fields = {field.alias or name: field.annotation for name, field in fields.items()}
    elif is_typeddict(kind):
        fields = typing.get_type_hints(kind)
    paths = []
    for name, annotation in (fields or {}).items():
        kinds = [model(part, depth - 1) for part in parts(annotation) if part is not type(None)] if depth > 1 else []
        paths += below(name, sum(kinds, []), not all(kinds))
    return list(dict.fromkeys(paths))


def schema(document, node):
    """Paths of the fields of a JSON schema, and true if it allows more than objects."""
    if "$ref" in node:
        return schema(document, document["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]])
    alternatives = [one for key in ("allOf", "oneOf", "anyOf") for one in node.get(key, [])] + ([node["items"]] if node.get("items") else [])
    paths, plain = [], not alternatives and node.get("type") not in ("object", "null")
    for one in alternatives:
        inner, is_plain = schema(document, one)
        paths, plain = paths + inner, plain or is_plain
    for name, property in node.get("properties", {}).items():
        paths += below(name, *schema(document, property))
    return list(dict.fromkeys(paths)), plain


def described(routes, document, ours):
    """Adds the routes of an OpenAPI description, those in `ours` with their fields."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            routes[name] = {}
            if path in ours:
                body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
                reply = operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
                routes[name] = {"request": schema(document, body)[0], "reply": schema(document, reply)[0]}


routes = api("OpenAI", package("openai"))
for resource in ("embeddings", "chat/completions/completions", "chat/completions/messages", "models"):
    text = (Path(openai.__file__).parent.parent / "resources" / f"{resource}.py").read_text()
    for method, path in re.findall(r'self\._(get|post|delete|get_api_list)\(\s*(?:path_template\()?"(/[^"]+)"', text):
        routes[f"{method.split('_')[0].upper()} /v1{path}"] = {}
turns = [f"messages.{field}" for turn in typing.get_args(chat.ChatCompletionMessageParam) for field in model(turn, 2)]
options = [f"stream_options.{field}" for field in model(chat.ChatCompletionStreamOptionsParam)]
others = [field for field in typing.get_type_hints(CompletionCreateParamsNonStreaming) if field not in ("messages", "stream_options")]
fields = [*dict.fromkeys(turns), *options, *others]
routes["POST /v1/embeddings"] = {"request": list(typing.get_type_hints(EmbeddingCreateParams)), "reply": model(openai.CreateEmbeddingResponse)}
routes["POST /v1/chat/completions"] = {"request": fields, "reply": model(chat.ChatCompletion, 3)}
routes["GET /v1/models"] = {"request": [], "reply": ["object", *(f"data.{field}" for field in model(openai.Model))]}
routes["GET /v1/models/{model}"] = {"request": [], "reply": model(openai.Model)}

routes = api("Cohere", package("cohere"))
replies = {"v1/embed": [cohere.EmbedFloatsResponse, cohere.EmbedByTypeResponse], "v2/embed": [cohere.EmbedByTypeResponse],
           "v1/rerank": [cohere.RerankResponse], "v2/rerank": [V2RerankResponse]}
objects = {"inputs": cohere.EmbedInput, "relevant_spans": RerankRelevantSpans}
for call in source_of(cohere).split(".httpx_client.")[1:]:
    found = re.match(r'\w+\(\s*f?"(v\d/.*)",\s*method="(\w+)"', call)
    if not found:
        continue
    path, method = re.sub(r"\w+\((\w+)\)", r"\1", found[1]), found[2]
    name = f"{method} /{path}"
    routes[name] = {}
    if path in replies:
        fields = re.findall(r'^ {16}"(\w+)":', call.split("headers=")[0], re.M)
        fields = [f"{field}.{inner}" if inner else field for field in fields for inner in (model(objects[field]) if field in objects else [""])]
        routes[name] = {"request": fields, "reply": [*dict.fromkeys(path for kind in replies[path] for path in model(kind))]}

document = json.loads((folder / "jina.json").read_text())
described(api("Jina", f"OpenAPI description {document['info']['version']}"), document, ["/v1/embeddings", "/v1/rerank"])

document = json.loads((folder / "tei.json").read_text())
routes = api("text-embeddings-inference", f"OpenAPI description {document['info']['version']}")
described(routes, document, document["paths"])
# Routes of its server that its description leaves out.
routes.update({f"POST {path}": {} for path in ("/", "/embeddings", "/vertex", "/invocations")})
routes.update({f"GET {path}": {} for path in ("/ping", "/docs")})

document = yaml.safe_load((folder / "ollama.yaml").read_text())
routes = api("Ollama", package("ollama"), f"OpenAPI description {document['info']['version']}")
described(routes, document, ["/api/embed", "/api/show", "/api/tags", "/api/version"])
for method, path in re.findall(r"'(POST|GET|DELETE|HEAD)',\s*f?'(/api/[^']+)'", source_of(ollama)):
    routes.setdefault(f"{method} {path}", {})
typed = {"POST /api/embed": (ollama.EmbedRequest, ollama.EmbedResponse), "POST /api/embeddings": (ollama.EmbeddingsRequest, ollama.EmbeddingsResponse),
         "POST /api/show": (ollama.ShowRequest, ollama.ShowResponse), "GET /api/tags": (None, ollama.ListResponse)}
for name, (request, reply) in typed.items():
    fields = {"request": model(request, 1) if request else [], "reply": model(reply)}
    known = routes[name]
    # Options of a model are those of generating, of which embedding has one.
    known = {side: [field for field in names if not field.startswith("options.")] for side, names in known.items()}
    fields = {side: list(dict.fromkeys(known.get(side, []) + names)) for side, names in fields.items()}
    routes[name] = {side: [one for one in names if not any(other.startswith(f"{one}.") for other in names)] for side, names in fields.items()}

package_file = json.loads((folder / "voyageai/package.json").read_text())
routes = api("Voyage", f"voyageai {package_file['version']} (npm)")
generated = folder / "voyageai/dist/cjs"
for path in re.findall(r'Environment\.Default, "(\w+)"\)', (generated / "Client.js").read_text()):
    routes[f"POST /v1/{path}"] = {}


def serialized(kind):
    """Paths of the fields of an object that the generated client serializes."""
    text = next((generated / "serialization").rglob(f"{kind}.js")).read_text()
    body = text.split(f"exports.{kind} = core.serialization.object({{")[1:]
    paths = []
    for line in body[0].splitlines() if body else []:
        found = re.match(r' {4}(\w+): (?:core\.serialization\.property\("(\w+)")?', line)
        if found:
            inner = re.search(r"_js_1\.(\w+)", line)
            paths += below(found[2] or found[1], serialized(inner[1]) if inner else [], False)
    return paths


for path, kind in (("embeddings", "Embed"), ("rerank", "Rerank")):
    routes[f"POST /v1/{path}"] = {"request": serialized(f"{kind}Request"), "reply": serialized(f"{kind}Response")}

# A line for each route.
lines = []
for name, found in apis.items():
    rows = ",\n".join(f"   {json.dumps(route)}: {json.dumps(fields)}" for route, fields in sorted(found["routes"].items()))
    lines.append(f' {json.dumps(name)}: {{"sources": {json.dumps(found["sources"])}, "routes": {{\n{rows}}}}}')
print("{\n" + ",\n".join(lines) + "\n}")
