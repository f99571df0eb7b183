//! `warpseek models`.

use super::context::{Context, Status};
use super::model_info::{self, kind_word, licence, pinned_word, size};
use super::term::{self, bold, say};
use crate::error::{Error, Result};
use crate::hub::{ModelOrigin, ModelStatus};
use clap::{Args, Subcommand};
use serde_json::json;

/// List, describe, download and verify models.
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the known models: kind, dimension, limit, size, licence, languages, present or not
    List,
    /// Describe a model: configuration, prompts, files, and the checksums that verify them
    Info {
        /// Model: a listed name, a hub id, or a folder
        name: String,
    },
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
        Action::Info { name } => model_info::run(&name, context),
        Action::Pull { name } => {
            let folder = context.engine.pull(&name)?;
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
    context.report(&all, || print_list(&all))
}

fn print_list(all: &[ModelStatus]) -> Result<()> {
    let titles =
        ["model", "kind", "dim", "tokens", "size", "licence", "languages", "checksums", ""];
    let rows = all.iter().map(row);
    let rows: Vec<[String; 9]> = [titles.map(String::from)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    for (i, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let is_number = (2..5).contains(&column);
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let line = line.trim_end();
        say!("{}", if i == 0 { bold(line) } else { line.to_owned() })?;
    }
    let places = all.iter().filter_map(|status| status.folder.as_ref());
    for folder in places.filter(|folder| folder.origin != ModelOrigin::Embedded) {
        say!("{}: {}", folder.name, folder.path.display())?;
    }
    say!(
        "~ is about; a model that is not pinned gets the files and checksums of the day of its \
         first download. `warpseek models info NAME` tells more, `warpseek models pull NAME` \
         downloads; any other hub id (organisation/name) can be named too."
    )?;
    all.iter().flat_map(|status| &status.problems).for_each(|p| term::warn(p));
    Ok(())
}

/// The cells of a model in the list.
fn row(status: &ModelStatus) -> [String; 9] {
    let spec = &status.spec;
    let here = match &status.folder {
        Some(folder) if folder.origin == ModelOrigin::Embedded => "built in",
        Some(_) => "present",
        None => "",
    };
    [
        spec.name.clone(),
        kind_word(spec.kind).into(),
        spec.dimension.map_or_else(|| "-".into(), |dimension| dimension.to_string()),
        spec.max_tokens.to_string(),
        size(status.bytes, status.about),
        licence(&spec.license).into(),
        spec.languages.join(", "),
        pinned_word(status.pinned).into(),
        here.into(),
    ]
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
