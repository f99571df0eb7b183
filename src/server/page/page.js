"use strict";

// ---- Helpers. Documents are untrusted: their text enters the page only as text nodes, never as HTML. ----

const $ = (id) => document.getElementById(id);

function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || (value === false && !key.startsWith("aria-"))) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const count = (n) => Number(n).toLocaleString("en");
const ms = (n) => `${n < 10 ? n.toFixed(1) : Math.round(n)} ms`;
// A score that rounds to zero has no minus sign.
const score = (n) => (typeof n === "number" ? n.toFixed(4).replace(/^-0.0000$/, "0.0000") : "");

// Reads or writes a value in a storage. The browser may forbid storage; the page works without it.
function keep(storage, key, value) {
  try {
    if (value === undefined) return window[storage].getItem(key);
    window[storage].setItem(key, value);
  } catch { /* forbidden */ }
  return null;
}

// ---- Requests ----

class Refused extends Error {
  constructor(message, status, param, wait) {
    super(message);
    Object.assign(this, { status, param, wait });
  }
}

async function request(path, body, signal) {
  const headers = {};
  const key = keep("sessionStorage", "warpseek-key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.", 0);
  }
  if (response.ok) return response;
  let told = {};
  try { told = (await response.json()).error || {}; } catch { /* not JSON */ }
  const message = told.message || `The server answered ${response.status}.`;
  throw new Refused(message, response.status, told.param, response.headers.get("Retry-After"));
}

// ---- State: the form and the URL hold the same values ----

const state = { info: null, search: null, answer: null, later: null, reply: null, hits: new Map(), again: null };

function readForm() {
  const whole = (id, least, other) => {
    const value = parseInt($(id).value, 10);
    return Number.isFinite(value) ? Math.max(least, value) : other;
  };
  return {
    q: $("query").value.trim(),
    filter: $("filter").value.trim(),
    index: $("index").value,
    k: whole("k", 1, 10),
    depth: whole("depth", 0, 50),
    hybrid: $("hybrid").checked,
    mmr: $("mmr").checked,
    view: document.body.classList.contains("compare") ? "compare" : "results",
  };
}

function address(form) {
  const params = new URLSearchParams();
  if (form.q) params.set("q", form.q);
  if (form.filter) params.set("filter", form.filter);
  if (form.index && state.info && state.info.indexes.length > 1) params.set("index", form.index);
  if (form.k !== 10) params.set("k", form.k);
  if (form.depth !== 50) params.set("depth", form.depth);
  if (form.hybrid) params.set("hybrid", "1");
  if (form.mmr) params.set("mmr", "1");
  if (form.view === "compare") params.set("view", "compare");
  const text = params.toString();
  return text ? `/?${text}` : "/";
}

function readAddress() {
  const params = new URLSearchParams(location.search);
  $("query").value = params.get("q") || "";
  $("filter").value = params.get("filter") || "";
  $("k").value = params.get("k") || 10;
  $("depth").value = params.get("depth") || 50;
  $("hybrid").checked = params.has("hybrid");
  $("mmr").checked = params.has("mmr");
  const index = params.get("index");
  if (state.info) {
    const names = state.info.indexes.map((one) => one.name);
    if (names.length) $("index").value = names.includes(index) ? index : names[0];
    showFields();
  }
  setView(params.get("view") === "compare" ? "compare" : "results");
}

function setView(view) {
  document.body.classList.toggle("compare", view === "compare");
  $("view-results").setAttribute("aria-pressed", view === "results");
  $("view-compare").setAttribute("aria-pressed", view === "compare");
}

// ---- Searching ----

async function search(push) {
  const form = readForm();
  if (state.search) state.search.abort();
  stopAnswer();
  clearProblem();
  $("answer").hidden = true;
  const url = address(form);
  if (push && url !== location.pathname + location.search) history.pushState(null, "", url);
  document.title = form.q ? `${form.q} · warpseek` : "warpseek";
  document.body.classList.toggle("asked", form.q !== "");
  $("bar").hidden = form.q === "";
  $("landing").hidden = form.q !== "";
  state.later = null;
  if (!form.q) {
    state.search = null;
    document.body.classList.remove("busy");
    $("results").replaceChildren();
    $("facts").hidden = true;
    $("status").textContent = push ? "Write what you look for: words or a whole question." : "";
    if (push) $("query").focus();
    return showLanding();
  }
  const mine = (state.search = new AbortController());
  document.body.classList.add("busy");
  $("results").setAttribute("aria-busy", "true");
  $("status").textContent = "Searching…";
  const body = { query: form.q };
  if (form.index) body.index = form.index;
  if (form.filter) body.filter = form.filter;
  if (form.hybrid) body.hybrid = true;
  if (form.mmr) body.mmr = 0.5;
  let path = "/v1/search";
  if (form.view === "compare") {
    path = "/v1/compare";
    Object.assign(body, { k: Math.max(form.depth || 25, form.k), show: form.k });
  } else {
    Object.assign(body, { k: form.k, rerank_depth: state.info && state.info.reranker ? form.depth : 0, with_text: true, stream: true });
  }
  try {
    const response = await request(path, body, mine.signal);
    if (!(response.headers.get("Content-Type") || "").startsWith("text/event-stream")) {
      const reply = await response.json();
      if (mine === state.search) show(form, reply);
      return;
    }
    // The hits as they were retrieved come first, and are ordered anew when they are reranked.
    let ended = false;
    for await (const [name, reply] of events(response)) {
      if (mine !== state.search) return;
      if (name === "error") throw new Refused(reply.error.message, 0);
      if (name === "retrieved") {
        show(form, reply);
        $("status").textContent += ", reranking…";
        document.body.classList.remove("busy");
      } else if (name === "done") {
        ended = true;
        arrive(form, reply);
      }
    }
    if (!ended) throw new Refused("The reply broke off.", 0);
  } catch (error) {
    if (mine !== state.search || error.name === "AbortError") return;
    fail(error, form, () => search(false));
  } finally {
    if (mine === state.search) {
      document.body.classList.remove("busy");
      $("results").removeAttribute("aria-busy");
    }
  }
}

// True while the reader points at a hit, or reads one in the dialog.
const isPointedAt = () => document.querySelector("dialog[open], .hit:hover, .hit:focus-within") !== null;

// Shows the final order. While the reader points at a hit, nothing moves: the order waits until the reader leaves it.
function arrive(form, reply) {
  const before = new Map([...document.querySelectorAll(".hit")].map((hit) => [hit.dataset.row, hit]));
  const same = reply.hits.length === before.size && reply.hits.every((hit, at) => [...before.keys()][at] === String(hit.row));
  if (before.size && !same && isPointedAt()) {
    state.later = () => { state.later = null; reorder(form, reply); };
    $("status").textContent = "Reranked. ";
    $("status").append(el("button", { type: "button", class: "plain inline", onclick: () => state.later && state.later() }, "Show the new order"));
    return;
  }
  reorder(form, reply);
}

// Replaces the hits by those of the reply; hits that stay glide to their new places.
function reorder(form, reply) {
  const tops = new Map([...document.querySelectorAll(".hit")].map((hit) => [hit.dataset.row, hit.getBoundingClientRect().top]));
  show(form, reply);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const hit of document.querySelectorAll(".hit")) {
    const from = tops.get(hit.dataset.row);
    const by = from === undefined ? 0 : from - hit.getBoundingClientRect().top;
    if (by) hit.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 220, easing: "ease-out" });
  }
}

function clearProblem() {
  $("problem").hidden = true;
  $("filter-error").hidden = true;
  $("filter").removeAttribute("aria-invalid");
}

function fail(error, form, again) {
  $("results").replaceChildren();
  $("facts").hidden = true;
  $("answer-start").hidden = true;
  $("status").textContent = "";
  if (form && form.filter && error.param === "filter") {
    $("filter-error").textContent = error.message;
    $("filter-error").hidden = false;
    $("more-options").open = true;
    $("filter").setAttribute("aria-invalid", "true");
    return;
  }
  const problem = $("problem");
  problem.replaceChildren(el("p", {}, error.message));
  if (error.status === 429 || error.status === 503) {
    problem.append(el("p", {}, error.wait ? `The server is busy. Try again in ${error.wait} s.` : "The server is busy. Try again soon."));
  }
  problem.append(el("button", { type: "button", class: "second", onclick: again }, "Try again"));
  problem.hidden = false;
  if (error.status === 401) askKey(again);
}

function askKey(again) {
  state.again = again;
  $("key-value").value = "";
  if (!$("key").open) $("key").showModal();
}

// ---- Text ----

const COMMON = new Set("a an and are as at be by can do does for from how in is it of on or that the this to was what when where which who why with".split(" "));

function wordsOf(query) {
  const words = (query.toLowerCase().match(/[\p{L}\p{N}]+/gu) || []).filter((word) => word.length > 1 && !COMMON.has(word));
  if (!words.length) return null;
  return new RegExp(`(?<![\\p{L}\\p{N}])(?:${[...new Set(words)].join("|")})(?![\\p{L}\\p{N}])`, "giu");
}

function marked(text, words) {
  const out = document.createDocumentFragment();
  let at = 0;
  if (words) {
    for (const found of text.matchAll(words)) {
      out.append(text.slice(at, found.index), el("mark", {}, found[0]));
      at = found.index + found[0].length;
    }
  }
  out.append(text.slice(at));
  return out;
}

// Splits a text at a window of UTF-8 byte offsets: [before, window, after], or null if the window is the whole text.
function cut(text, window) {
  if (!window) return null;
  const bytes = new TextEncoder().encode(text);
  const [from, to] = window;
  if (from <= 0 && to >= bytes.length) return null;
  const part = (a, b) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.slice(a, b));
  return [part(0, from), part(from, to), part(to)];
}

function excerpt(hit, words) {
  let text = hit.text || "";
  const parts = cut(text, hit.window);
  let before = false;
  if (parts) { text = parts[1]; before = parts[0] !== ""; }
  if (hit.title && text.startsWith(hit.title)) text = text.slice(hit.title.length);
  text = text.trim().replace(/\s+/g, " ");
  // Start at the sentence that most words of the query follow within 300 characters.
  let start = 0;
  let best = -1;
  for (const found of text.matchAll(/(?:^|[.!?] )(?=\S)/g)) {
    const from = found.index + found[0].length;
    const near = words ? new Set((text.slice(from, from + 300).match(words) || []).map((word) => word.toLowerCase())).size : 0;
    if (near > best) { best = near; start = from; }
  }
  let piece = text.slice(start, start + 300);
  const more = start + 300 < text.length;
  if (more) piece = piece.replace(/\s+\S*$/, "");
  return `${start || before ? "… " : ""}${piece}${more ? " …" : ""}`;
}

// ---- Hits ----

// The scores of a hit, as the dialog explains them.
const SCORES = {
  rank: "Place in this list",
  retrieved_rank: "Place before reranking",
  score: "Similarity of the query's and the passage's vectors (cosine), or their combination with keyword scores",
  dense_score: "Similarity of the two vectors alone, a part of the combination",
  bm25_score: "Keyword score (BM25), the other part",
  rerank_score: "The reranker's estimate that the passage answers the query, 0 to 1",
  rerank_logit: "The reranker's output, of which the estimate is made",
  final_score: "The score that orders this list",
  low: "The passage hardly answers the query",
  tokens_lost: "Tokens at the end that the embedding model did not read",
};

const nameOf = (hit) => hit.title || hit.id || `row ${hit.row}`;

// A label for the change of rank.
function move(from, to) {
  if (from === to) return el("span", { class: "stay", title: "Same rank" }, "=");
  if (from === null || from === undefined) return el("span", { class: "new", title: "Not retrieved before" }, "new");
  const by = from - to;
  return el("span", { class: by > 0 ? "up" : "down", title: `From ${from} to ${to}` }, by > 0 ? `↑${by}` : `↓${-by}`);
}

const ORDERS = {
  cosine: "cosine", inner_product: "inner product", bm25: "BM25", hybrid: "cosine and BM25", reciprocal_ranks: "reciprocal ranks",
  diversity: "score", probability: "probability", rerank: "rerank score", blend: "score",
};

// The name of the score that orders a list.
const ordered = (reply) => ORDERS[reply && reply.ordered_by] || "score";

// The cards of hits, with a line in front of the first one that hardly answers the query.
function cards(hits, card) {
  const first = hits.findIndex((hit) => hit.low);
  const line = () => el("li", { class: "far" }, first ? "Nothing else is close" : "Nothing is close");
  return hits.flatMap((hit, i) => (i === first ? [line(), card(hit)] : [card(hit)]));
}

function card(hit, side, words, moved) {
  state.hits.set(`${side}-${hit.row}`, hit);
  const open = el("button", { type: "button", class: "open", "aria-haspopup": "dialog" }, nameOf(hit));
  const meta = el("div", { class: "meta" }, moved);
  // The score that orders the list; the passage dialog has the others.
  const by = side === "first" ? "retrieval score" : ordered(state.reply);
  if (typeof hit.final_score === "number") meta.append(el("span", { title: `Ordered by ${by}` }, `${by} ${score(hit.final_score)}`));
  else meta.append(el("span", { title: "In retrieval order" }, "not reranked"));
  if (hit.title) meta.append(el("span", {}, hit.id));
  for (const [name, value] of shortFields(hit)) meta.append(el("span", { title: name }, value));
  const actions = el("div", { class: "actions" });
  const link = linkOf(hit);
  if (link) actions.append(el("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, "Open link"));
  actions.append(el("button", { type: "button", class: "plain", "data-copy": true, "aria-label": `Copy passage ${hit.rank}` }, "Copy"));
  meta.append(actions);
  return el("li", { class: hit.low ? "hit low" : "hit", "data-row": hit.row, "data-side": side, "data-id": hit.id },
    el("span", { class: "rank" }, String(hit.rank)),
    el("div", {}, el("h3", {}, open), el("p", { dir: "auto" }, marked(excerpt(hit, words), words)), meta));
}

// The address in a hit's metadata: only http and https.
function linkOf(hit) {
  const values = ["url", "source", "link", "uri", "href", "pdf_url"].map((name) => (hit.metadata || {})[name]);
  return values.find((value) => typeof value === "string" && /^https?:\/\/[^\s]+$/i.test(value));
}

// Up to three short metadata fields: first those that say where and when.
function shortFields(hit) {
  const first = ["page", "slide", "sheet", "section", "line", "author", "authors", "published", "date", "year", "category", "primary_category"];
  const place = (name) => (first.includes(name) ? first.indexOf(name) : first.length);
  const text = (value) => (Array.isArray(value) ? value.filter((one) => typeof one === "string").join(", ") : String(value));
  return Object.entries(hit.metadata || {})
    .filter(([, value]) => ["string", "number"].includes(typeof value) || (Array.isArray(value) && value.some((one) => typeof one === "string")))
    .map(([name, value]) => [name, text(value)])
    .filter(([name, value]) => value && value.length <= 40 && !/^https?:/i.test(value) && value !== hit.title && place(name) < first.length)
    .sort((a, b) => place(a[0]) - place(b[0]))
    .slice(0, 3)
    .map(([name, value]) => [name, ["page", "slide", "sheet", "section", "line"].includes(name) ? `${name} ${value}` : value]);
}

async function copy(hit, button) {
  const text = [hit.title, hit.text, linkOf(hit) || hit.id].filter(Boolean).join("\n");
  let done = "Copied";
  try { await navigator.clipboard.writeText(text); } catch { done = "Not allowed"; }
  button.textContent = done;
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function show(form, reply) {
  state.reply = reply;
  state.hits.clear();
  const compared = form.view === "compare";
  const hits = compared ? reply.after : reply.hits;
  const words = wordsOf(form.q);
  facts(form, reply, hits);
  $("answer-start").hidden = !(state.info && state.info.answers && hits.length);
  if (!hits.length) {
    const starved = form.filter && reply.matched_rows === 0;
    $("results").replaceChildren(el("div", { class: "none" },
      el("strong", {}, starved ? "No rows pass this filter" : "Nothing found"),
      starved ? "Change the filter, or clear it." : "Try other words."));
    return;
  }
  if (compared) return showPair(reply, words);
  const moves = hits.some((hit) => hit.rerank_score !== undefined && hit.rerank_score !== null);
  $("results").replaceChildren(el("ol", { class: "hits" },
    ...cards(hits, (hit) => card(hit, "one", words, moves ? move(hit.retrieved_rank, hit.rank) : null))));
  const limit = Math.min(reply.matched_rows, state.info ? state.info.limits.max_hits : 100, 100);
  if (hits.length === form.k && form.k < limit) {
    $("results").append(el("button", { type: "button", class: "second more", onclick: () => { $("k").value = Math.min(form.k + 10, limit); search(true); } }, "More"));
  }
}

function facts(form, reply, hits) {
  const among = reply.matched_rows === reply.total_rows ? `${count(reply.total_rows)} rows` : `${count(reply.matched_rows)} of ${count(reply.total_rows)} rows`;
  $("status").textContent = `${count(hits.length)} ${hits.length === 1 ? "hit" : "hits"} among ${among}, ${ms(reply.took_ms.total)}`;
  const said = [];
  const first = hits[0];
  const second = reply.second || "reranked";
  if (first && first.retrieved_rank && first.retrieved_rank !== first.rank) said.push(`${second} #1 was retrieved #${first.retrieved_rank}`);
  if (reply.churn) {
    const { kept, first_changed, kendall_tau } = reply.churn;
    if (!first_changed) said.push("the first stayed first");
    said.push(`${kept} of ${hits.length} kept`);
    if (typeof kendall_tau === "number") said.push(`Kendall’s tau ${kendall_tau.toFixed(2)}`);
  }
  const line = said.join(" · ");
  $("churn").textContent = line && line[0].toUpperCase() + line.slice(1);
  $("churn").hidden = !line;
  $("times").replaceChildren(...Object.entries(reply.took_ms)
    .filter(([step, took]) => step !== "total" && took >= 0.05)
    .map(([step, took]) => el("div", {}, el("dt", {}, step), el("dd", {}, ms(took)))));
  const warnings = reply.warnings || [];
  $("warnings").replaceChildren(...warnings.map((one) => el("li", {}, typeof one === "string" ? one : one.message || JSON.stringify(one))));
  $("warnings").hidden = !warnings.length;
  $("facts").hidden = false;
}

// ---- Compare ----

const SVG = "http://www.w3.org/2000/svg";

function showPair(reply, words) {
  const now = new Map(reply.rank_map.map((one) => [one.row, one.rank]));
  const title = reply.second === "hybrid" ? "Hybrid" : "Reranked";
  const column = (name, side, hits, moved) => el("div", { class: `column ${side}` },
    el("h2", {}, name), el("ol", { class: "hits", "aria-label": name }, ...cards(hits, (hit) => card(hit, side, words, moved(hit)))));
  const lines = document.createElementNS(SVG, "svg");
  lines.setAttribute("class", "lines");
  lines.setAttribute("aria-hidden", "true");
  const pair = el("div", { class: "pair", "data-side": "last" },
    column("Retrieved", "first", reply.before, (hit) => {
      const to = now.get(hit.row);
      return to === undefined ? el("span", { class: "down" }, "dropped") : el("span", {}, `→ #${to}`);
    }),
    column(title, "last", reply.after, (hit) => move(hit.retrieved_rank, hit.rank)),
    lines);
  const tab = (name, side) => el("button", { type: "button", "aria-pressed": side === "last", "data-tab": side, onclick: () => pick(side) }, name);
  const tabs = el("div", { class: "tabs", role: "group", "aria-label": "Ranking" }, tab("Retrieved", "first"), tab(title, "last"));
  const pick = (side) => {
    pair.dataset.side = side;
    for (const one of tabs.children) one.setAttribute("aria-pressed", one.dataset.tab === side);
  };
  $("results").replaceChildren(tabs, pair);
  const light = (event) => {
    const hit = event.target.closest && event.target.closest(".hit");
    const row = hit && event.type !== "mouseleave" && event.type !== "focusout" ? hit.dataset.row : null;
    for (const one of pair.querySelectorAll("[data-row]")) one.classList.toggle("same", one.dataset.row === row);
    lines.classList.toggle("some", row !== null && lines.querySelector(".same") !== null);
  };
  for (const kind of ["mouseover", "mouseleave", "focusin", "focusout"]) pair.addEventListener(kind, light);
  watcher.disconnect();
  watcher.observe(pair);
  draw();
}

function draw() {
  const pair = document.querySelector(".pair");
  const lines = pair && pair.querySelector(".lines");
  if (!lines) return;
  const box = pair.getBoundingClientRect();
  const left = new Map([...pair.querySelectorAll(".first .hit")].map((hit) => [hit.dataset.row, hit]));
  const paths = [];
  for (const hit of pair.querySelectorAll(".last .hit")) {
    const mate = left.get(hit.dataset.row);
    if (!mate) continue;
    const a = mate.getBoundingClientRect();
    const b = hit.getBoundingClientRect();
    const [x1, y1, x2, y2] = [a.right - box.left, a.top + 22 - box.top, b.left - box.left, b.top + 22 - box.top];
    const middle = (x1 + x2) / 2;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`);
    path.dataset.row = hit.dataset.row;
    const ranks = [mate, hit].map((one) => Number(one.querySelector(".rank").textContent));
    path.setAttribute("class", ranks[1] < ranks[0] ? "rise" : "");
    paths.push(path);
  }
  lines.replaceChildren(...paths);
}

const watcher = new ResizeObserver(draw);

// ---- Passage dialog ----

function table(rows) {
  return el("table", {}, el("tbody", {}, ...rows.map(([name, value, about]) =>
    el("tr", {}, el("th", { scope: "row" }, name),
      el("td", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value), about ? el("span", { class: "about" }, about) : null)))));
}

function openHit(hit, range) {
  const parts = cut(hit.text || "", range || hit.window);
  const text = el("p", { class: "whole", dir: "auto" });
  if (parts) text.append(parts[0], el("mark", { class: "window" }, parts[1]), parts[2]);
  else text.append(hit.text || "");
  const scores = ["rank", "retrieved_rank", "score", "dense_score", "bm25_score", "rerank_score", "rerank_logit", "final_score", "low", "tokens_lost"]
    .filter((name) => hit[name] !== undefined && hit[name] !== null).map((name) => [name, hit[name], SCORES[name]]);
  const detail = $("detail");
  detail.replaceChildren(
    el("div", { class: "dialog-head" }, el("h2", { id: "detail-title" }, nameOf(hit)),
      el("button", { type: "button", class: "plain", "data-close": true, "aria-label": "Close" }, "×")),
    el("p", { class: "quiet" }, `${hit.id}${hit.doc_id && hit.doc_id !== hit.id ? `, document ${hit.doc_id}` : ""}`),
    text);
  if (parts) detail.append(el("p", { class: "quiet" }, range ? "The quoted words are marked." : "The reranker’s best window is marked."));
  if (scores.length) detail.append(el("h3", {}, "Scores"), table(scores));
  const metadata = Object.entries(hit.metadata || {});
  if (metadata.length) detail.append(el("h3", {}, "Metadata"), table(metadata));
  if (!detail.open) detail.showModal();
  detail.scrollTop = 0;
}

// ---- Answer ----

function stopAnswer() {
  if (state.answer) state.answer.abort();
  state.answer = null;
}

async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let name = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) yield [name, JSON.parse(data.join("\n"))];
        name = "message";
        data = [];
      } else if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
    if (done) return;
  }
}

async function answer() {
  stopAnswer();
  const form = readForm();
  const mine = (state.answer = new AbortController());
  const pane = $("answer");
  const said = el("p", { class: "said", "aria-busy": "true" });
  const note = el("p", { class: "quiet", role: "status" }, "Reading the passages…");
  const stop = el("button", { type: "button", class: "plain stop", onclick: () => { stopAnswer(); stop.remove(); note.textContent = "Stopped."; } }, "Stop");
  pane.replaceChildren(stop, el("h2", {}, "Answer"), said, note);
  pane.hidden = false;
  const body = { query: form.q, k: form.k, rerank_depth: state.info.reranker ? form.depth : 0, stream: true };
  if (form.hybrid) body.hybrid = true;
  if (form.mmr && form.view === "results") body.mmr = 0.5;
  if (form.index) body.index = form.index;
  if (form.filter) body.filter = form.filter;
  let passages = [];
  let ended = false;
  try {
    const response = await request("/v1/answer", body, mine.signal);
    for await (const [name, data] of events(response)) {
      if (mine !== state.answer) return;
      if (name === "hits") {
        passages = (data.passages || []).map((one) => ({ ...(data.hits || []).find((hit) => hit.id === one.id), ...one }));
        note.textContent = `Writing from ${passages.length} passages…`;
      } else if (name === "text") said.append(data.text);
      else if (name === "unsupported") said.append(el("span", { class: "unsupported" }, " [unsupported] "));
      else if (name === "retry") { said.replaceChildren(); note.textContent = `Trying again: ${data.reason}`; }
      else if (name === "error") throw new Refused(data.error.message, 0);
      else if (name === "done") { ended = true; finish(said, note, pane, data, passages); }
    }
    if (!ended) throw new Refused("The answer broke off.", 0);
  } catch (error) {
    if (mine !== state.answer || error.name === "AbortError") return;
    note.className = "unsupported";
    note.textContent = error instanceof Refused ? error.message : "The answer broke off.";
    if (error.wait) note.textContent += ` Try again in ${error.wait} s.`;
    if (error.status === 401) askKey(answer);
  } finally {
    stop.remove();
    said.removeAttribute("aria-busy");
  }
}

function finish(said, note, pane, done, passages) {
  note.textContent = [done.refused ? "The passages do not answer this" : "", done.model || ""].filter(Boolean).join(" · ");
  if (!done.sentences || !done.sentences.length) {
    said.textContent = done.answer || said.textContent;
    return;
  }
  said.replaceChildren();
  const quotes = el("ul", { class: "quotes" });
  for (const sentence of done.sentences) {
    said.append(sentence.text);
    if (!sentence.supported && !done.refused) said.append(el("span", { class: "unsupported" }, " [unsupported]"));
    for (const one of sentence.citations || []) {
      const number = one.passage ?? one.cited;
      const passage = passages.find((each) => each.number === number);
      const chip = () => el("button", {
        type: "button", class: `cite ${one.status}`, disabled: !passage, title: one.quote,
        "aria-label": `Passage ${number ?? "unknown"}, quote ${one.status}`,
        onclick: () => passage && openHit(passage, one.range),
      }, number === null || number === undefined ? "?" : String(number));
      said.append(chip());
      const where = one.status === "misattributed" ? `cited ${one.cited ?? "none"}, found in ${one.passage ?? "another passage"}` : one.status;
      quotes.append(el("li", {}, `“${one.quote}” `, chip(), ` ${where}`));
    }
    said.append(" ");
  }
  if (quotes.children.length) pane.append(el("details", {}, el("summary", {}, "Quotes"), quotes));
}

// ---- Before the first search: the content of the index ----

async function showLanding() {
  const pane = $("landing");
  const index = state.info && (state.info.indexes.find((one) => one.name === $("index").value) || state.info.indexes[0]);
  if (!index || pane.dataset.of === index.name) return;
  pane.dataset.of = index.name;
  let about;
  try {
    about = await (await request(`/v1/overview?index=${encodeURIComponent(index.name)}`)).json();
  } catch {
    delete pane.dataset.of;
    return;
  }
  if (pane.dataset.of !== index.name) return;
  const ask = (text) => { $("query").value = text; search(true); };
  const parts = [el("p", { class: "quiet" }, `${count(index.documents)} documents, ${count(about.rows)} passages`)];
  if (about.titles.length) {
    parts.push(el("h2", {}, "For example"), el("div", { class: "chips" },
      ...about.titles.map((title) => el("button", { type: "button", class: "chip ask-for", onclick: () => ask(title) }, title))));
  }
  const fields = about.fields.filter((field) => field.values.length);
  if (fields.length) {
    parts.push(el("h2", {}, "Filter by"), el("dl", { class: "values" }, ...fields.slice(0, 8).flatMap((field) => [
      el("dt", {}, field.name),
      el("dd", { class: "chips" }, ...field.values.map(({ value }) => el("button", {
        type: "button", class: "chip", onclick: () => filterBy(field, value) }, String(value)))),
    ])));
  }
  pane.replaceChildren(...parts);
}

// Adds a condition on a field's value to the filter.
function filterBy(field, value) {
  const text = typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value);
  addField(field.name);
  $("filter").value = `${$("filter").value.trim()} ${field.types.includes("array") ? "CONTAINS" : "="} ${text}`;
}

// ---- Files that are dropped on the page ----

const READS = /\.(txt|text|md|markdown|jsonl|ndjson)$/i;

async function upload(files) {
  const tell = (text) => { $("status").textContent = text; };
  const documents = [];
  for (const file of files) {
    if (!READS.test(file.name)) return tell(`${file.name}: the page takes txt, md and jsonl files; \`warpseek index\` takes more.`);
    const text = await file.text();
    if (!/\.(jsonl|ndjson)$/i.test(file.name)) {
      documents.push({ id: file.name, title: file.name, text });
      continue;
    }
    for (const [number, line] of text.split("\n").entries()) {
      if (!line.trim()) continue;
      try { documents.push(JSON.parse(line)); } catch { return tell(`${file.name}, line ${number + 1}: this is not JSON. Nothing was added.`); }
    }
  }
  if (!documents.length) return tell("These files are empty.");
  const most = state.info.limits.max_inputs;
  let added = 0;
  try {
    for (let at = 0; at < documents.length; at += most) {
      tell(`Adding ${count(documents.length)} documents…`);
      const part = documents.slice(at, at + most);
      await request("/v1/documents", { index: $("index").value || undefined, documents: part });
      added += part.length;
    }
    tell(`${count(added)} ${added === 1 ? "document is" : "documents are"} in the index.`);
  } catch (error) {
    tell(`${error.message} ${count(added)} of ${count(documents.length)} documents were added.`);
    if (error.status === 401) askKey(() => upload(files));
  }
  delete $("landing").dataset.of;
}

const takesFiles = (event) => state.info && !state.info.read_only && event.dataTransfer && [...event.dataTransfer.types].includes("Files");

document.addEventListener("dragover", (event) => {
  if (!takesFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("drop");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("drop"); });
document.addEventListener("drop", (event) => {
  document.body.classList.remove("drop");
  if (!takesFiles(event)) return;
  event.preventDefault();
  upload([...event.dataTransfer.files]);
});

// ---- Fields, theme, keys ----

function showFields() {
  const index = state.info.indexes.find((one) => one.name === $("index").value) || state.info.indexes[0];
  const names = Object.keys((index && index.fields) || {});
  $("fields-box").hidden = !names.length;
  $("fields").replaceChildren(...names.map((name) => el("button", { type: "button", class: "chip", onclick: () => addField(name) }, name)));
}

function addField(name) {
  const box = $("filter");
  const plain = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
  const before = box.value.trim();
  box.value = `${before}${before && !/(\band|\bor|\bnot|\()$/i.test(before) ? " AND " : before ? " " : ""}${plain} `;
  box.focus();
}

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function setTheme(theme) {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
}

function step(by) {
  const all = [...document.querySelectorAll(".hit .open")].filter((one) => one.offsetParent);
  const here = document.activeElement && document.activeElement.closest(".hit");
  const side = here ? here.dataset.side : all.some((one) => one.closest(".last")) ? "last" : "one";
  const list = all.filter((one) => one.closest(".hit").dataset.side === side);
  const at = here ? list.findIndex((one) => here.contains(one)) : -1;
  const next = list[Math.min(list.length - 1, Math.max(0, at + by))];
  if (next) { next.focus({ preventScroll: true }); next.closest(".hit").scrollIntoView({ block: "nearest" }); }
}

function cross() {
  const here = document.activeElement && document.activeElement.closest(".pair .hit");
  if (!here) return;
  const others = [...document.querySelectorAll(".pair .hit")].filter((one) => one.dataset.side !== here.dataset.side);
  const rank = Number(here.querySelector(".rank").textContent);
  const next = others.find((one) => one.dataset.row === here.dataset.row) || others[Math.min(others.length, rank) - 1];
  if (next) next.querySelector(".open").focus();
}

function changeView(view) {
  if (readForm().view === view) return;
  setView(view);
  search(true);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target;
  if (document.querySelector("dialog[open]")) return;
  if (target.matches("input, select, textarea")) {
    if (event.key === "Escape") target.blur();
    else if (event.key === "ArrowDown" && target.id === "query") { event.preventDefault(); step(1); }
    return;
  }
  const act = {
    "/": () => { $("query").focus(); $("query").select(); },
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    ArrowLeft: cross, ArrowRight: cross,
    o: () => target.closest(".hit") && target.click(),
    c: () => changeView(document.body.classList.contains("compare") ? "results" : "compare"),
    "?": () => $("help").showModal(),
  }[event.key];
  if (!act) return;
  if (event.key.startsWith("Arrow") && !document.querySelector(".hit")) return;
  event.preventDefault();
  act();
});

document.addEventListener("click", (event) => {
  const close = event.target.closest("[data-close]");
  if (close) return close.closest("dialog").close();
  if (event.target.matches("dialog")) return event.target.close(); // the backdrop
  const hit = event.target.closest(".hit");
  if (hit && event.target.closest("[data-copy]")) return copy(state.hits.get(`${hit.dataset.side}-${hit.dataset.row}`), event.target);
  if (event.target.closest("a")) return;
  if (hit && (event.target.closest(".open") || String(getSelection()) === "")) openHit(state.hits.get(`${hit.dataset.side}-${hit.dataset.row}`));
});

$("form").addEventListener("submit", (event) => { event.preventDefault(); search(true); });
// Enter in a text box submits the form; changed options search at once.
for (const id of ["hybrid", "mmr", "index", "k", "depth"]) $(id).addEventListener("change", () => { if (id === "index") { showFields(); if (!$("query").value.trim()) showLanding(); } if ($("query").value.trim()) search(true); });
$("view-results").addEventListener("click", () => changeView("results"));
$("view-compare").addEventListener("click", () => changeView("compare"));
$("answer-start").addEventListener("click", answer);
$("help-open").addEventListener("click", () => $("help").showModal());
$("theme").addEventListener("click", () => { const theme = isDark() ? "light" : "dark"; keep("localStorage", "warpseek-theme", theme); setTheme(theme); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme());
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keep("sessionStorage", "warpseek-key", $("key-value").value.trim());
  $("key").close();
  const again = state.again;
  if (!state.info) await start();
  else if (again) again();
});
// A waiting order is shown when the reader leaves the hits.
for (const kind of ["mouseout", "focusout"]) $("results").addEventListener(kind, () => setTimeout(() => {
  if (state.later && !isPointedAt()) state.later();
}));
window.addEventListener("popstate", () => { if ($("detail").open) $("detail").close(); readAddress(); search(false); });

async function start() {
  if (matchMedia("(max-width: 760px)").matches) $("more-options").open = false;
  readAddress();
  try {
    state.info = await (await request("/info")).json();
  } catch (error) {
    document.body.classList.add("asked");
    return fail(error, null, start);
  }
  clearProblem();
  const { indexes, reranker, device } = state.info;
  $("index").replaceChildren(...indexes.map((one) => el("option", { value: one.name }, one.name)));
  $("index-label").hidden = indexes.length < 2;
  const rows = indexes.reduce((sum, one) => sum + one.rows, 0);
  $("about").textContent = [`${count(rows)} rows`, device, reranker || "no reranker"].filter(Boolean).join(" · ");
  $("depth").disabled = !reranker;
  readAddress();
  await search(false);
}

setTheme(keep("localStorage", "warpseek-theme"));
start();
