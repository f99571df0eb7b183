//! The `warpseek` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(warpseek::cli::main(std::env::args_os()))
}
