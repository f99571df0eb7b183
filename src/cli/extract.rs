//! `warpseek extract-text`: reads one PDF, Office or EPUB file in a process of its own, which
//! `warpseek index` starts for each such file.

use super::context::{Context, Status};
use super::interrupt;
#[cfg(unix)]
use super::term;
use crate::error::Result;
use crate::ingest::{ExtractLimits, ExtractOptions, ExtractRequest, StopFlag};
use clap::Args;
use std::ffi::OsString;
use std::io::Write;

/// The name of the command.
const COMMAND: &str = "extract-text";

/// Extract the text of a file on stdin; other commands start this for each file.
#[derive(Debug, Args)]
pub(super) struct ExtractArgs {
    /// Format and limits, as JSON
    #[arg(value_name = "REQUEST")]
    request: String,
}

/// The program and its first argument for [`ExtractOptions::command`]; `None` if this process is
/// another program that uses warpseek as a library.
///
/// [`ExtractOptions::command`]: crate::ingest::ExtractOptions::command
fn command() -> Option<Vec<OsString>> {
    let program = std::env::current_exe().ok()?;
    let is_warpseek = program.file_stem().is_some_and(|name| name == "warpseek");
    is_warpseek.then(|| vec![program.into_os_string(), COMMAND.into()])
}

/// Options of reading such files, which end with the program.
pub(super) fn options() -> ExtractOptions {
    let limits = ExtractLimits::default();
    ExtractOptions { command: command(), limits, stop: StopFlag(Some(interrupt::flag())) }
}

/// Writes the sections of the file to stdout.
pub(super) fn run(args: ExtractArgs, _context: &Context) -> Result<Status> {
    let request = ExtractRequest::parse(&args.request)?;
    end_with_parent();
    limit(&request);
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    request.run(std::io::stdin().lock(), &mut output)?;
    output.flush().map_err(crate::error::Error::io("write", "<stdout>"))?;
    Ok(Status::Success)
}

/// Ends this process with the one that started it, where the system can.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(e) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        term::warn(&format!("this process may outlive the one that started it: {e}"));
    }
}

/// Limits the memory of this process, and its CPU time in case the process that started it is gone.
/// A limit that the system does not enforce has no effect.
#[cfg(unix)]
fn limit(request: &ExtractRequest) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let seconds = request.limits.time.as_secs() + 1;
    let limits = [
        (Resource::As, request.limits.memory),
        (Resource::Cpu, seconds.saturating_mul(2)),
        (Resource::Core, 0),
    ];
    for (resource, limit) in limits {
        let maximum = getrlimit(resource).maximum;
        let limit = maximum.map_or(limit, |maximum| limit.min(maximum));
        let limits = Rlimit { current: Some(limit), maximum };
        if let Err(e) = setrlimit(resource, limits) {
            term::warn(&format!("{resource:?} is not limited: {e}"));
        }
    }
}

#[cfg(not(unix))]
fn limit(_request: &ExtractRequest) {}
