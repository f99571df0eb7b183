#!/usr/bin/env bash
# Runs for HOURS: kills at random instants, damaged index files, damaged inputs, and overload.
# Prints one table. `tests/soak/run.sh HOURS [SEED]`; the program is built first.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --locked
exec python3 tests/soak/soak.py --program target/release/warpseek --hours "${1:?usage: run.sh HOURS [SEED]}" --seed "${2:-$RANDOM}"
