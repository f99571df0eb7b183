//! The command line: one file per command, each a thin layer over the library.

mod admin;
mod answer;
mod args;
mod batch;
mod bench;
mod compare;
mod context;
mod default_index;
mod demo;
mod docs;
mod doctor;
mod embed;
mod eval;
mod extract;
mod hits;
mod index;
mod interrupt;
mod judged;
mod markdown;
mod mcp;
mod model_info;
mod models;
mod passage_place;
mod report;
mod rerank;
mod run_summary;
mod search;
mod serve;
mod settings;
mod shard;
mod sync;
mod term;
mod transfer;
mod words;

use crate::error::{Error, Result};
use clap::{Parser, Subcommand};
use context::{Context, Status};
use settings::GlobalArgs;
use std::ffi::OsString;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Fully local semantic search: embed, store, search exactly, rerank, compare.
#[derive(Debug, Parser)]
#[command(name = "warpseek", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Output of a call without a command.
const FIRST_STEPS: &str = "\
warpseek searches your files by meaning, on this machine alone. To begin, in a folder of texts:

  warpseek index .                  read the files (txt, md, html, pdf, docx, csv, jsonl, ...)
  warpseek search \"your question\"   find the passages that answer it
  warpseek serve                    the same as a page in the browser, and over HTTP

`warpseek demo` shows all steps on a small corpus; `warpseek --help` lists all commands.";

const AFTER_HELP: &str = "docs/settings.md lists all settings with their environment variables and \
keys in the settings file (WARPSEEK_CONFIG). The command line overrides the environment, the \
environment overrides the file.\n\nExit status: 0 success, 1 no hits, 2 usage, 3 model \
unavailable, 4 device unavailable, 5 index corrupt, 6 remote service failed, 7 bad input data, \
8 I/O or lock, 130 interrupted.";

/// Declares [`Command`]. A row: the command with its arguments, the function that runs it, and a
/// function that tells if it runs long enough to be worth the start of a GPU, most of a second.
macro_rules! commands {
    ($($(#[$attribute:meta])? $name:ident($args:ty): $run:path, $is_long:path;)*) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$attribute])? $name($args),)*
        }

        impl Command {
            fn is_long(&self) -> bool {
                match self {
                    $(Self::$name(args) => $is_long(args),)*
                }
            }

            fn run(self, context: &Context) -> Result<Status> {
                match self {
                    $(Self::$name(args) => $run(args, context),)*
                }
            }
        }
    };
}

commands! {
    Demo(demo::DemoArgs): demo::run, never;
    Index(index::IndexArgs): index::run, always;
    Sync(sync::SyncArgs): sync::run, sync::SyncArgs::is_long;
    Search(search::SearchArgs): search::run, never;
    Compare(compare::CompareArgs): compare::run, compare::CompareArgs::has_many_queries;
    Batch(batch::BatchArgs): batch::run, always;
    Answer(answer::AnswerArgs): answer::run, never;
    Eval(eval::EvalArgs): eval::run, always;
    Embed(embed::EmbedArgs): embed::run, always;
    Rerank(rerank::RerankArgs): rerank::run, always;
    Serve(serve::ServeArgs): serve::run, always;
    Mcp(mcp::McpArgs): mcp::run, always;
    Info(admin::InfoArgs): admin::info, never;
    Verify(admin::VerifyArgs): admin::verify, always;
    #[command(visible_alias = "upgrade")]
    Compact(admin::CompactArgs): admin::compact, never;
    Delete(admin::DeleteArgs): admin::delete, never;
    Shard(shard::ShardArgs): shard::run, never;
    Export(transfer::ExportArgs): transfer::export, never;
    Import(transfer::ImportArgs): transfer::import, never;
    Models(models::ModelsArgs): models::run, never;
    Doctor(doctor::DoctorArgs): doctor::run, always;
    Bench(bench::BenchArgs): bench::run, always;
    Completions(docs::CompletionsArgs): docs::completions, never;
    Man(docs::ManArgs): docs::man, never;
    #[command(hide = true)]
    ExtractText(extract::ExtractArgs): extract::run, never;
}

fn always<T>(_args: &T) -> bool {
    true
}

fn never<T>(_args: &T) -> bool {
    false
}

/// Runs a command line, whose first argument is the program's name, and returns the process's exit
/// status. Ends the process itself after `--help`, `--version` and wrong options.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = Cli::parse_from(args);
    cli.global.color.apply();
    let status = match cli.command {
        Some(command) => {
            start_logging(&command);
            Context::new(&cli.global, command.is_long()).and_then(|context| command.run(&context))
        }
        None => term::print_line(FIRST_STEPS).map(|()| Status::Success),
    };
    match status {
        Ok(Status::Success) => 0,
        Ok(Status::NoHits) => 1,
        // The reader of the pipe has seen what it wanted and closed it.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            term::error(&error);
            error.exit_code()
        }
    }
}

/// Filter of a server's log, which has each request. The crate `notify` warns about folders that
/// it stops watching because they are gone.
const SERVER_LOG: &str = "warn,warpseek=info,notify=error";

/// Filter of the log of other commands.
const COMMAND_LOG: &str = "warn,notify=error";

fn start_logging(command: &Command) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match (command, EnvFilter::try_from_default_env()) {
        // A server logs every request.
        (Command::Serve(args), filter) => {
            let filter = filter.unwrap_or_else(|_| EnvFilter::new(SERVER_LOG));
            match args.log_format {
                serve::LogFormat::Text => log.with_env_filter(filter).init(),
                serve::LogFormat::Json => {
                    log.json().flatten_event(true).with_env_filter(filter).init()
                }
            }
        }
        (_, Ok(filter)) => log.with_env_filter(filter).init(),
        // Only warnings, without the time and target that a developer needs.
        (_, Err(_)) => {
            let filter = EnvFilter::new(COMMAND_LOG);
            log.with_env_filter(filter).without_time().with_target(false).init();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use crate::config::{OTHER_VARIABLES, SETTINGS};
    use clap::CommandFactory;

    fn row(cells: [&str; 5]) -> String {
        format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |")
    }

    /// The table of all settings, variables of `serve` and further variables, as the page shows it.
    fn table() -> String {
        let code = |name: &str| format!("`{name}`");
        let mut table = row(["file", "environment", "option", "default", "meaning"]);
        table += &row(["---"; 5]);
        for setting in SETTINGS {
            let key = if setting.in_file { code(setting.key) } else { String::new() };
            let variable = code(setting.variable);
            table += &row([&key, &variable, setting.option, setting.default, setting.meaning]);
        }
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments() {
            let Some(variable) = arg.get_env() else { continue };
            let option = code(&format!("serve --{}", arg.get_long().unwrap()));
            let default: Vec<_> = arg.get_default_values().iter().map(|v| v.display()).collect();
            let default: String = default.iter().map(ToString::to_string).collect();
            let meaning = arg.get_help().unwrap().to_string();
            table +=
                &row(["", &code(&variable.display().to_string()), &option, &default, &meaning]);
        }
        for (variable, meaning) in OTHER_VARIABLES {
            table += &row(["", &code(variable), "", "", meaning]);
        }
        table
    }

    #[test]
    fn settings_page_lists_every_setting() {
        let table = table();
        let is_listed = include_str!("../../docs/settings.md").contains(&table);
        assert!(is_listed, "the table in docs/settings.md must be:\n\n{table}");
    }

    #[test]
    fn options_in_the_table_exist_and_their_variables_are_in_it() {
        let mut command = Cli::command();
        command.build();
        let has = |name: &str, option: &str| {
            let found = command.find_subcommand(name);
            found.is_some_and(|c| c.get_arguments().any(|arg| arg.get_long() == Some(option)))
        };
        for setting in SETTINGS {
            let words = setting.option.split([' ', ',', '`']).filter(|w| !w.is_empty());
            let words: Vec<&str> = words.collect();
            for option in words.iter().filter_map(|word| word.strip_prefix("--")) {
                let mut names = words.iter().copied().chain(["search"]);
                assert!(names.any(|name| has(name, option)), "{}", setting.key);
            }
        }
        for arg in command.get_subcommands().flat_map(|sub| sub.get_arguments()) {
            let variable = arg.get_env().map_or("", |name| name.to_str().unwrap());
            assert!(table().contains(variable), "{variable}");
        }
    }
}
