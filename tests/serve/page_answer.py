"""Answers of a chat service appear in the page while they are written: `page_answer.py URL FIRST LAST`.

The service sends a sentence with FIRST in it, pauses, and ends with one with LAST in it.
"""

import shutil
import sys

from playwright.sync_api import expect, sync_playwright

url, first, last = sys.argv[1:]
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page()
    page.goto(f"{url}/?q=how+do+models+learn")
    page.locator("#results:not([aria-busy]) .hit").first.wait_for()
    # All states of the answer that the page shows.
    page.evaluate(
        """() => {
            window.seen = [];
            const look = () => window.seen.push(document.querySelector("#answer").innerText);
            new MutationObserver(look).observe(document.querySelector("#answer"), { childList: true, subtree: true, characterData: true });
        }"""
    )
    page.click("#answer-start")
    expect(page.locator(".said")).to_contain_text(last, timeout=60_000)
    seen = page.evaluate("window.seen")
    assert any(first in text and last not in text for text in seen), seen
    browser.close()
