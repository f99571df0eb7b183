//! `warpseek search`.

use super::Outcome;
use super::context::{Context, OpenOptions};
use super::term::{self, bold, dim, plain, say, thousands};
use clap::Args;
use std::path::PathBuf;
use warpseek::error::{Error, Result};
use warpseek::search::{Hit, SearchOptions, SearchResult, Searcher};
use warpseek::store::filter::Filter;

/// Rows that the reranker sees where nothing else is asked for.
pub(super) const DEFAULT_RERANK_DEPTH: usize = 50;

/// Find the passages that answer a query.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// The index folder
    dir: PathBuf,
    /// The query; - reads it from stdin
    query: String,
    /// How many hits
    #[arg(short, default_value_t = 10, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    rerank: RerankArgs,
    /// Print one JSON document a hit and line
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
    /// Print whole passages instead of excerpts
    #[arg(long)]
    full: bool,
}

/// What is retrieved.
#[derive(Debug, Clone, Args)]
pub(super) struct RetrieveArgs {
    /// Only rows that pass, as in SQL: "published >= '2023' AND primary_category IN ('cs.CL')"
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Fuse the dense ranking with the lexical one (BM25) by reciprocal rank
    #[arg(long)]
    pub(super) hybrid: bool,
    /// Prefer different passages: maximal marginal relevance with this lambda, 0 to 1
    #[arg(long, value_name = "LAMBDA", num_args = 0..=1, default_missing_value = "0.5")]
    mmr: Option<f32>,
    /// Take the embedding model from here instead of by the index's own word
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
}

/// Whether and how to rerank.
#[derive(Debug, Clone, Args)]
pub(super) struct RerankArgs {
    /// How many retrieved rows the reranker sees [default: 50]
    #[arg(long, value_name = "N")]
    rerank_depth: Option<usize>,
    /// Keep the retrieval order
    #[arg(long, conflicts_with = "rerank_depth")]
    no_rerank: bool,
    /// The reranker: a name, a hub id, a folder, or none [default: the best one that is present]
    #[arg(long, value_name = "MODEL", env = "WARPSEEK_RERANKER")]
    pub(super) reranker: Option<String>,
}

impl RetrieveArgs {
    /// The options of a search for `k` hits without reranking.
    pub(super) fn options(&self, k: usize) -> Result<SearchOptions> {
        if k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        Ok(SearchOptions {
            k,
            rerank_depth: None,
            filter: self.filter.as_deref().map(Filter::parse).transpose()?,
            hybrid: self.hybrid,
            mmr: self.mmr,
        })
    }

    pub(super) fn open<'a>(&'a self, rerank: &'a RerankArgs) -> OpenOptions<'a> {
        OpenOptions {
            model: self.model.as_deref(),
            rerank: !rerank.no_rerank,
            reranker: rerank.reranker.as_deref(),
        }
    }
}

impl RerankArgs {
    /// The rerank depth to use with `searcher`: none where there is no reranker and none was asked
    /// for, which a note says.
    pub(super) fn depth(&self, searcher: &Searcher, context: &Context) -> Result<Option<usize>> {
        if self.no_rerank {
            return Ok(None);
        }
        if self.rerank_depth == Some(0) {
            return Err(Error::usage("the rerank depth must be at least 1"));
        }
        if searcher.reranker.is_some() {
            return Ok(Some(self.rerank_depth.unwrap_or(DEFAULT_RERANK_DEPTH)));
        }
        if self.rerank_depth.is_some() {
            searcher.require_reranker()?;
        }
        if self.reranker.as_deref().or(context.settings.reranker.as_deref()) != Some("none") {
            context.note(
                "showing the retrieval order: no reranker is present; get one with \
                 `warpseek models pull ms-marco-MiniLM-L6-v2`, or name a folder with --reranker",
            );
        }
        Ok(None)
    }
}

pub(super) fn run(args: SearchArgs, context: &Context) -> Result<Outcome> {
    let query = read_query(&args.query)?;
    let mut options = args.retrieve.options(args.k)?;
    let searcher = context.searcher(&args.dir, &args.retrieve.open(&args.rerank))?;
    options.rerank_depth = args.rerank.depth(&searcher, context)?;
    let result = searcher.search(&query, &options)?;
    result.warnings.iter().for_each(|w| term::warn(w));
    if context.json {
        term::print_json(&result)?;
    } else if args.jsonl {
        for hit in &result.hits {
            let line = serde_json::to_string(hit).map_err(|e| Error::usage(e.to_string()))?;
            term::print_line(&line)?;
        }
    } else {
        for hit in &result.hits {
            print_hit(hit, &query, args.full)?;
        }
    }
    context.note(&summary(&result));
    Ok(if result.hits.is_empty() { Outcome::NoHits } else { Outcome::Success })
}

/// The query itself, or stdin's text for `-`.
pub(super) fn read_query(query: &str) -> Result<String> {
    let mut text = query.to_owned();
    if query == "-" {
        text = std::io::read_to_string(std::io::stdin().lock())
            .map_err(Error::io("read", "<stdin>"))?;
    }
    if text.trim().is_empty() {
        return Err(Error::usage("the query is empty: write what you look for"));
    }
    Ok(text.trim().to_owned())
}

/// One hit for people.
pub(super) fn print_hit(hit: &Hit, query: &str, full: bool) -> Result<()> {
    let title = if hit.title.is_empty() { &hit.id } else { &hit.title };
    say!("{:>2}  {}", hit.rank, bold(plain(title).trim()))?;
    let mut facts = format!("{}  score {:.4}", plain(&hit.id), hit.score);
    if let Some(rerank) = hit.rerank_score {
        facts.push_str(&format!("  rerank {rerank:.4}  retrieved #{}", hit.retrieved_rank));
    }
    if hit.tokens_lost > 0 {
        facts.push_str(&format!("  ({} tokens beyond the embedder's limit)", hit.tokens_lost));
    }
    say!("    {}", dim(&facts))?;
    let text = if full { hit.text.clone() } else { excerpt(hit, query) };
    if !text.trim().is_empty() {
        say!("{}", term::wrap(&plain(&text), "    ", term::width()))?;
    }
    Ok(())
}

/// Characters of an excerpt.
const EXCERPT: usize = 320;

/// The part of a passage that is shown: from the reranker's window where it saw several, else from
/// where most words of the query stand together.
fn excerpt(hit: &Hit, query: &str) -> String {
    let text = hit.text.as_str();
    let [start, end] = hit.window.unwrap_or([0, text.len()]);
    let shown = text.get(start..end).unwrap_or(text);
    let words: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| w.chars().count() > 3)
        .map(str::to_lowercase)
        .collect();
    // Pieces between white space, with the characters before each.
    let mut pieces = Vec::new();
    let mut position = 0;
    for piece in shown.split_whitespace() {
        let lower = piece.to_lowercase();
        pieces.push((piece, position, words.iter().any(|w| lower.contains(w.as_str()))));
        position += piece.chars().count() + 1;
    }
    let matches_from = |i: usize| {
        let limit = pieces[i].1 + EXCERPT;
        pieces[i..].iter().take_while(|p| p.1 < limit).filter(|p| p.2).count()
    };
    // Begin at a matching piece if that shows more matches than the beginning does.
    let mut best = 0;
    if position > EXCERPT {
        let candidates = (0..pieces.len()).filter(|&i| pieces[i].2);
        let mut most = if pieces.is_empty() { 0 } else { matches_from(0) };
        for i in candidates {
            let n = matches_from(i);
            if n > most {
                (best, most) = (i, n);
            }
        }
    }
    let limit = pieces.get(best).map_or(0, |p| p.1) + EXCERPT;
    let mut out = if best > 0 || start > 0 { "... ".to_owned() } else { String::new() };
    let chosen: Vec<&str> =
        pieces.iter().skip(best).take_while(|p| p.1 < limit).map(|p| p.0).collect();
    out.push_str(&chosen.join(" "));
    if best + chosen.len() < pieces.len() || end < text.len() {
        out.push_str(" ...");
    }
    out
}

fn summary(result: &SearchResult) -> String {
    let t = result.took_ms;
    let mut steps = vec![format!("embed {:.1}", t.embed)];
    for (ms, name) in
        [(t.filter, "filter"), (t.scan, "scan"), (t.fuse, "fuse"), (t.rerank, "rerank")]
    {
        if ms >= 0.05 {
            steps.push(format!("{name} {ms:.1}"));
        }
    }
    let rows = if result.matched_rows == result.total_rows {
        format!("{} rows", thousands(result.total_rows as u64))
    } else {
        format!(
            "{} of {} rows that pass the filter",
            thousands(result.matched_rows as u64),
            thousands(result.total_rows as u64)
        )
    };
    format!("{} hits among {rows} in {:.1} ms ({})", result.hits.len(), t.total, steps.join(", "))
}
