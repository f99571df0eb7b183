// The official MCP client in TypeScript, and OpenAI's JavaScript client of chat completions: `agents.mjs URL`.
//
// Their results must equal those of the program itself, which WARPSEEK names, over the index `idx`. The server's chat
// service answers QUESTION with ANSWER. WARPSEEK_SERVE_NODE names the folder in which package.json was installed.

import assert from "node:assert";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";

const load = createRequire(`${process.env.WARPSEEK_SERVE_NODE}/`);
const { Client } = load("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = load("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = load("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { OpenAI } = load("openai");

const base = process.argv[2];
const program = process.env.WARPSEEK;
const question = process.env.QUESTION;
const run = execFileSync(program, ["search", "idx", question, "-k", "3", "--json"]);
const expected = JSON.parse(run).hits;

function content(result) {
  assert(!result.isError, JSON.stringify(result));
  return JSON.parse(result.content[0].text);
}

async function search(transport, names) {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  assert.equal(client.getServerVersion().name, "warpseek");
  assert(client.getInstructions().includes("search"));
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name), names);
  const call = (name, args) => client.callTool({ name, arguments: args });
  const found = content(await call("search", { query: question, k: 3 }));
  assert.deepEqual(found.hits.map((hit) => hit.id), expected.map((hit) => hit.id));
  found.hits.forEach((hit, i) => assert(Math.abs(hit.rerank_score - expected[i].rerank_score) < 1e-4));
  const read = content(await call("get", { ids: [found.hits[0].id] }));
  assert.equal(read.texts[0].text, expected[0].text);
  assert.equal(content(await call("list_indexes", {})).indexes[0].name, "idx");
  const wrong = await call("search", { query: question, top_k: 3 });
  assert(wrong.isError && wrong.content[0].text.includes("did you mean `k`"));
  await assert.rejects(call("no_such_tool", {}), /no tool 'no_such_tool'/);
  await client.close();
}

const reading = ["search", "get", "list_indexes"];
const env = { ...process.env };
await search(new StdioClientTransport({ command: program, args: ["mcp", "idx"], env }), reading);
await search(new StreamableHTTPClientTransport(new URL(`${base}/mcp`)), [...reading, "upsert", "delete"]);

const answer = process.env.ANSWER;
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "x" });
const chat = { model: "warpseek/idx", messages: [{ role: "user", content: question }], k: 3 };
const reply = await client.chat.completions.create(chat);
assert.equal(reply.choices[0].message.content, answer);
assert(reply.choices[0].message.annotations[0].url_citation.url.endsWith(expected[0].id));
assert.equal(reply.citations[0].status, "found");
let said = "";
let last;
const stream = await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } });
for await (const event of stream) {
  said += event.choices[0]?.delta.content ?? "";
  last = event;
}
assert.equal(said, answer);
assert(last.usage.total_tokens > 0);
await assert.rejects(client.chat.completions.create({ ...chat, n: 2 }), (error) => error.status === 400 && error.param === "n");
console.log("agents and chat clients agree with the program");
