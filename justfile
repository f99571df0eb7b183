# What CI runs.
check: fmt clippy doc test licences

fmt:
    cargo fmt --check

clippy:
    cargo clippy --all-targets -- --deny warnings

doc:
    RUSTDOCFLAGS="--deny warnings" cargo doc --no-deps

test:
    cargo test --release

# The GPU's scan and encoder, on the stand-in for its driver.
cuda:
    kernels/toolkit.sh
    cargo clippy --release --all-targets --features cuda -- --deny warnings
    cargo test --release --features cuda -- cuda:: parity::

# Every dependency's licence is one that deny.toml allows.
licences:
    python3 .ci/licences.py

bench:
    cargo bench

demo:
    cargo run --release -- demo
