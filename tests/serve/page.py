"""Tests the web page of a running `warpseek serve` in headless Chromium.

    python tests/serve/page.py [URL] [--chromium PATH] [--screenshots DIR]

WARPSEEK_URL may give the URL. The page is compared with replies of the server itself.
"""

import argparse
import json
import os
import shutil
import sys
import traceback
import urllib.request
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import expect, sync_playwright

QUERY = "how do models learn"
NONE = "id = 'no such id'"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Run:
    def __init__(self, url, browser, screenshots):
        self.url = url.rstrip("/")
        self.browser = browser
        self.screenshots = screenshots
        self.info = self.call("/info")
        self.index = self.info["indexes"][0]["name"]

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)

    def search(self, **more):
        return self.call("/v1/search", {"index": self.index, "query": QUERY, "k": 10, "rerank_depth": 50 if self.info["reranker"] else 0, "with_text": True, **more})

    def compare(self):
        return self.call("/v1/compare", {"index": self.index, "query": QUERY, "k": 50, "show": 10})

    def at(self, **params):
        return f"{self.url}/?{urlencode(params)}"

    def shoot(self, page, name):
        if self.screenshots:
            page.screenshot(path=os.path.join(self.screenshots, f"{name}.png"))


def rows(page, side="one"):
    return page.locator(f".hit[data-side={side}]").evaluate_all("all => all.map(one => Number(one.dataset.row))")


def same(got, wanted, what):
    assert got == wanted, f"{what}: the page has {got!r}, the server {wanted!r}"


def found(page):
    """Waits for the final order: the retrieved hits are shown first, and reordered when they are reranked."""
    page.locator("#results:not([aria-busy]) .hit:visible").first.wait_for()


def loaded(page, run, **params):
    page.goto(run.at(**params))
    found(page)


def canned(page, path, status=200, body=None, headers=None, kind="application/json"):
    text = body if isinstance(body, str) else json.dumps(body)
    page.route(f"**{path}", lambda route: route.fulfill(status=status, body=text, headers={"Content-Type": kind, **(headers or {})}))


def refusal(message, param=None):
    return {"error": {"message": message, "type": "test", "param": param, "code": None}}


def test_search(page, run):
    page.goto(run.url)
    run.shoot(page, "start")
    page.fill("#query", QUERY)
    page.press("#query", "Enter")
    found(page)
    reply = run.search()
    same(rows(page), [hit["row"] for hit in reply["hits"]], "hits")
    names = page.locator(".hit .open").all_text_contents()
    same(names, [hit.get("title") or hit["id"] for hit in reply["hits"]], "titles")
    expect(page.locator("#status")).to_contain_text(f"{len(reply['hits'])} hits among {reply['total_rows']:,} rows")
    assert "q=" in page.url, "the query is not in the address"
    run.shoot(page, "results")


def test_address(page, run):
    loaded(page, run, q=QUERY, k=3)
    same(len(rows(page)), 3, "hits of k=3")
    page.click("#view-compare")
    page.locator(".pair").wait_for()
    page.reload()
    page.locator(".pair").wait_for()
    page.go_back()
    page.locator(".hit[data-side=one]").first.wait_for()
    expect(page.locator("#k")).to_have_value("3")
    expect(page.locator("#query")).to_have_value(QUERY)


def test_filter(page, run):
    wanted = run.search()["hits"][0]
    condition = "id = '" + wanted["id"].replace("'", "''") + "'"
    reply = run.search(filter=condition)
    loaded(page, run, q=QUERY)
    page.fill("#filter", condition)
    page.press("#filter", "Enter")
    expect(page.locator(".hit")).to_have_count(len(reply["hits"]))
    found(page)
    same(rows(page), [hit["row"] for hit in reply["hits"]], "hits that pass the filter")


def test_filter_error(page, run):
    page.goto(run.at(q=QUERY, filter="no_such_field = 1"))
    error = page.locator("#filter-error")
    expect(error).to_be_visible()
    assert error.text_content().strip(), "the filter error is empty"
    expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#problem")).to_be_hidden()
    run.shoot(page, "filter-error")


def test_empty(page, run):
    same(run.search(filter=NONE)["hits"], [], "a filter that nothing passes")
    page.goto(run.at(q=QUERY, filter=NONE))
    expect(page.locator(".none")).to_contain_text("No rows pass this filter")
    run.shoot(page, "empty")


def test_compare(page, run):
    loaded(page, run, q=QUERY, view="compare")
    reply = run.compare()
    before = [hit["row"] for hit in reply["before"]]
    after = [hit["row"] for hit in reply["after"]]
    same(rows(page, "first"), before, "retrieved")
    same(rows(page, "last"), after, "reranked")
    lines = page.locator(".lines path").evaluate_all("all => all.map(one => Number(one.dataset.row))")
    same(lines, [row for row in after if row in before], "lines")
    expect(page.locator("#churn")).to_contain_text(f"{reply['churn']['kept']} of {len(after)} kept")
    run.shoot(page, "compare")


def test_keys(page, run):
    loaded(page, run, q=QUERY)
    page.evaluate("document.activeElement.blur()")
    focused = "document.activeElement.closest('.hit')?.querySelector('.rank').textContent"
    page.keyboard.press("j")
    same(page.evaluate(focused), "1", "j")
    page.keyboard.press("ArrowDown")
    same(page.evaluate(focused), "2", "arrow down")
    page.keyboard.press("k")
    same(page.evaluate(focused), "1", "k")
    hit = run.search()["hits"][0]
    for key in ("o", "Enter"):
        page.keyboard.press(key)
        expect(page.locator("#detail")).to_be_visible()
        same(page.locator(".whole").text_content(), hit["text"], f"the passage that {key} opens")
        if key == "o":
            run.shoot(page, "detail")
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_be_hidden()
        same(page.evaluate(focused), "1", "focus after Escape")
    page.keyboard.press("c")
    page.locator(".pair").wait_for()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    same(page.evaluate("document.activeElement.id"), "query", "/")


def test_window(page, run):
    reply = run.search()
    reply["hits"] = reply["hits"][:1]
    text = "é€😀 before. The window ☃. After."
    start, end = (len(text[: text.index(mark)].encode()) for mark in ("The", " After"))
    reply["hits"][0].update(text=text, window=[start, end])
    canned(page, "/v1/search", body=reply)
    loaded(page, run, q=QUERY)
    page.click(".hit .open")
    same(page.locator(".whole mark.window").text_content(), "The window ☃.", "window")
    same(page.locator(".whole").text_content(), text, "text")


def test_hostile(page, run):
    reply = run.search()
    reply["hits"] = reply["hits"][:1]
    reply["hits"][0].update(title=HOSTILE, text=HOSTILE, window=None, metadata={HOSTILE: HOSTILE})
    canned(page, "/v1/search", body=reply)
    loaded(page, run, q=QUERY)
    same(page.locator(".open").text_content(), HOSTILE, "title")
    page.click(".hit .open")
    same(page.locator(".whole").text_content(), HOSTILE, "text")
    same(page.locator("main img, dialog img, main script, dialog script").count(), 0, "elements made by a document")
    assert page.title() != "owned", "a document ran a script"


def test_unreachable(page, run):
    page.route("**/v1/search", lambda route: route.abort())
    page.goto(run.at(q=QUERY))
    expect(page.locator("#problem")).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/search")
    page.click("#problem button")
    found(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_error(page, run):
    canned(page, "/v1/search", 500, refusal("the message of the server"))
    page.goto(run.at(q=QUERY))
    expect(page.locator("#problem")).to_contain_text("the message of the server")
    run.shoot(page, "error")


def test_busy(page, run):
    for status in (429, 503):
        canned(page, "/v1/search", status, refusal("the queue is full"), {"Retry-After": "7"})
        page.goto(run.at(q=QUERY))
        expect(page.locator("#problem")).to_contain_text("Try again in 7 s")
        page.unroute("**/v1/search")


def test_key(page, run):
    sent = []

    def guard(route):
        sent.append(route.request.headers.get("authorization"))
        if sent[-1] == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json=refusal("a key is needed"))

    page.route("**/v1/search", guard)
    page.goto(run.at(q=QUERY))
    expect(page.locator("#key")).to_be_visible()
    page.fill("#key-value", "secret")
    page.press("#key-value", "Enter")
    found(page)
    same(sent, [None, "Bearer secret"], "keys sent")


def test_superseded(page, run):
    held = []

    def hold(route):
        if route.request.post_data_json["query"] == "first":
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", hold)
    page.goto(run.at(q="first"))
    expect(page.locator("#status")).to_have_text("Searching…")
    page.fill("#query", QUERY)
    page.press("#query", "Enter")
    found(page)
    same(len(held), 1, "held requests")
    assert held[0].request.failure, "the superseded request was not aborted"


def sse(*events):
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)


def test_reordering(page, run):
    """The reranked order replaces the retrieved one, but not while the reader points at a hit."""
    retrieved, reranked = run.search(rerank_depth=0, k=5), run.search(k=5)
    reranked["hits"] = [dict(hit, rank=rank) for rank, hit in enumerate(reversed(retrieved["hits"]), 1)]
    before, after = ([hit["row"] for hit in reply["hits"]] for reply in (retrieved, reranked))
    page.goto(run.url)
    # The page's own reader of events gets one event now, and the other when the test says so.
    page.evaluate("""([first, second]) => {
        const real = window.fetch;
        const bytes = (text) => new TextEncoder().encode(text);
        window.fetch = (path, options) => {
            if (path !== "/v1/search") return real(path, options);
            const body = new ReadableStream({ start(controller) {
                controller.enqueue(bytes(first));
                window.rerank = () => { controller.enqueue(bytes(second)); controller.close(); };
            } });
            return Promise.resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
        };
    }""", [sse(("retrieved", retrieved)), sse(("done", reranked))])
    for pointed in (False, True):
        page.mouse.move(0, 0)
        page.fill("#query", f"{QUERY} {pointed}")
        page.press("#query", "Enter")
        expect(page.locator("#status")).to_contain_text("reranking…")
        same(rows(page), before, "retrieved hits")
        if pointed:
            page.locator(".hit").nth(2).hover()
        page.evaluate("window.rerank()")
        if pointed:
            expect(page.locator("#status")).to_contain_text("Show the new order")
            same(rows(page), before, "hits while one is pointed at")
            page.mouse.move(0, 0)
        expect(page.locator("#status")).to_contain_text("hits among")
        expect(page.locator(".hit").first).to_have_attribute("data-row", str(after[0]))
        same(rows(page), after, "reranked hits")


def test_landing(page, run):
    overview = run.call(f"/v1/overview?index={run.index}")
    page.goto(run.url)
    landing = page.locator("#landing")
    expect(landing).to_contain_text(f"{overview['rows']:,} passages")
    same(landing.locator(".ask-for").all_text_contents(), overview["titles"], "titles")
    run.shoot(page, "landing")
    field = next((field for field in overview["fields"] if field["values"] and "array" not in field["types"]), None)
    if field:
        page.locator(".values .chip").first.click()
        assert page.locator("#filter").input_value(), "the filter is empty"
    page.fill("#filter", "")
    page.press("#query", "Enter")
    expect(page.locator("#status")).to_contain_text("Write what you look for")
    if overview["titles"]:
        landing.locator(".ask-for").first.click()
        found(page)
        expect(page.locator("#query")).to_have_value(overview["titles"][0])
        expect(landing).to_be_hidden()


def test_more(page, run):
    loaded(page, run, q=QUERY, k=3)
    page.click(".more")
    expect(page.locator(".hit")).to_have_count(min(13, run.search()["matched_rows"]))
    assert "k=13" in page.url, "the number of hits is not in the address"


def test_links(page, run):
    reply = run.search()
    reply["hits"] = reply["hits"][:2]
    reply["hits"][0]["metadata"] = {"url": "https://example.org/a", "page": 3, "author": "A. Writer", "secret": "x"}
    reply["hits"][1]["metadata"] = {"url": "javascript:alert(1)"}
    canned(page, "/v1/search", body=reply)
    loaded(page, run, q=QUERY)
    links = page.locator(".hit a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    same(links, ["https://example.org/a"], "links")
    meta = page.locator(".hit .meta").first
    expect(meta).to_contain_text("page 3")
    expect(meta).to_contain_text("A. Writer")
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.locator(".hit").first.hover()
    page.locator("[data-copy]").first.click()
    expect(page.locator("[data-copy]").first).to_have_text("Copied")
    assert page.evaluate("window.copied").endswith("https://example.org/a"), "copied text"
    expect(page.locator("#detail")).to_be_hidden()


def test_dropped_files(page, run):
    sent = []

    def take(route):
        sent.append(route.request.post_data_json)
        route.fulfill(status=200, json={"added": 2})

    page.route("**/v1/documents", take)
    drop = """(names) => {
        const data = new DataTransfer();
        for (const [name, text] of names) data.items.add(new File([text], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    canned(page, "/info", body={**run.info, "read_only": False})
    page.goto(run.url)
    expect(page.locator("#landing")).to_contain_text("passages")
    page.evaluate(drop, [["a.txt", "first"], ["b.jsonl", '{"id": "b", "text": "second"}\n\n']])
    expect(page.locator("#status")).to_contain_text("2 documents are in the index")
    same(sent[0]["documents"], [{"id": "a.txt", "title": "a.txt", "text": "first"}, {"id": "b", "text": "second"}], "documents")
    page.evaluate(drop, [["c.pdf", "x"]])
    expect(page.locator("#status")).to_contain_text("c.pdf: the page takes")
    page.evaluate(drop, [["d.jsonl", "{}\n{"]])
    expect(page.locator("#status")).to_contain_text("d.jsonl, line 2")
    same(len(sent), 1, "requests")


def test_answer(page, run):
    hits = run.search()["hits"][:2]
    passages = [{"number": n, "id": hit["id"], "title": hit.get("title"), "text": hit["text"]} for n, hit in enumerate(hits, 1)]
    sentences = [
        {"text": "One thing.", "supported": True, "citations": [
            {"quote": "one", "cited": 1, "passage": 1, "status": "found"},
            {"quote": "two", "cited": 1, "passage": 2, "status": "misattributed"}]},
        {"text": "Another.", "supported": False, "citations": [{"quote": "three", "cited": 2, "passage": None, "status": "absent"}]},
    ]
    stream = [("hits", {"passages": passages, "hits": hits}), ("text", {"text": "One thing."}), ("unsupported", {}),
              ("done", {"answer": "One thing. Another.", "refused": False, "sentences": sentences, "model": "canned", "usage": None, "took_ms": {}})]
    canned(page, "/info", body={**run.info, "answers": True})
    canned(page, "/v1/answer", body=sse(*stream), kind="text/event-stream")
    loaded(page, run, q=QUERY)
    page.click("#answer-start")
    said = page.locator(".said")
    expect(said.locator(".cite")).to_have_count(3)
    expect(said).to_contain_text("Another. [unsupported]")
    page.locator("#answer summary").click()
    for status in ("found", "misattributed", "absent"):
        expect(page.locator(f".quotes .cite.{status}")).to_have_count(1)
    run.shoot(page, "answer")
    said.locator(".cite").first.click()
    same(page.locator(".whole").text_content(), hits[0]["text"], "the passage behind a citation")


def test_no_answers(page, run):
    canned(page, "/info", body={**run.info, "answers": False})
    loaded(page, run, q=QUERY)
    expect(page.locator("#answer-start")).to_be_hidden()


def test_narrow(page, run):
    page.set_viewport_size({"width": 400, "height": 800})
    for view in ("results", "compare"):
        loaded(page, run, q=QUERY, view=view)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, f"{view}: {width} px wide in a window of 400"
        run.shoot(page, f"narrow-{view}")
        if view == "results":
            first = page.locator(".hit").first.bounding_box()
            assert first["y"] + 60 < 800, f"the first hit begins at {first['y']} of 800 px"
    expect(page.locator(".first .hit").first).to_be_hidden()
    expect(page.locator(".tabs [data-tab=last]")).to_have_attribute("aria-pressed", "true")
    page.click(".tabs [data-tab=first]")
    expect(page.locator(".tabs [data-tab=first]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".first .hit").first).to_be_visible()


def test_dark(page, run):
    page.emulate_media(color_scheme="dark")
    loaded(page, run, q=QUERY)
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    run.shoot(page, "dark")
    page.click("#theme")
    light = page.evaluate(paper)
    assert dark != light, f"both themes have {dark}"
    page.reload()
    same(page.evaluate(paper), light, "theme after a reload")
    page.click("#theme")
    page.click("#view-compare")
    page.locator(".pair").wait_for()
    run.shoot(page, "dark-compare")


# The browser itself reports error statuses on the console.
MEANT = "Failed to load resource"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", nargs="?", default=os.environ.get("WARPSEEK_URL"))
    arguments.add_argument("--chromium", default=os.environ.get("CHROMIUM") or shutil.which("chromium"))
    arguments.add_argument("--screenshots", metavar="DIR")
    given = arguments.parse_args()
    if not given.url:
        arguments.error("give the server's URL, or set WARPSEEK_URL")
    if given.screenshots:
        os.makedirs(given.screenshots, exist_ok=True)
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    failed = 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        run = Run(given.url, browser, given.screenshots)
        origin = urlsplit(run.url).netloc
        for name, test in tests:
            context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce")
            page = context.new_page()
            wrong = []
            page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") and MEANT not in message.text else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: wrong.append(f"a request to {request.url}") if urlsplit(request.url).scheme != "data" and urlsplit(request.url).netloc != origin else None)
            try:
                test(page, run)
                assert not wrong, f"the browser complains: {wrong}"
                print(f"ok    {name}")
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {error}")
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
                run.shoot(page, f"failed-{name}")
            context.close()
        browser.close()
    print(f"{len(tests) - failed} of {len(tests)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
