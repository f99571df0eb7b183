"""A preprocessor of mdBook: links from `docs/` to other files of the repository become links to its
web site, since the book holds `docs/` alone.

mdBook runs it with `[context, book]` as JSON on stdin and reads the book from stdout.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"(\]\()(\.\./[^\s()]*)(\))")


def rewrite(chapter, base):
    folder = posixpath.join("docs", posixpath.dirname(chapter["path"] or ""))

    def target(match):
        path = posixpath.normpath(posixpath.join(folder, match.group(2)))
        if path.startswith("docs/"):
            return match.group()
        return f"{match.group(1)}{base}/blob/main/{path}{match.group(3)}"

    chapter["content"] = LINK.sub(target, chapter["content"])
    for item in chapter["sub_items"]:
        if "Chapter" in item:
            rewrite(item["Chapter"], base)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    base = context["config"]["output"]["html"]["git-repository-url"]
    for item in book.get("items") or book["sections"]:
        if "Chapter" in item:
            rewrite(item["Chapter"], base)
    json.dump(book, sys.stdout)


main()
