//! `warpseek completions` and `warpseek man`: files that shells and `man` read.

use super::context::{Context, Status};
use super::term::say;
use super::{AFTER_HELP, Cli};
use crate::error::{Error, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::io::Write;
use std::path::PathBuf;

/// Print the completion script of a shell.
///
/// bash: warpseek completions bash > ~/.local/share/bash-completion/completions/warpseek
///
/// zsh: warpseek completions zsh > a folder of $fpath, as _warpseek
///
/// fish: warpseek completions fish > ~/.config/fish/completions/warpseek.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: CompletionsArgs, _context: &Context) -> Result<Status> {
    let mut script = Vec::new();
    generate(args.shell, &mut shown_commands(), "warpseek", &mut script);
    write(&script)
}

/// Print the manual page, or write the pages of all commands into a folder.
///
/// `warpseek man ~/.local/share/man/man1` makes `man warpseek` and `man warpseek-search` work.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder for the pages of all commands; created if it does not exist
    dir: Option<PathBuf>,
}

pub(super) fn man(args: ManArgs, context: &Context) -> Result<Status> {
    let Some(dir) = args.dir else {
        let mut page = Vec::new();
        Man::new(shown_commands()).render(&mut page).map_err(Error::io("write to", "stdout"))?;
        return write(&page);
    };
    std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let all = shown_commands().propagate_version(true);
    clap_mangen::generate_to(all, &dir).map_err(Error::io("write to", &dir))?;
    let report = serde_json::json!({ "dir": dir });
    context.report(&report, || say!("{}: the manual pages of all commands", dir.display()))
}

/// The command line without its hidden commands, which completions and pages would show.
fn shown_commands() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("warpseek")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .after_help(AFTER_HELP)
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}

fn write(bytes: &[u8]) -> Result<Status> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(Error::io("write to", "stdout"))?;
    Ok(Status::Success)
}
