//! `warpseek rerank`.

use super::Outcome;
use super::context::Context;
use super::search::read_query;
use super::term::{self, plain, say};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use warpseek::error::{Error, Result};
use warpseek::queries::QueryReader;
use warpseek::search::no_reranker;
use warpseek::store::passage;

/// Score passages against a query with a cross-encoder; best first.
#[derive(Debug, Args)]
pub(super) struct RerankArgs {
    /// The query
    query: String,
    /// The passages; without any they come from --passages
    passages: Vec<String>,
    /// A file of passages: one a line, id <tab> text, or jsonl (_id, text); - reads stdin
    #[arg(long = "passages", value_name = "FILE", conflicts_with = "passages")]
    file: Option<PathBuf>,
    /// The reranker: a name, a hub id, or a folder [default: the best one that is present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// How many to print [default: all]
    #[arg(long, value_name = "N")]
    top_n: Option<usize>,
}

/// The output with --json.
#[derive(Serialize)]
struct Reranked<'a> {
    reranker: &'a str,
    query: &'a str,
    results: Vec<Scored<'a>>,
}

/// A passage in it.
#[derive(Serialize)]
struct Scored<'a> {
    /// The passage's place in the input, from 0.
    index: usize,
    id: &'a str,
    rerank_score: f32,
    rerank_logit: f32,
    window: [usize; 2],
    n_windows: usize,
}

pub(super) fn run(args: RerankArgs, context: &Context) -> Result<Outcome> {
    let query = read_query(&args.query)?;
    let passages: Vec<(String, String)> = if args.passages.is_empty() {
        let file = args.file.unwrap_or_else(|| PathBuf::from("-"));
        let texts = QueryReader::open(&file)?
            .map(|q| q.map(|q| (q.id, passage(&q.title, &q.text, !q.title.is_empty()))));
        texts.collect::<Result<_>>()?
    } else {
        args.passages.iter().enumerate().map(|(i, p)| ((i + 1).to_string(), p.clone())).collect()
    };
    if let Some((id, _)) = passages.iter().find(|p| p.1.trim().is_empty()) {
        return Err(Error::usage(format!("passage {id} is empty")));
    }
    if passages.is_empty() || args.top_n == Some(0) {
        return Err(Error::usage("there is nothing to rerank: give passages, and --top-n above 0"));
    }
    let reranker = context.reranker(args.reranker.as_deref())?;
    let (name, reranker) = reranker.ok_or_else(no_reranker)?;
    let texts: Vec<&str> = passages.iter().map(|p| p.1.as_str()).collect();
    let scores = reranker.score(&query, &texts)?;
    if scores.query_tokens_lost > 0 {
        term::warn(&format!(
            "the last {} tokens of the query were left out",
            scores.query_tokens_lost
        ));
    }
    let mut order: Vec<usize> = (0..passages.len()).collect();
    order.sort_by(|&a, &b| {
        scores.scores[b].logit.total_cmp(&scores.scores[a].logit).then(a.cmp(&b))
    });
    order.truncate(args.top_n.unwrap_or(usize::MAX));
    if context.json {
        let results = order
            .iter()
            .map(|&i| {
                let score = &scores.scores[i];
                Scored {
                    index: i,
                    id: &passages[i].0,
                    rerank_score: score.score,
                    rerank_logit: score.logit,
                    window: [score.window.start, score.window.end],
                    n_windows: score.n_windows,
                }
            })
            .collect();
        term::print_json(&Reranked { reranker: &name, query: &query, results })?;
    } else {
        for &i in &order {
            let text: String = plain(&passages[i].1).chars().take(100).collect();
            let score = &scores.scores[i];
            say!("{:.4}  {:+8.3}  {}  {}", score.score, score.logit, plain(&passages[i].0), text)?;
        }
    }
    Ok(Outcome::Success)
}
