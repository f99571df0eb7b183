//! The `warpseek` command.
fn main() {}
