//! The command line: one thin file a command over the library.

mod answer;
mod batch;
mod bench;
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
mod serve;
mod term;
mod transfer;

use clap::{Args, Parser, Subcommand};
use context::Context;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::Level;
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

const EXIT_CODES: &str = "Options may also stand in the environment (WARPSEEK_MODEL, WARPSEEK_RERANKER, \
WARPSEEK_DEVICE, WARPSEEK_GPU_MEMORY, WARPSEEK_PRECISION, WARPSEEK_THREADS, WARPSEEK_OFFLINE, WARPSEEK_MODELS_DIR) or in a \
settings file (WARPSEEK_CONFIG); the command line wins.\n\nExit status: 0 success, 1 no hits, 2 usage, 3 model unavailable, \
4 device unavailable, 5 index corrupt, 6 remote service failed, 7 bad input data, 8 I/O or lock, \
130 interrupted.";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct GlobalArgs {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Where to search and to run models: auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, global = true, value_name = "DEVICE")]
    device: Option<String>,
    /// How models compute: auto; f16 on a GPU; f32, bf16 or int8 on the CPU [default: auto]
    #[arg(long, global = true, value_name = "PRECISION")]
    precision: Option<String>,
    /// Threads for computing [default: all cores]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Connect to loopback addresses only
    #[arg(long, global = true)]
    offline: bool,
    /// The folder of downloaded models
    #[arg(long, global = true, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// No progress bars and notes
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Index(index::IndexArgs),
    Search(search::SearchArgs),
    Compare(compare::CompareArgs),
    Batch(batch::BatchArgs),
    Answer(answer::AnswerArgs),
    Eval(eval::EvalArgs),
    Embed(embed::EmbedArgs),
    Rerank(rerank::RerankArgs),
    Serve(serve::ServeArgs),
    Info(maintain::InfoArgs),
    Verify(maintain::VerifyArgs),
    #[command(visible_alias = "upgrade")]
    Compact(maintain::CompactArgs),
    Delete(maintain::DeleteArgs),
    Export(transfer::ExportArgs),
    Import(transfer::ImportArgs),
    Models(models::ModelsArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
}

impl Command {
    /// Whether it takes so long that opening a GPU first, which takes most of a second, is worth while.
    fn has_much_to_do(&self) -> bool {
        match self {
            Self::Compare(args) => args.has_many_queries(),
            Self::Index(_)
            | Self::Batch(_)
            | Self::Eval(_)
            | Self::Embed(_)
            | Self::Rerank(_)
            | Self::Serve(_)
            | Self::Verify(_)
            | Self::Doctor(_)
            | Self::Bench(_) => true,
            Self::Demo(_)
            | Self::Search(_)
            | Self::Answer(_)
            | Self::Info(_)
            | Self::Compact(_)
            | Self::Delete(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Models(_) => false,
        }
    }
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
    start_logging(&cli.command);
    let outcome = Context::new(&cli.global, cli.command.has_much_to_do())
        .and_then(|context| run(cli.command, &context));
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
        Command::Answer(args) => answer::run(args, context),
        Command::Eval(args) => eval::run(args, context),
        Command::Embed(args) => embed::run(args, context),
        Command::Rerank(args) => rerank::run(args, context),
        Command::Serve(args) => serve::run(args, context),
        Command::Info(args) => maintain::info(args, context),
        Command::Verify(args) => maintain::verify(args, context),
        Command::Compact(args) => maintain::compact(args, context),
        Command::Delete(args) => maintain::delete(args, context),
        Command::Export(args) => transfer::export(args, context),
        Command::Import(args) => transfer::import(args, context),
        Command::Models(args) => models::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Bench(args) => bench::run(args, context),
    }
}

fn start_logging(command: &Command) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let asked = tracing_subscriber::EnvFilter::try_from_default_env();
    match (command, asked) {
        // A server tells of every request.
        (Command::Serve(args), asked) => {
            let filter =
                asked.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,warpseek=info"));
            match args.log_format {
                serve::LogFormat::Text => log.with_env_filter(filter).init(),
                serve::LogFormat::Json => {
                    log.json().flatten_event(true).with_env_filter(filter).init()
                }
            }
        }
        (_, Ok(filter)) => log.with_env_filter(filter).init(),
        // Warnings alone, without what only somebody who looks for an error needs.
        (_, Err(_)) => log.with_max_level(Level::WARN).without_time().with_target(false).init(),
    }
}
