"use strict";
// The page: a query and its options in the address, one request at a time, and everything that comes from documents put
// in as text.

const $ = (id) => document.getElementById(id);
const form = $("form");
const state = { info: null, controller: null, hits: [], shown: null, before: [], narrow: matchMedia("(max-width: 720px)") };

/** An element with a class, attributes and children, which are elements or texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

// Requests

class Refused extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? `the server replied with status ${status}`);
    Object.assign(this, { status, param: error?.param ?? null, retryAfter });
  }
}

async function call(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem("warpseek-key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  if (reply.ok) return reply;
  let error = null;
  try {
    error = (await reply.json()).error;
  } catch {
    // What is not JSON has no message for us.
  }
  throw new Refused(reply.status, error, reply.headers.get("Retry-After"));
}

// What the address says, and what the form says

const TEXTS = ["query", "filter", "index", "k", "depth"];
const CHECKS = ["hybrid", "mmr"];

function readAddress() {
  const parameters = new URLSearchParams(location.search);
  for (const name of TEXTS) {
    const value = parameters.get(name === "query" ? "q" : name);
    if (value !== null || (name !== "index" && name !== "k")) $(name).value = value ?? "";
  }
  if (!parameters.has("k")) $("k").value = "10";
  for (const name of CHECKS) $(name).checked = parameters.has(name);
  view(parameters.get("view") === "compare" ? "compare" : "results");
  $("options").open = ["k", "depth", "hybrid", "mmr"].some((name) => parameters.has(name));
}

function writeAddress() {
  const parameters = new URLSearchParams();
  const query = $("query").value.trim();
  if (query) parameters.set("q", query);
  if ($("filter").value.trim()) parameters.set("filter", $("filter").value.trim());
  if (!$("index-label").hidden) parameters.set("index", $("index").value);
  if ($("k").value && $("k").value !== "10") parameters.set("k", $("k").value);
  if ($("depth").value) parameters.set("depth", $("depth").value);
  for (const name of CHECKS) if ($(name).checked) parameters.set(name, "1");
  if (view() === "compare") parameters.set("view", "compare");
  const search = parameters.size ? `?${parameters}` : "";
  if (search !== location.search) history.pushState(null, "", location.pathname + search);
  document.title = query ? `${query} · warpseek` : "warpseek";
}

function view(set) {
  if (set) form.querySelector(`input[name="view"][value="${set}"]`).checked = true;
  return form.querySelector('input[name="view"]:checked').value;
}

function options() {
  const body = { query: $("query").value.trim() };
  if (!$("index-label").hidden) body.index = $("index").value;
  if ($("filter").value.trim()) body.filter = $("filter").value.trim();
  if ($("hybrid").checked) body.hybrid = true;
  if ($("mmr").checked) body.mmr = 0.5;
  return body;
}

// Searching

async function run() {
  state.controller?.abort();
  const controller = new AbortController();
  state.controller = controller;
  clearProblems();
  writeAddress();
  if (!$("query").value.trim()) {
    show(welcome());
    return;
  }
  document.body.classList.add("busy");
  say("Searching …");
  const comparing = view() === "compare";
  const k = Math.max(1, Number($("k").value) || 10);
  const body = options();
  if (comparing) {
    body.k = Math.max(25, k, Number($("depth").value) || 0);
    body.show = k;
  } else {
    body.k = k;
    if ($("depth").value !== "") body.rerank_depth = Number($("depth").value);
  }
  try {
    const reply = await call(comparing ? "v1/compare" : "v1/search", body, controller.signal);
    const result = await reply.json();
    if (controller.signal.aborted) return;
    document.body.classList.remove("busy");
    comparing ? showComparison(result) : showResults(result);
  } catch (error) {
    if (controller.signal.aborted) return;
    document.body.classList.remove("busy");
    showProblem(error);
  }
}

function clearProblems() {
  $("filter-error").hidden = true;
  $("filter").removeAttribute("aria-invalid");
  $("message").hidden = true;
  $("warnings").hidden = true;
  $("answer").hidden = true;
}

function showProblem(error) {
  say("");
  if (error instanceof Refused && error.status === 401) {
    $("key").showModal();
    return;
  }
  if (error instanceof Refused && error.param === "filter") {
    $("filter-error").textContent = error.message;
    $("filter-error").hidden = false;
    $("filter").setAttribute("aria-invalid", "true");
    show();
    return;
  }
  let title = "The server could not do this";
  let text = error.message;
  if (!(error instanceof Refused)) [title, text] = ["The server cannot be reached", "Is it still running? Search again to try once more."];
  else if (error.status === 429 || error.status === 503) {
    title = "The server is busy";
    if (error.retryAfter) text = `${text}. Try again in ${error.retryAfter} s.`;
  }
  message(title, text, true);
}

function message(title, text, bad = false) {
  show();
  const box = $("message");
  box.className = bad ? "message bad" : "message";
  box.setAttribute("role", bad ? "alert" : "note");
  box.replaceChildren(make("strong", {}, title), text);
  box.hidden = false;
}

const say = (text) => ($("status").textContent = text);

function show(...elements) {
  state.hits = [];
  state.shown = null;
  $("results").replaceChildren(...elements);
}

function welcome() {
  say("");
  return make("div", { class: "message" }, make("strong", {}, "Ask in your own words"), "Passages are found by what they mean. Every row is looked at, so nothing is missed.");
}

function summary(result, took) {
  const rows = result.matched_rows === result.total_rows ? plural(result.total_rows, "row") : `${number(result.matched_rows)} of ${plural(result.total_rows, "row")}`;
  const steps = ["embed", "filter", "scan", "fuse", "rerank", "fetch"].filter((step) => took[step] >= 0.05);
  const times = steps.map((step) => `${step} ${number(took[step], 1)}`).join(", ");
  return `${rows} in ${number(took.total, 1)} ms${times ? ` (${times})` : ""}`;
}

function warn(warnings) {
  $("warnings").replaceChildren(...warnings.map((text) => make("li", {}, text)));
  $("warnings").hidden = warnings.length === 0;
}

function nothing(result) {
  if (result.matched_rows === 0 && $("filter").value.trim()) message("No row passes this filter", "Nothing was searched. Loosen the filter, or clear it.");
  else message("Nothing was found", "The index holds no row to search.");
}

function showResults(result) {
  const rows = result.hits;
  say(`${plural(rows.length, "hit")} among ${summary(result, result.took_ms)}`);
  warn(result.warnings);
  if (rows.length === 0) return nothing(result);
  const list = make("ol", { class: "hits" }, ...rows.map((hit) => card(hit, result.reranker ? movement(hit.rank, hit.retrieved_rank) : null)));
  show(list);
  state.hits = rows;
  state.shown = result;
  $("answer").hidden = !state.info?.answers;
  $("answer-text").replaceChildren();
  $("answer-note").textContent = "";
}

function showComparison(result) {
  say(summary(result, result.took_ms));
  warn(result.warnings);
  if (result.before.length === 0) return nothing(result);
  const { churn } = result;
  const word = result.second;
  const first = result.rank_map[0];
  const told = first && first.retrieved_rank && first.retrieved_rank !== 1 ? `${word} #1 was retrieved #${first.retrieved_rank}; ` : "";
  const line = `${churn.kept} of the top ${result.after.length} stay; ${churn.first_changed ? "another row is first" : "the first row stays first"}; ${told}rows move ${number(churn.mean_move, 1)} places on average; Kendall’s tau ${number(churn.kendall_tau, 2)}`;
  const column = (title, hits, side) =>
    make("section", { "aria-label": title }, make("h2", {}, title), make("ol", { class: "hits", "data-side": side }, ...hits.map((hit) => card(hit, side === "after" ? movement(hit.rank, hit.retrieved_rank) : null))));
  const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  lines.setAttribute("class", "lines");
  lines.setAttribute("aria-hidden", "true");
  const by = result.reranker ? `${capital(word)} by ${result.reranker}` : capital(word);
  const columns = make("div", { class: "columns" }, column("As retrieved", result.before, "before"), lines, column(by, result.after, "after"));
  show(make("p", { class: "churn" }, line), columns);
  state.hits = [...result.before, ...result.after];
  state.shown = result;
  new ResizeObserver(() => draw(columns, lines)).observe(columns);
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);

/** The lines that join the same row in both rankings. */
function draw(columns, lines) {
  const origin = columns.getBoundingClientRect();
  const paths = [];
  for (const left of columns.querySelectorAll('[data-side="before"] .hit')) {
    const right = columns.querySelector(`[data-side="after"] .hit[data-row="${left.dataset.row}"]`);
    if (!right) continue;
    const [a, b] = [left.getBoundingClientRect(), right.getBoundingClientRect()];
    const [x1, y1] = [a.right - origin.left + 3, a.top + a.height / 2 - origin.top];
    const [x2, y2] = [b.left - origin.left - 3, b.top + b.height / 2 - origin.top];
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x1} ${y1}C${x1 + 40} ${y1} ${x2 - 40} ${y2} ${x2} ${y2}`);
    path.dataset.row = left.dataset.row;
    const moved = Number(left.dataset.rank) - Number(right.dataset.rank);
    if (moved) path.setAttribute("class", moved > 0 ? "rose" : "fell");
    paths.push(path);
  }
  lines.replaceChildren(...paths);
}

function light(row, on) {
  for (const path of document.querySelectorAll(`.lines path[data-row="${row}"]`)) path.classList.toggle("lit", on);
}

/** How far a row moved: its class and the words for it. */
function movement(rank, before) {
  if (before === null || before === undefined) return ["new", "new"];
  if (before === rank) return ["", "="];
  return before > rank ? ["up", `↑${before - rank}`] : ["down", `↓${rank - before}`];
}

function card(hit, moved) {
  const facts = make("div", { class: "facts" }, make("span", { class: "id" }, hit.id), make("span", {}, `score ${number(hit.score, 4)}`));
  if (hit.rerank_score !== undefined) facts.append(make("span", {}, `rerank ${number(hit.rerank_score, 4)}`));
  if (moved) {
    const words = moved[0] === "new" ? "was not retrieved" : moved[1] === "=" ? "stays" : `was #${hit.retrieved_rank}`;
    facts.append(make("span", { class: moved[0], title: words }, moved[1] === "=" ? words : `${moved[1]} ${words}`));
  }
  if (hit.tokens_lost > 0) facts.append(make("span", { class: "down" }, `${plural(hit.tokens_lost, "token")} beyond the model’s limit`));
  const title = hit.title.trim() || hit.id;
  const item = make("li", { class: "hit", tabindex: "0", role: "button", "data-row": hit.row, "data-rank": hit.rank, "data-id": hit.id, "aria-label": `${hit.rank}: ${title}` },
    make("span", { class: "rank" }, String(hit.rank)),
    make("div", {}, make("h3", {}, title), make("p", {}, ...marked(excerpt(hit))), facts));
  item.addEventListener("click", () => open(hit));
  for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) {
    item.addEventListener(event, () => light(hit.row, on));
  }
  return item;
}

// Passages

/** The passage in three parts: before the window that the reranker liked best, the window, and behind it. */
function parts(hit) {
  const text = hit.text ?? "";
  if (!hit.window) return ["", text, ""];
  const bytes = new TextEncoder().encode(text);
  const [start, end] = hit.window;
  const part = (from, to) => new TextDecoder().decode(bytes.slice(from, to));
  return [part(0, start), part(start, end), part(end)];
}

const words = () => $("query").value.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter((word) => [...word].length > 3);

/** A piece of the passage where most words of the query stand together. */
function excerpt(hit) {
  const LENGTH = 300;
  const [before, text, after] = parts(hit);
  if (text.length <= LENGTH) return (before.trim() ? "… " : "") + text + (after.trim() ? " …" : "");
  const lower = text.toLowerCase();
  const places = words().flatMap((word) => [...lower.matchAll(new RegExp(word, "gu"))].map((found) => found.index));
  let [best, most] = [0, places.filter((place) => place < LENGTH).length];
  for (const place of places) {
    const start = Math.max(0, lower.lastIndexOf(" ", Math.max(0, place - 30)) + 1);
    const n = places.filter((other) => other >= start && other < start + LENGTH).length;
    if (n > most) [best, most] = [start, n];
  }
  const end = best + LENGTH < text.length ? text.lastIndexOf(" ", best + LENGTH) : text.length;
  const piece = text.slice(best, end > best ? end : best + LENGTH);
  return (best || before.trim() ? "… " : "") + piece + (end < text.length || after.trim() ? " …" : "");
}

/** A text with the query's words marked. */
function marked(text) {
  const wanted = words();
  if (wanted.length === 0) return [text];
  return text.split(new RegExp(`(${wanted.join("|")})`, "giu")).filter(Boolean).map((part) => (wanted.includes(part.toLowerCase()) ? make("mark", {}, part) : part));
}

function open(hit) {
  const [before, window, after] = parts(hit);
  const passage = make("div", { class: "passage" });
  if (before.trim() || after.trim()) passage.append(before, make("mark", { title: "what the reranker liked best" }, window), after);
  else passage.append(before + window + after);
  const row = (name, value) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value));
  const scores = make("table", {}, row("score", number(hit.score, 6)));
  if (hit.rerank_score !== undefined) scores.append(row("rerank_score", `${number(hit.rerank_score, 6)} (logit ${number(hit.rerank_logit, 3)})`));
  if (hit.final_score !== null && hit.final_score !== undefined) scores.append(row("final_score", number(hit.final_score, 6)));
  scores.append(row("retrieved", hit.retrieved_rank ? `#${hit.retrieved_rank}` : "not among those compared"));
  if (hit.tokens_lost) scores.append(row("tokens_lost", number(hit.tokens_lost)));
  scores.append(row("id", hit.id));
  if (hit.doc_id !== hit.id) scores.append(row("doc_id", hit.doc_id));
  const metadata = Object.entries(hit.metadata ?? {});
  const facts = make("table", {}, ...metadata.map(([name, value]) => row(name, typeof value === "string" ? value : JSON.stringify(value))));
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", () => $("detail").close());
  $("detail").replaceChildren(make("h2", { id: "detail-title" }, hit.title.trim() || hit.id), passage, scores, metadata.length ? facts : null, close);
  for (const child of [...$("detail").childNodes]) if (child.nodeType === Node.TEXT_NODE) child.remove();
  $("detail").showModal();
  $("detail").scrollTop = 0;
}

// Answers

async function ask() {
  state.controller?.abort();
  const controller = new AbortController();
  state.controller = controller;
  const [text, note] = [$("answer-text"), $("answer-note")];
  text.replaceChildren();
  note.textContent = "Writing …";
  try {
    const reply = await call("v1/answer", { ...options(), k: 5, stream: true }, controller.signal);
    for await (const [event, data] of events(reply.body)) {
      if (event === "text") text.append(data.text);
      else if (event === "unsupported") text.append(make("span", { class: "unsupported" }, "[unsupported]"));
      else if (event === "retry") note.textContent = `Asking again: ${data.reason}`;
      else if (event === "done") finish(data);
      else if (event === "error") throw new Refused(502, data.error, null);
    }
  } catch (error) {
    if (controller.signal.aborted) return;
    if (error instanceof Refused && error.status === 401) return showProblem(error);
    note.replaceChildren(make("span", { class: "problem" }, error.message));
  }
}

/** The quotes under an answer, each with what became of it. */
function finish(answer) {
  const note = $("answer-note");
  const seconds = answer.took_ms?.answer ? ` in ${number(answer.took_ms.answer.total / 1000, 1)} s` : "";
  note.textContent = answer.refused ? "The passages do not hold the answer." : `${answer.model ?? ""}${seconds}`;
  const say = { found: "found", misattributed: "stands in another passage", absent: "stands in no passage" };
  for (const citation of answer.sentences.flatMap((sentence) => sentence.citations)) {
    const place = citation.passage ?? citation.cited;
    const chip = make("button", { class: `cite ${citation.status}`, type: "button", title: citation.quote }, `[${place ?? "?"}] ${say[citation.status] ?? citation.status}`);
    const passage = answer.passages?.[citation.passage - 1];
    const hit = passage && answer.hits?.find((hit) => hit.id === passage.id);
    if (hit) chip.addEventListener("click", () => open(hit));
    $("answer-text").append(chip);
  }
}

/** The events of a reply as they come. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, "")).join("\n");
      if (field("data")) yield [field("event"), JSON.parse(field("data"))];
    }
  }
}

// Keys

function step(by) {
  const hits = [...document.querySelectorAll("#results .hit")];
  if (hits.length === 0) return;
  const at = hits.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : hits.length - 1) : Math.min(hits.length - 1, Math.max(0, at + by));
  hits[next].focus();
  hits[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea");
  if (writing) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "ArrowDown" && event.target === $("query")) {
      event.preventDefault();
      step(1);
    }
    return;
  }
  const focused = document.activeElement.classList.contains("hit");
  const action = {
    "/": () => $("query").select(),
    "?": () => $("help").showModal(),
    c: () => change(view() === "compare" ? "results" : "compare"),
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    o: focused && (() => document.activeElement.click()),
    Enter: focused && (() => document.activeElement.click()),
  }[event.key];
  if (action && !(event.key.startsWith("Arrow") && event.target.matches("input"))) {
    event.preventDefault();
    action();
  }
});

function change(to) {
  view(to);
  run();
}

// The beginning

function theme(set) {
  document.documentElement.dataset.theme = set;
  $("theme").textContent = set === "dark" ? "Light" : "Dark";
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const preferred = () => localStorage.getItem("warpseek-theme") ?? (dark.matches ? "dark" : "light");
theme(preferred());
dark.addEventListener("change", () => theme(preferred()));
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("warpseek-theme", next);
  theme(next);
});
$("help-button").addEventListener("click", () => $("help").showModal());
$("ask").addEventListener("click", ask);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
for (const input of form.querySelectorAll('input[name="view"], #hybrid, #mmr, #index')) {
  input.addEventListener("change", () => {
    if (input.id === "index") fields();
    if ($("query").value.trim()) run();
    else writeAddress();
  });
}
$("key-form").addEventListener("submit", () => {
  sessionStorage.setItem("warpseek-key", $("key-input").value.trim());
  start();
});
addEventListener("popstate", () => {
  readAddress();
  run();
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/** What may be filtered by: the fields of the chosen index. */
function fields() {
  const index = state.info.indexes.find((one) => one.name === $("index").value) ?? state.info.indexes[0];
  const names = Object.keys(index?.fields ?? {}).slice(0, 24);
  $("fields").replaceChildren(...["id", "title", ...names].map((name) => {
    const plain = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
    const chip = make("button", { type: "button" }, name);
    chip.addEventListener("click", () => {
      const box = $("filter");
      const joint = box.value.trim() ? `${box.value.trim()} AND ` : "";
      box.value = `${joint}${plain} = ''`;
      box.focus();
      box.setSelectionRange(box.value.length - 1, box.value.length - 1);
    });
    return chip;
  }));
}

async function start() {
  try {
    state.info = await (await call("info")).json();
  } catch (error) {
    return showProblem(error);
  }
  const { indexes, reranker } = state.info;
  $("index").replaceChildren(...indexes.map((index) => make("option", { value: index.name }, index.name)));
  $("index-label").hidden = indexes.length < 2;
  $("depth-label").hidden = !reranker;
  readAddress();
  if (indexes.length === 0) return message("There is no index here", "This server has models only. Start it with an index to search.");
  const rows = indexes.reduce((sum, index) => sum + index.rows, 0);
  $("what").textContent = `${plural(rows, "row")}, exact${reranker ? `, reranked by ${reranker}` : ""}`;
  fields();
  run();
}

start();
