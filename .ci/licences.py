"""Checks that every dependency comes from crates.io under a permitted licence."""

import json
import re
import subprocess
import sys

PERMITTED = {
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def is_permitted(expression):
    """True if an SPDX expression can be satisfied: one side of every OR, all sides of every AND."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression)
    position = 0

    def either():
        nonlocal position
        value = both()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = both() or value
        return value

    def both():
        nonlocal position
        value = single()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            value = single() and value
        return value

    def single():
        nonlocal position
        token = tokens[position]
        position += 1
        if token == "(":
            value = either()
            position += 1
            return value
        return re.sub(r"\s+", " ", token) in PERMITTED

    return either()


def main():
    output = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], check=True, capture_output=True, text=True
    ).stdout
    packages = json.loads(output)["packages"]
    bad = [
        f"{p['name']} {p['version']}: {p['license']}"
        for p in packages
        if not p["license"] or not is_permitted(p["license"])
    ]
    foreign = [
        f"{p['name']}: {p['source']}"
        for p in packages
        if p["source"] and p["source"] != "registry+https://github.com/rust-lang/crates.io-index"
    ]
    for line in bad + foreign:
        print(line)
    print(f"{len(packages)} packages, {len(bad)} with a licence that is not permitted, {len(foreign)} from elsewhere")
    return 1 if bad or foreign else 0


if __name__ == "__main__":
    sys.exit(main())
