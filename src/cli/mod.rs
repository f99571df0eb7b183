//! The command line: one thin file a command over the library.

mod batch;
mod compare;
mod context;
mod demo;
mod doctor;
mod embed;
mod eval;
mod index;
mod interrupt;
mod maintain;
mod models;
mod rerank;
mod search;
mod term;
mod transfer;

use clap::{Args, Parser, Subcommand};
use context::Context;
use std::path::PathBuf;
use std::process::ExitCode;
use warpseek::error::{Error, Result};

/// Fully local semantic search: embed, store, search exactly, rerank, compare.
#[derive(Debug, Parser)]
#[command(name = "warpseek", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit status: 0 success, 1 no hits, 2 usage, 3 model unavailable, \
4 device unavailable, 5 index corrupt, 6 remote service failed, 7 bad input data, 8 I/O or lock, \
130 interrupted.";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct GlobalArgs {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, global = true, env = "WARPSEEK_DEVICE", value_name = "DEVICE")]
    device: Option<String>,
    /// Threads for computing [default: all cores]
    #[arg(long, global = true, env = "WARPSEEK_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// Connect to loopback addresses only
    #[arg(long, global = true)]
    offline: bool,
    /// The folder of downloaded models
    #[arg(long, global = true, env = "WARPSEEK_MODELS_DIR", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// No progress bars and notes
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a small index of 150 passages, search it, compare rankings
    Demo(demo::DemoArgs),
    /// Read, chunk, embed and store documents
    Index(index::IndexArgs),
    /// Find the passages that answer a query
    Search(search::SearchArgs),
    /// Set two rankings of a query side by side
    Compare(compare::CompareArgs),
    /// Answer the queries of a file into a file
    Batch(batch::BatchArgs),
    /// Score an index on judged queries
    Eval(eval::EvalArgs),
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Score passages against a query
    Rerank(rerank::RerankArgs),
    /// Show what an index holds
    Info(maintain::InfoArgs),
    /// Check an index for damage, and its answers for exactness
    Verify(maintain::VerifyArgs),
    /// Give back the space of deleted and replaced documents
    Compact(maintain::CompactArgs),
    /// Delete documents from an index
    Delete(maintain::DeleteArgs),
    /// Write an index's vectors and documents to files
    Export(transfer::ExportArgs),
    /// Make an index from existing vectors
    Import(transfer::ImportArgs),
    /// List, fetch and check models
    Models(models::ModelsArgs),
    /// Show what would run where, and why
    Doctor(doctor::DoctorArgs),
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    NoHits,
}

/// Runs the command line and returns the process's exit status.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    let outcome = Context::new(&cli.global).and_then(|context| run(cli.command, &context));
    match outcome {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::NoHits) => ExitCode::from(1),
        // The reader of a pipe went away: it has seen what it wanted.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(args, context),
        Command::Index(args) => index::run(args, context),
        Command::Search(args) => search::run(args, context),
        Command::Compare(args) => compare::run(args, context),
        Command::Batch(args) => batch::run(args, context),
        Command::Eval(args) => eval::run(args, context),
        Command::Embed(args) => embed::run(args, context),
        Command::Rerank(args) => rerank::run(args, context),
        Command::Info(args) => maintain::info(args, context),
        Command::Verify(args) => maintain::verify(args, context),
        Command::Compact(args) => maintain::compact(args, context),
        Command::Delete(args) => maintain::delete(args, context),
        Command::Export(args) => transfer::export(args, context),
        Command::Import(args) => transfer::import(args, context),
        Command::Models(args) => models::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
