//! `warpseek search`.

use super::args::{EmbedderArg, RerankingArgs, RetrieveArgs, read_query};
use super::context::{Context, Status};
use super::report::{milliseconds, print_hit};
use super::term::{self, HumanCount};
use crate::error::Result;
use crate::search::SearchResult;
use clap::Args;
use std::path::PathBuf;

/// Find the passages that answer a query.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// Index folder
    dir: PathBuf,
    /// Query; - reads it from stdin
    query: String,
    /// Number of hits
    #[arg(short, long = "top-k", default_value_t = 10, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    #[command(flatten)]
    rerank: RerankingArgs,
    /// Print one JSON document per hit and line
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
    /// Print whole passages instead of excerpts
    #[arg(long)]
    full: bool,
}

pub(super) fn run(args: SearchArgs, context: &Context) -> Result<Status> {
    let query = read_query(&args.query)?;
    let mut options = args.retrieve.options(args.k)?;
    let open = args.rerank.open(args.embedder.model.as_deref());
    let searcher = context.engine.searcher(&args.dir, &open)?;
    args.rerank.apply(&mut options, &searcher, context)?;
    let result = searcher.search(&query, &options)?;
    result.warnings.iter().for_each(|w| term::warn(w));
    context.report(&result, || {
        result.hits.iter().try_for_each(|hit| match args.jsonl {
            true => term::print_json_line(hit),
            false => print_hit(hit, &query, args.full),
        })
    })?;
    context.note(&summary(&result));
    Ok(if result.hits.is_empty() { Status::NoHits } else { Status::Success })
}

fn summary(result: &SearchResult) -> String {
    let total = HumanCount(result.total_rows as u64);
    let rows = if result.matched_rows == result.total_rows {
        format!("{total} rows")
    } else {
        format!("{} of {total} rows that pass the filter", HumanCount(result.matched_rows as u64))
    };
    format!("{} hits among {rows} in {}", result.hits.len(), milliseconds(&result.took_ms))
}
