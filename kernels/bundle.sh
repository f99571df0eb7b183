#!/bin/sh
# Packs the program, its GPU tests and benchmarks, and run.sh for a machine with a GPU and without Rust.
#
#     kernels/bundle.sh [FOLDER]      (target/gpu-bundle by default; FOLDER.tar.xz beside it)
#
# There: tar -xf gpu-bundle.tar.xz && gpu-bundle/run.sh [OUT]
# Tests with MiniLM run if WARPSEEK_MODELS_DIR names a folder that contains all-MiniLM-L6-v2.
set -eu
cd "$(dirname "$0")/.."
target=${1:-target/gpu-bundle}
kernels/toolkit.sh
# Without the built-in reranker, which is 23 MB in each binary.
cargo build --release --locked --no-default-features --features cuda
tests=$(cargo test --release --locked --no-default-features --features cuda --test all --no-run --message-format json |
    python3 -c 'import json, sys
found = [json.loads(line).get("executable") for line in sys.stdin if "\"compiler-artifact\"" in line and "\"all\"" in line]
print([path for path in found if path][-1])')
rm -rf "$target"
mkdir -p "$target"
cp target/release/warpseek "$target/warpseek"
cp "$tests" "$target/prove"
strip "$target/warpseek" "$target/prove"
mkdir -p "$target/tests"
cp -r tests/golden "$target/tests/golden"
cp benches/gpu.py benches/gpu_models.py "$target"
git rev-parse HEAD >"$target/commit"
# Candle's own BERT as a peer, if benches/candle/build.sh has built it.
if [ -x target/candle/release/candle-bert ]; then
    cp target/candle/release/candle-bert "$target"
fi
# compute-sanitizer from the package index, if it is there.
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$target/sanitizer" nvidia-cuda-sanitizer-api==13.0.85 ||
    echo "compute-sanitizer cannot be fetched: run.sh uses one that is installed there" >&2
cat >"$target/run.sh" <<'RUN'
#!/bin/sh
# Runs the parity tests, a few of them under compute-sanitizer, and the benchmarks. Writes to OUT (./out by default). Exits with 1
# if any of it failed.
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out}
mkdir -p "$out"
export WARPSEEK_TEST_GPU=1 WARPSEEK_TEST_BINARY="$here/warpseek" CARGO_MANIFEST_DIR="$here"
failed=0
"$here/warpseek" doctor >"$out/doctor.txt" 2>&1
# The tests of commands need the stand-in driver.
without="--skip cuda::commands"
if [ ! -d "${WARPSEEK_MODELS_DIR:-}/all-MiniLM-L6-v2" ]; then
    echo "MiniLM is missing: its tests are skipped" | tee "$out/left-out.txt"
    without="$without --skip cuda::encoder::minilm"
fi
# shellcheck disable=SC2086
"$here/prove" cuda:: parity:: $without --test-threads 4 >"$out/parity.txt" 2>&1 || failed=1
tail -3 "$out/parity.txt"
sanitizer=$(command -v compute-sanitizer || find "$here/sanitizer" -name compute-sanitizer -type f 2>/dev/null | head -1)
if [ -n "$sanitizer" ]; then
    chmod +x "$sanitizer" 2>/dev/null || true
    for tool in memcheck racecheck; do
        timeout 240 "$sanitizer" --tool "$tool" --error-exitcode 9 "$here/prove" cuda::any cuda::too_many cuda::replayed cuda::encoder::models cuda::encoder::queries parity::scan_of_near >"$out/$tool.txt" 2>&1 || failed=1
        tail -2 "$out/$tool.txt"
    done
else
    echo "compute-sanitizer is missing: skipped" | tee "$out/memcheck.txt"
fi
python3 "$here/gpu.py" --warpseek "$here/warpseek" --commit "$(cat "$here/commit")" --record "$out/record" $GPU_BENCH_OPTIONS || failed=1
python3 "$here/gpu_models.py" --warpseek "$here/warpseek" --record "$out/record" $GPU_MODEL_OPTIONS || failed=1
exit $failed
RUN
chmod +x "$target/run.sh"
tar -C "$(dirname "$target")" -cf - "$(basename "$target")" | xz -T0 -6 >"$target.tar.xz"
ls -l "$target.tar.xz"
