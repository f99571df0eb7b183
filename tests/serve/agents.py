"""The official MCP client in Python, and OpenAI's client of chat completions: `agents.py URL`.

Their results must equal those of the program itself, which WARPSEEK names, over the index `idx`. The server's chat
service answers QUESTION with ANSWER.
"""

import asyncio
import json
import os
import subprocess
import sys

import openai
from mcp import Client, StdioServerParameters

base = sys.argv[1]
program = os.environ["WARPSEEK"]
question = os.environ["QUESTION"]
expected = json.loads(subprocess.run([program, "search", "idx", question, "-k", "3", "--json"], capture_output=True, check=True).stdout)["hits"]


def content(result):
    assert not result.is_error, result
    return json.loads(result.content[0].text)


async def search(server, names):
    async with Client(server) as client:
        assert client.server_info.name == "warpseek" and "search" in client.instructions, client.server_info
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == names, tools
        assert tools[0].annotations.read_only_hint and tools[0].input_schema["required"] == ["query"]
        found = content(await client.call_tool("search", {"query": question, "k": 3}))
        assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected]
        for hit, other in zip(found["hits"], expected, strict=True):
            assert abs(hit["score"] - other["score"]) < 1e-4 and abs(hit["rerank_score"] - other["rerank_score"]) < 1e-4
            start, end = hit["span"]
            offset = other["document_range"][0]
            assert other["text"].encode()[start - offset : end - offset].decode() == hit["excerpt"], hit
        read = content(await client.call_tool("get", {"ids": [found["hits"][0]["id"]]}))
        assert read["texts"][0]["text"] == expected[0]["text"]
        indexes = content(await client.call_tool("list_indexes", {}))
        assert indexes["indexes"][0]["name"] == "idx", indexes
        wrong = await client.call_tool("search", {"query": question, "top_k": 3})
        assert wrong.is_error and "did you mean `k`" in wrong.content[0].text, wrong
        if "upsert" in names:
            document = {"id": "new", "text": "Zebras graze in herds."}
            assert content(await client.call_tool("upsert", {"documents": [document]}))["added"] == 1
            found = content(await client.call_tool("search", {"query": "zebras", "k": 1}))
            assert found["hits"][0]["id"] == "new", found
            assert content(await client.call_tool("delete", {"ids": ["new"]}))["deleted"] == 1


async def agents():
    reading = ["search", "get", "list_indexes"]
    stdio = StdioServerParameters(command=program, args=["mcp", "idx"], env=dict(os.environ))
    await search(stdio, reading)
    await search(f"{base}/mcp", [*reading, "upsert", "delete"])


asyncio.run(asyncio.wait_for(agents(), 120))

answer = os.environ["ANSWER"]
client = openai.OpenAI(base_url=f"{base}/v1", api_key="x")
assert "warpseek/idx" in [model.id for model in client.models.list()]
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
reply = client.chat.completions.create(model="warpseek/idx", messages=messages, extra_body={"k": 3})
message = reply.choices[0].message
assert message.content == answer and reply.choices[0].finish_reason == "stop" and reply.usage.total_tokens > 0, reply
citation = message.annotations[0].url_citation
assert citation.url.endswith(expected[0]["id"]) and answer[citation.start_index : citation.end_index] in expected[0]["text"], citation
assert reply.citations[0]["status"] == "found" and reply.passages[0]["id"] == expected[0]["id"]
stream = client.chat.completions.create(model="warpseek/idx", messages=messages, stream=True, stream_options={"include_usage": True}, extra_body={"k": 3})
events = list(stream)
assert "".join(event.choices[0].delta.content or "" for event in events if event.choices) == answer
assert events[-1].usage.total_tokens > 0 and events[-2].citations[0]["status"] == "found"
try:
    client.chat.completions.create(model="warpseek/idx", messages=messages, n=2)
    raise AssertionError("two answers were given")
except openai.BadRequestError as error:
    assert error.param == "n", error
try:
    client.chat.completions.create(model="warpseek/other", messages=messages)
    raise AssertionError("another index answered")
except openai.NotFoundError as error:
    assert "idx" in str(error), error
print("agents and chat clients agree with the program")
