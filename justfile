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

# Every dependency's licence is one that deny.toml allows.
licences:
    python3 .ci/licences.py

bench:
    cargo bench

demo:
    cargo run --release -- demo
