//! `warpseek embed`.

use super::context::{Context, DEFAULT_MODEL};
use super::term::{self, thousands};
use super::{Outcome, interrupt};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use warpseek::embed::{Normalize, Role};
use warpseek::error::{Error, Result};
use warpseek::queries::{Query, QueryReader};
use warpseek::store::passage;
use warpseek::vectors::{VectorFormat, VectorWriter};

/// Turn texts into vectors.
#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// The texts: one a line, id <tab> text, or jsonl (_id, text); - reads stdin
    #[arg(default_value = "-")]
    input: PathBuf,
    /// The model: a name, a hub id, or a folder [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What the texts are for; some models put a prompt in front
    #[arg(long, value_enum, default_value_t = RoleArg::Passage)]
    role: RoleArg,
    /// A file of vectors (npy, fvecs, fbin, faiss, by its name) instead of jsonl on stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Scale vectors to unit length even where the model does not
    #[arg(long)]
    normalize: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Search queries
    Query,
    /// Texts to be found
    Passage,
}

/// A line of the output.
#[derive(Serialize)]
struct Embedded<'a> {
    id: &'a str,
    vector: &'a [f32],
    tokens: u32,
    tokens_lost: u32,
}

pub(super) fn run(args: EmbedArgs, context: &Context) -> Result<Outcome> {
    let format = match &args.out {
        Some(path) => Some(VectorFormat::choose(None, path)?),
        None => None,
    };
    let name = args.model.as_deref().or(context.settings.model.as_deref()).unwrap_or(DEFAULT_MODEL);
    let mut texts = QueryReader::open(&args.input)?;
    let normalize = if args.normalize { Normalize::Always } else { Normalize::AsConfigured };
    let (embedder, _) = context.embedder(name, normalize)?;
    let role = if args.role == RoleArg::Query { Role::Query } else { Role::Passage };
    let mut writer = match (&args.out, format) {
        (Some(path), Some(format)) => Some(VectorWriter::create(path, format, embedder.dim())?),
        _ => None,
    };
    if writer.is_some() {
        interrupt::install();
    }
    let at_once = 2 * embedder.batch_texts();
    let (mut n, mut tokens, mut lost, mut truncated) = (0u64, 0u64, 0u64, 0u64);
    loop {
        let window: Vec<Query> = texts.by_ref().take(at_once).collect::<Result<_>>()?;
        if window.is_empty() && n == 0 {
            let file = warpseek::error::Place::file(args.input.display().to_string());
            return Err(Error::input(file, "there is no text to embed"));
        }
        if window.is_empty() {
            break;
        }
        if let Some(query) = window.iter().find(|q| q.text.trim().is_empty()) {
            return Err(Error::input(
                query.place.clone().field("text"),
                "there is no text to embed",
            ));
        }
        let plain: Vec<String> =
            window.iter().map(|q| passage(&q.title, &q.text, !q.title.is_empty())).collect();
        let embedded = embedder.embed(&plain, role)?;
        for (i, vector) in embedded.vectors.chunks_exact(embedder.dim()).enumerate() {
            match &mut writer {
                Some(writer) => writer.push(vector)?,
                None => {
                    let line = Embedded {
                        id: &window[i].id,
                        vector,
                        tokens: embedded.tokens[i],
                        tokens_lost: embedded.lost[i],
                    };
                    let line =
                        serde_json::to_string(&line).map_err(|e| Error::usage(e.to_string()))?;
                    term::print_line(&line)?;
                }
            }
            n += 1;
            tokens += u64::from(embedded.tokens[i]);
            lost += u64::from(embedded.lost[i]);
            truncated += u64::from(embedded.lost[i] > 0);
        }
        if interrupt::asked() {
            return Err(Error::Interrupted("the file of vectors was not written".to_owned()));
        }
    }
    let to_file = writer.is_some();
    if let Some(writer) = writer {
        writer.finish()?;
    }
    if texts.blank_lines() > 0 {
        term::warn(&format!("{} blank lines were left out", texts.blank_lines()));
    }
    if lost > 0 {
        term::warn(&format!(
            "{} texts are longer than {} tokens and lost {}",
            thousands(truncated),
            embedder.max_tokens(),
            thousands(lost)
        ));
    }
    if to_file && context.json {
        let report =
            json!({ "texts": n, "dim": embedder.dim(), "tokens": tokens, "tokens_lost": lost });
        term::print_json(&report)?;
    }
    context.note(&format!("{} texts, {} tokens", thousands(n), thousands(tokens)));
    Ok(Outcome::Success)
}
