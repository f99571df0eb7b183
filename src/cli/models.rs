//! `warpseek models`.

use super::context::{Context, Status};
use super::term::{self, DecimalBytes, bold, say};
use crate::error::{Error, Result};
use crate::hub::{ModelOrigin, ModelStatus};
use clap::{Args, Subcommand};
use serde_json::json;

/// List, download and verify models.
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the known models and their local copies
    List,
    /// Download a model: a listed name, or a hub id (organisation/name)
    Pull {
        /// Model
        name: String,
    },
    /// Print the folder of a local model
    Path {
        /// Model
        name: String,
    },
    /// Read every local copy again and compare checksums
    Verify {
        /// Model [default: every listed one that is present]
        name: Option<String>,
    },
}

pub(super) fn run(args: ModelsArgs, context: &Context) -> Result<Status> {
    match args.action {
        Action::List => list(context),
        Action::Pull { name } => {
            let folder = context.engine.get_or_download(&name)?;
            context.report(&folder, || say!("{}: {}", folder.name, folder.path.display()))
        }
        Action::Path { name } => {
            let folder = context.engine.models.find(&name)?;
            folder.warnings.iter().for_each(|w| term::warn(w));
            context.report(&folder, || say!("{}", folder.path.display()))
        }
        Action::Verify { name } => verify(name, context),
    }
}

fn list(context: &Context) -> Result<Status> {
    let all = context.engine.models.status();
    context.report(&all, || all.iter().try_for_each(print_status))
}

fn print_status(status: &ModelStatus) -> Result<()> {
    let spec = &status.spec;
    let kind = json!(spec.kind);
    let kind = kind.as_str().unwrap_or_default();
    let dim = spec.dimension.map_or(String::new(), |d| format!(", {d} dimensions"));
    let (tokens, size) = (spec.max_tokens, DecimalBytes(status.bytes));
    say!("{}", bold(&spec.name))?;
    say!("  {kind}{dim}, {tokens} tokens, {size}, {}", spec.license)?;
    if let (Some(repo), Some(revision)) = (&spec.repo, &spec.revision) {
        say!("  {repo} at {revision}")?;
    }
    match &status.folder {
        Some(folder) if folder.origin == ModelOrigin::Embedded => say!("  built in")?,
        Some(folder) => say!("  present in {}", folder.path.display())?,
        None => say!("  not present; `warpseek models pull {}` downloads it", spec.name)?,
    }
    status.problems.iter().for_each(|p| term::warn(p));
    Ok(())
}

fn verify(name: Option<String>, context: &Context) -> Result<Status> {
    let present = || {
        let all = context.engine.models.status().into_iter();
        all.filter(|s| s.folder.is_some() || !s.problems.is_empty()).map(|s| s.spec.name).collect()
    };
    let names: Vec<String> = name.map_or_else(present, |name| vec![name]);
    let mut reports = Vec::new();
    for name in &names {
        reports.extend(context.engine.models.verify(name)?.into_iter().map(|copy| (name, copy)));
    }
    let all: Vec<_> = reports
        .iter()
        .map(|(name, copy)| json!({ "name": name, "sound": copy.is_sound(), "copy": copy }))
        .collect();
    let status = context.report(&all, || {
        if reports.is_empty() {
            return say!("no model is present");
        }
        for (name, copy) in &reports {
            let word = if copy.is_sound() { "ok     " } else { "DAMAGED" };
            say!("{word}  {name}  {}", copy.path.display())?;
            for flaw in copy.files.iter().filter_map(|f| f.flaw.as_ref()) {
                say!("         {flaw}")?;
            }
        }
        Ok(())
    })?;
    match reports.iter().find(|(_, copy)| !copy.is_sound()) {
        None => Ok(status),
        Some((name, copy)) => Err(Error::ModelUnavailable {
            model: name.to_string(),
            reason: format!(
                "the copy in {} is damaged: delete the folder and run `warpseek models pull \
                 {name}`",
                copy.path.display()
            ),
        }),
    }
}
