"""Checks that every dependency's licence is one that deny.toml allows, as `cargo deny check licenses` would."""

import json
import re
import subprocess
import sys
import tomllib


def allowed(expression, allow):
    """Whether an SPDX expression can be met: one side of every OR, all sides of every AND."""
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
        return re.sub(r"\s+", " ", token) in allow

    return either()


def main():
    with open("deny.toml", "rb") as file:
        allow = set(tomllib.load(file)["licenses"]["allow"])
    output = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], check=True, capture_output=True, text=True
    ).stdout
    packages = json.loads(output)["packages"]
    bad = [
        f"{p['name']} {p['version']}: {p['license']}"
        for p in packages
        if not p["license"] or not allowed(p["license"], allow)
    ]
    foreign = [
        f"{p['name']}: {p['source']}"
        for p in packages
        if p["source"] and p["source"] != "registry+https://github.com/rust-lang/crates.io-index"
    ]
    for line in bad + foreign:
        print(line)
    print(f"{len(packages)} packages, {len(bad)} with a licence that is not allowed, {len(foreign)} from elsewhere")
    return 1 if bad or foreign else 0


if __name__ == "__main__":
    sys.exit(main())
