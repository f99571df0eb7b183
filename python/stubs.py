"""Writes the type stubs of the core from what maturin generates, or checks that they are current.

maturin generate-stubs -m python/Cargo.toml --profile release --out GENERATED
python python/stubs.py GENERATED python/warpseek/_warpseek.pyi [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    generated, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = sorted(generated.rglob("*.pyi"))
    if len(found) != 1:
        print(f"{generated}: one stub file is expected, found {len(found)}", file=sys.stderr)
        return 1
    text = "# Generated from python/src by `just stubs`.\n" + found[0].read_text()
    if "--check" not in sys.argv:
        target.write_text(text)
    elif target.read_text() != text:
        print(f"{target} is not what python/src says: run `just stubs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
