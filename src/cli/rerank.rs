//! `warpseek rerank`.

use super::args::{QueryFileArgs, passage_of, read_query};
use super::context::{Context, Status};
use super::term::{self, decimal, plain, say, signed};
use crate::error::{Error, Result};
use crate::queries::Query;
use crate::search::no_reranker;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Score passages against a query with a cross-encoder; best first.
#[derive(Debug, Args)]
pub(super) struct RerankArgs {
    /// Query
    query: String,
    /// Passages; without any they come from --passages
    passages: Vec<String>,
    /// File of passages: one per line, id <tab> text, or jsonl, csv, tsv, parquet (_id, title,
    /// text); - reads stdin
    #[arg(
        long = "passages",
        value_name = "FILE",
        conflicts_with = "passages",
        default_value = "-"
    )]
    file: PathBuf,
    #[command(flatten)]
    fields: QueryFileArgs,
    /// Reranker: a listed name, a hub id, or a folder [default: the best one present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Number of passages to print [default: all]
    #[arg(long, value_name = "N")]
    top_n: Option<usize>,
}

/// Output with `--json`.
#[derive(Serialize)]
struct RerankResult<'a> {
    reranker: &'a str,
    query: &'a str,
    results: Vec<PassageResult<'a>>,
}

#[derive(Serialize)]
struct PassageResult<'a> {
    /// Position of the passage in the input, from 0.
    index: usize,
    id: &'a str,
    rerank_score: f32,
    rerank_logit: f32,
    window: [usize; 2],
    n_windows: usize,
}

pub(super) fn run(args: RerankArgs, context: &Context) -> Result<Status> {
    let query = read_query(&args.query)?;
    let passages: Vec<(String, String)> = if args.passages.is_empty() {
        let mut texts = args.fields.open(&args.file, "passage", context)?;
        let passage = |q: Result<Query>| q.map(|q| (q.id.clone(), passage_of(&q)));
        let passages: Vec<_> = texts.by_ref().map(passage).collect::<Result<_>>()?;
        context.note(&format!("{}: {} passages", texts.name(), passages.len()));
        passages
    } else {
        args.fields.refuse_without("--passages")?;
        (1..).map(|i: usize| i.to_string()).zip(args.passages).collect()
    };
    if let Some((id, _)) = passages.iter().find(|p| p.1.trim().is_empty()) {
        return Err(Error::usage(format!("passage {id} is empty: leave it out")));
    }
    if passages.is_empty() || args.top_n == Some(0) {
        return Err(Error::usage("there is nothing to rerank: give passages, and --top-n above 0"));
    }
    let reranker = context.engine.reranker(args.reranker.as_deref())?;
    let (name, reranker) = reranker.ok_or_else(no_reranker)?;
    let texts: Vec<&str> = passages.iter().map(|p| p.1.as_str()).collect();
    let scores = reranker.score(&query, &texts)?;
    if scores.query_tokens_lost > 0 {
        let lost = scores.query_tokens_lost;
        term::warn(&format!("the last {lost} tokens of the query were left out"));
    }
    let scores = scores.scores;
    let mut order: Vec<usize> = (0..passages.len()).collect();
    order.sort_by(|&a, &b| scores[b].logit.total_cmp(&scores[a].logit).then(a.cmp(&b)));
    order.truncate(args.top_n.unwrap_or(usize::MAX));
    let result = |&i: &usize| PassageResult {
        index: i,
        id: &passages[i].0,
        rerank_score: scores[i].score,
        rerank_logit: scores[i].logit,
        window: [scores[i].window.start, scores[i].window.end],
        n_windows: scores[i].n_windows,
    };
    let results = order.iter().map(result).collect();
    context.report(&RerankResult { reranker: &name, query: &query, results }, || {
        order.iter().try_for_each(|&i| {
            let (id, text) = &passages[i];
            let (id, text): (_, String) = (plain(id), plain(text).chars().take(100).collect());
            let (score, logit) = (decimal(scores[i].score, 4), signed(scores[i].logit, 3));
            say!("{score}  {logit:>8}  {id}  {text}")
        })
    })
}
