"""Checks the links of the documentation: files and headings that they name must exist.

    python3 .ci/links.py              the Markdown files of the repository; pages that SUMMARY.md lacks
    python3 .ci/links.py target/book  the pages of the built book

Links to other hosts are not followed.
"""

import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^\s()<>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


def markdown_files():
    """Markdown files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


@cache
def headings(path):
    """Anchors of the headings of a Markdown file, as GitHub and mdBook make them."""
    anchors, seen = set(), {}
    for text in HEADING.findall(FENCE.sub("", path.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "").strip().lower()
        slug = "".join("-" if c == " " else c for c in text if c.isalnum() or c in " _-")
        n = seen[slug] = seen.get(slug, -1) + 1
        anchors.add(slug if n == 0 else f"{slug}-{n}")
    return anchors


def markdown_mistakes(path):
    """Links of a Markdown file that lead nowhere, each with its line."""
    blank = lambda match: re.sub(r"[^\n]", " ", match.group())
    text = CODE.sub(blank, FENCE.sub(blank, path.read_text()))
    for match in LINK.finditer(text):
        link = match.group(1) or match.group(2)
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        place = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        if not target.exists():
            yield f"{place}: {link}: there is no such file"
        elif url.fragment and target.suffix == ".md" and url.fragment not in headings(target):
            yield f"{place}: {link}: there is no such heading"


class Page(HTMLParser):
    """Links and anchors of a page of the book."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def book_mistakes(book):
    """Links of the built book that lead nowhere."""
    pages = {path.resolve(): Page(path) for path in sorted(book.rglob("*.html"))}
    if not pages:
        yield f"{book}: there is no page"
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            # The page for unknown addresses, whose links start at the root of the site.
            if url.scheme or url.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            place = path.relative_to(book.resolve())
            if not target.exists():
                yield f"{place}: {link}: there is no such file"
            elif url.fragment and target in pages and url.fragment not in pages[target].anchors:
                yield f"{place}: {link}: there is no such heading"


def missing_pages():
    """Pages below docs that the table of contents does not name."""
    summary = ROOT / "docs/SUMMARY.md"
    named = {(summary.parent / m.group(1)).resolve() for m in LINK.finditer(summary.read_text())}
    for path in sorted(summary.parent.rglob("*.md")):
        if path != summary and path.resolve() not in named:
            yield f"{path.relative_to(ROOT)}: docs/SUMMARY.md does not name this page"


def main():
    if len(sys.argv) > 1:
        mistakes = list(book_mistakes(Path(sys.argv[1])))
    else:
        files = markdown_files()
        mistakes = [mistake for path in files for mistake in markdown_mistakes(path)]
        mistakes += missing_pages()
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    sys.exit(bool(mistakes))


main()
