//! `warpseek embed`.

use super::args::{QueryFileArgs, passage_of};
use super::context::{Context, Status};
use super::interrupt;
use super::term::{self, HumanCount};
use crate::bert::embedder::{Normalize, Role};
use crate::error::{Error, Place, Result};
use crate::models::VectorOptions;
use crate::queries::Query;
use crate::vectors::{VectorFormat, VectorWriter};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;

/// Embed texts: turn them into vectors.
#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// Texts: one per line, id <tab> text, or jsonl, csv, tsv, parquet (_id, title, text); - reads
    /// stdin
    #[arg(default_value = "-")]
    input: PathBuf,
    #[command(flatten)]
    file: QueryFileArgs,
    /// Embedding model: a listed name, a hub id, or a folder [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Role of the texts; some models have a prompt for each role, which is put in front of texts
    /// that do not begin with it
    #[arg(long, value_enum, default_value_t = RoleArg::Passage)]
    role: RoleArg,
    /// Write a file of vectors (npy, fvecs, fbin, faiss, by its name) instead of jsonl on stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Scale vectors to unit length even if the model does not
    #[arg(long)]
    normalize: bool,
    /// Keep the first N dimensions of vectors: for models that were trained for it (Matryoshka)
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Search queries
    Query,
    /// Texts to be found
    Passage,
}

/// Line of the output.
#[derive(Serialize)]
struct Embedded<'a> {
    id: &'a str,
    vector: &'a [f32],
    tokens: u32,
    tokens_lost: u32,
}

pub(super) fn run(args: EmbedArgs, context: &Context) -> Result<Status> {
    let format = |path: &PathBuf| VectorFormat::choose(None, path);
    let format = args.out.as_ref().map(format).transpose()?;
    let mut texts = args.file.open(&args.input, "text", context)?;
    let normalize = if args.normalize { Normalize::Always } else { Normalize::AsConfigured };
    let name = context.engine.model_name(args.model.as_deref());
    let vectors = VectorOptions { normalize, dimensions: args.dimensions };
    let (embedder, _) = context.engine.embedder(name, vectors)?;
    let (role, dim) = (args.role.into(), embedder.dim());
    let prompt = embedder.prompt(role);
    // The embedder adds the prompt: a text that has it already would get it twice.
    let bare = |text: String| text.strip_prefix(prompt).map(str::to_owned).unwrap_or(text);
    let mut writer = match (&args.out, format) {
        (Some(path), Some(format)) => {
            interrupt::install();
            Some(VectorWriter::create(path, format, dim)?)
        }
        _ => None,
    };
    let (mut n, mut tokens, mut lost, mut truncated) = (0u64, 0u64, 0u64, 0u64);
    loop {
        let window = texts.by_ref().take(2 * embedder.batch_texts());
        let window: Vec<Query> = window.collect::<Result<_>>()?;
        let empty = window.iter().find(|q| q.text.trim().is_empty());
        let empty = match empty.map(|q| q.place.clone().field("text")) {
            None if window.is_empty() && n == 0 => {
                Some(Place::file(args.input.display().to_string()))
            }
            place => place,
        };
        if let Some(place) = empty {
            return Err(Error::input(place, "there is no text to embed"));
        }
        if window.is_empty() {
            break;
        }
        let passages: Vec<String> = window.iter().map(passage_of).map(bare).collect();
        let embedded = embedder.embed(&passages, role)?;
        let counts = embedded.tokens.iter().zip(&embedded.lost);
        for ((query, vector), (n_tokens, n_lost)) in
            window.iter().zip(embedded.vectors.chunks_exact(dim)).zip(counts)
        {
            match &mut writer {
                Some(writer) => writer.push(vector)?,
                None => {
                    let (id, tokens, tokens_lost) = (&query.id, *n_tokens, *n_lost);
                    term::print_json_line(&Embedded { id, vector, tokens, tokens_lost })?;
                }
            }
            n += 1;
            tokens += u64::from(*n_tokens);
            lost += u64::from(*n_lost);
            truncated += u64::from(*n_lost > 0);
        }
        if interrupt::requested() {
            return Err(Error::Interrupted("the file of vectors was not written".to_owned()));
        }
    }
    if texts.blank_lines() > 0 {
        term::warn(&format!("{} blank lines were left out", texts.blank_lines()));
    }
    if lost > 0 {
        term::warn(&format!(
            "{} texts are longer than {} tokens and lost {}",
            HumanCount(truncated),
            embedder.max_tokens(),
            HumanCount(lost)
        ));
    }
    if let Some(writer) = writer {
        writer.finish()?;
        let report = json!({ "texts": n, "dim": dim, "tokens": tokens, "tokens_lost": lost });
        context.report(&report, || Ok(()))?;
    }
    context.note(&format!("{} texts, {} tokens", HumanCount(n), HumanCount(tokens)));
    Ok(Status::Success)
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Query => Self::Query,
            RoleArg::Passage => Self::Passage,
        }
    }
}
