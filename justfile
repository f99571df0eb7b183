# The steps of the gate, in order. `.ci/run` installs what they need and runs `just check`.
check: check-here arm platforms

# The gate without other CPUs and systems.
check-here: fmt licences book test clippy doc python cuda

# Formatting.
fmt:
    cargo fmt --all --check

# Licences of all dependencies.
licences:
    python3 .ci/licences.py

# The book of docs/ in target/book, without a warning, and the links of all Markdown files.
book:
    python3 .ci/links.py
    target/mdbook/bin/mdbook build docs 2> target/book.log || (cat target/book.log && false)
    ! grep -E "WARN|ERROR" target/book.log
    python3 .ci/links.py target/book

# All tests: the README's test command.
test:
    cargo test --release --locked

# Lints, all crates and targets.
clippy:
    cargo clippy --release --all-targets --locked -- --deny warnings

# The documentation of all crates.
doc:
    RUSTDOCFLAGS="--deny warnings" cargo doc --no-deps --release --locked

# The Python package: the wheel in an empty environment, its stubs, types, style and tests. The
# tests run from here: child processes started in `python` would import its sources, which have no
# compiled core.
python:
    rm -rf target/wheels target/stubs
    {{py}}/maturin build --release --locked --strip -m python/Cargo.toml --out target/wheels
    python/check_wheel.sh target/wheels/*.whl
    {{py}}/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/*.whl
    {{py}}/maturin generate-stubs -m python/Cargo.toml --profile release --out target/stubs
    {{py}}/python python/stubs.py target/stubs python/warpseek/_warpseek.pyi --check
    cargo clippy --release -p warpseek-python --locked -- --deny warnings
    cd python && ../{{py}}/ruff check . && ../{{py}}/ruff format --check .
    cd python && MYPYPATH=. ../{{py}}/mypy -p warpseek && ../{{py}}/stubtest warpseek._warpseek --concise --mypy-config-file pyproject.toml
    {{py}}/pytest -q python/tests --ignore python/tests/integrations/test_mteb.py

# Kills, damaged indexes and inputs, and overload, for so many hours; one table.
soak hours:
    tests/soak/run.sh {{hours}}

# Security advisories on dependencies, from the RustSec database, which is fetched; `deny.toml` names
# those that are accepted, and why.
advisories:
    test -x target/deny/bin/cargo-deny || CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
        cargo install cargo-deny --quiet --locked --version 0.20.2 --root target/deny
    target/deny/bin/cargo-deny check advisories

# The gate, and what takes too long for it: advisories, MTEB's suite, which needs torch, the encoder on
# AArch64, the program's types on other systems, and the GPU code with eager copies.
nightly: check advisories arm-encoder platforms-whole cuda-repeated
    {{py}}/pip install --quiet --disable-pip-version-check -r python/tests/requirements-mteb.txt
    {{py}}/pytest -q python/tests/integrations/test_mteb.py

# Type stubs of the Python package's core, from python/src.
stubs:
    rm -rf target/stubs
    {{py}}/maturin generate-stubs -m python/Cargo.toml --profile release --out target/stubs
    {{py}}/python python/stubs.py target/stubs python/warpseek/_warpseek.pyi

# Environment of the recipe `python`: maturin and python/tests/requirements.txt.
py := "target/python/bin"

# The kernels of AArch64 and the scan, cross-compiled, on an emulator with all features that it supports.
arm:
    {{arm}} cargo test --release --locked --target {{aarch64}} -p warpseek-compute -p warpseek-topk --lib --tests

# The encoder on the emulator: its layers, and golden files of whole models.
arm-encoder:
    {{arm}} cargo test --release --locked --target {{aarch64}} -p warpseek-bert --lib
    {{arm}} WARPSEEK_TEST_BINARY=$PWD/.ci/aarch64-program cargo test --release --locked --target {{aarch64}} --test all -- golden::

aarch64 := "aarch64-unknown-linux-gnu"
qemu := "qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
arm := "env WARPSEEK_TEST_FEATURES='dotprod i8mm bf16' CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc " + \
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='" + qemu + "' " + \
    "CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++"

# Types on macOS and Windows: the kernels and the scan.
platforms:
    cargo check --release --locked --target aarch64-apple-darwin -p warpseek-compute -p warpseek-topk
    cargo check --release --locked --target x86_64-pc-windows-gnu -p warpseek-compute -p warpseek-topk

# The same of the whole program; zig compiles the C code of dependencies.
platforms-whole:
    python3 -m venv target/zig
    target/zig/bin/pip install --quiet --disable-pip-version-check ziglang==0.17.1
    {{zig}} cargo check --release --locked --target aarch64-apple-darwin
    {{zig}} cargo check --release --locked --target x86_64-pc-windows-gnu

zig := "env CC_aarch64_apple_darwin=$PWD/.ci/cc-aarch64-macos AR_aarch64_apple_darwin=$PWD/.ci/zig-ar " + \
    "CC_x86_64_pc_windows_gnu=$PWD/.ci/cc-x86_64-windows-gnu AR_x86_64_pc_windows_gnu=$PWD/.ci/zig-ar"

# The GPU code: kernels by nvcc, everything above them on a stand-in for the driver.
cuda:
    kernels/toolkit.sh
    target/cuda-toolkit/bin/nvcc -std=c++17 -O3 -arch=sm_90a kernels/lab/steps.cu -o target/steps
    cargo clippy --release --all-targets --features cuda --locked -- --deny warnings
    cargo test --release --locked --features cuda --test all -- cuda:: parity:: {{skip-slow}}
    cargo test --release --locked --features cuda -p warpseek-bert --lib -- cuda::

# The slow tests of the GPU code; then others once more, with eager copies, and the kernels of the
# GPU's own generation or the portable ones.
cuda-repeated:
    cargo test --release --locked --features cuda --test all -- {{slow}}
    CUDA_SHIM_EAGER=1 cargo test --release --locked --features cuda --test all -- {{eager}}
    CUDA_SHIM_EAGER=1 WARPSEEK_GPU_KERNELS=portable cargo test --release --locked --features cuda --test all -- {{eager}}

# Tests of the GPU code that take a minute or more on the stand-in.
slow := "models_of_every_shape models_make_do_with_little_memory minilm_in_half_precision"
skip-slow := replace_regex(slow, '(\S+)', '--skip $1')

# Tests that are repeated with eager copies, and with the portable kernels.
eager := "cuda::hopper cuda::candidates cuda::encoder::sequences parity::scan_of_large"

# Benchmarks.
bench:
    cargo bench

# The whole pipeline on a small corpus.
demo:
    cargo run --release -- demo
