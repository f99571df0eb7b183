// JavaScript clients against a running server: `clients.mjs URL`. Their results must equal those of
// the program itself, which WARPSEEK names; the packages are looked for in the folder that
// WARPSEEK_SERVE_NODE names.

import assert from "node:assert";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = createRequire(`${process.env.WARPSEEK_SERVE_NODE}/package.json`);
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { createCohere } = await load("@ai-sdk/cohere");
const { InferenceClient } = await load("@huggingface/inference");
const { embed, embedMany } = await load("ai");
const { Ollama } = await load("ollama");

const base = process.argv[2];
const texts = ["The tide comes in twice a day.", "Bread rises because yeast makes gas.", "Ünïcödé 😀 and more"];
const question = "why does bread rise?";

function embedded(role, lines) {
  const output = execFileSync(process.env.WARPSEEK, ["embed", "--role", role], { input: lines.join("\n") });
  return output.toString().trim().split("\n").map((line) => JSON.parse(line).vector);
}

const passages = embedded("passage", texts);
const queries = embedded("query", [question]);

function same(found, expected = passages) {
  assert.equal(found.length, expected.length);
  found.forEach((vector, i) => {
    assert.equal(vector.length, expected[i].length);
    vector.forEach((value, j) => assert(Math.abs(value - expected[i][j]) <= 2e-6, `${i}, ${j}`));
  });
}

const model = createCohere({ baseURL: `${base}/v2`, apiKey: "k" }).embedding("embed-v4.0");
const documents = { cohere: { inputType: "search_document", truncate: "END" } };
same((await embedMany({ model, values: texts, providerOptions: documents })).embeddings);
same([(await embed({ model, value: question })).embedding], queries);
const short = { cohere: { outputDimension: 256 } };
await assert.rejects(
  embed({ model, value: question, providerOptions: short, maxRetries: 0 }),
  (error) => error.statusCode === 400 && error.message.includes("`output_dimension`"),
);

for (const endpointUrl of [base, `${base}/`]) {
  const client = new InferenceClient("hf_x", { endpointUrl });
  same(await client.featureExtraction({ inputs: texts }));
  const alike = await client.sentenceSimilarity({ inputs: { source_sentence: texts[1], sentences: texts } });
  assert(Math.abs(alike[1] - 1) < 1e-5 && alike[0] < 0.9, `${alike}`);
}

const local = new Ollama({ host: base });
same((await local.embed({ model: "any", input: texts })).embeddings);
same([(await local.embeddings({ model: "any", prompt: texts[0] })).embedding], passages.slice(0, 1));
assert.equal((await local.list()).models.length, 1);
await assert.rejects(
  local.embed({ model: "any", input: texts, dimensions: 7 }),
  (error) => error.status_code === 400 && error.message.includes("`dimensions`"),
);
console.log("all clients agree with the program");
