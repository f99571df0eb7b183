//! `warpseek models`.

use super::Outcome;
use super::context::Context;
use super::term::{self, bold, bytes, say};
use clap::{Args, Subcommand};
use serde_json::json;
use warpseek::error::{Error, Result};
use warpseek::hub::ModelOrigin;

/// List, fetch and check models.
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The models that warpseek knows, and whether they are here
    List,
    /// Fetch a model: a listed name, or a hub id (organisation/name)
    Pull {
        /// The model
        name: String,
    },
    /// Print the folder of a model that is here
    Path {
        /// The model
        name: String,
    },
    /// Read every local copy anew and compare checksums
    Verify {
        /// The model [default: every listed one that is here]
        name: Option<String>,
    },
}

pub(super) fn run(args: ModelsArgs, context: &Context) -> Result<Outcome> {
    match args.action {
        Action::List => list(context)?,
        Action::Pull { name } => {
            let folder = context.obtain(&name)?;
            if context.json {
                term::print_json(&folder)?;
            } else {
                say!("{}: {}", folder.name, folder.path.display())?;
            }
        }
        Action::Path { name } => {
            let folder = context.models.find(&name)?;
            folder.warnings.iter().for_each(|w| term::warn(w));
            if context.json {
                term::print_json(&folder)?;
            } else {
                say!("{}", folder.path.display())?;
            }
        }
        Action::Verify { name } => verify(name.as_deref(), context)?,
    }
    Ok(Outcome::Success)
}

fn list(context: &Context) -> Result<()> {
    let all = context.models.status();
    if context.json {
        return term::print_json(&all);
    }
    for status in all {
        let spec = &status.spec;
        let kind = serde_json::to_value(spec.kind).ok();
        let kind = kind.as_ref().and_then(|k| k.as_str()).unwrap_or_default().to_owned();
        let dim = spec.dimension.map_or(String::new(), |d| format!(", {d} dimensions"));
        say!("{}", bold(&spec.name))?;
        say!(
            "  {kind}{dim}, {} tokens, {}, {}",
            spec.max_tokens,
            bytes(status.bytes),
            spec.license
        )?;
        if let (Some(repo), Some(revision)) = (&spec.repo, &spec.revision) {
            say!("  {repo} at {revision}")?;
        }
        match &status.folder {
            Some(folder) if folder.origin == ModelOrigin::Embedded => say!("  built in")?,
            Some(folder) => say!("  present in {}", folder.path.display())?,
            None => say!("  not here; `warpseek models pull {}` fetches it", spec.name)?,
        }
        for problem in &status.problems {
            term::warn(problem);
        }
    }
    Ok(())
}

fn verify(name: Option<&str>, context: &Context) -> Result<()> {
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => {
            let here = context.models.status().into_iter();
            here.filter(|s| s.folder.is_some() || !s.problems.is_empty())
                .map(|s| s.spec.name)
                .collect()
        }
    };
    let mut reports = Vec::new();
    for name in &names {
        for copy in context.models.verify(name)? {
            reports.push((name.clone(), copy));
        }
    }
    if context.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, copy)| json!({ "name": name, "sound": copy.is_sound(), "copy": copy }))
            .collect();
        term::print_json(&all)?;
    } else if reports.is_empty() {
        say!("no model is here")?;
    } else {
        for (name, copy) in &reports {
            let word = if copy.is_sound() { "ok     " } else { "DAMAGED" };
            say!("{word}  {name}  {}", copy.path.display())?;
            for flaw in copy.files.iter().filter_map(|f| f.flaw.as_ref()) {
                say!("         {flaw}")?;
            }
        }
    }
    match reports.iter().find(|(_, copy)| !copy.is_sound()) {
        None => Ok(()),
        Some((name, copy)) => Err(Error::ModelUnavailable {
            model: name.clone(),
            reason: format!(
                "the copy in {} is damaged: delete the folder and run `warpseek models pull {name}`",
                copy.path.display()
            ),
        }),
    }
}
