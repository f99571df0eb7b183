//! `warpseek search`.

use super::Outcome;
use super::context::{Context, OpenOptions};
use super::term::{self, bold, dim, plain, say, thousands};
use clap::Args;
use std::path::PathBuf;
use warpseek::error::{Error, Result};
use warpseek::search::{
    DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, Hit, SearchOptions, SearchResult, Searcher, Timings,
};
use warpseek::store::filter::Filter;

/// Find the passages that answer a query.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// The index folder
    dir: PathBuf,
    /// The query; - reads it from stdin
    query: String,
    /// How many hits
    #[arg(short, long = "top-k", default_value_t = 10, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
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
    /// Prefer different passages, by maximal marginal relevance
    #[arg(long)]
    mmr: bool,
    /// The weight of relevance against difference in --mmr, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "LAMBDA")]
    mmr_lambda: Option<f32>,
    /// No more than this many rows of one document
    #[arg(long, value_name = "N")]
    max_per_doc: Option<usize>,
}

/// The model that embeds queries.
#[derive(Debug, Clone, Args)]
pub(super) struct EmbedderArg {
    /// Take the embedding model from here instead of by the index's own word
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
}

/// Whether and how to rerank.
#[derive(Debug, Clone, Args)]
pub(super) struct RerankArgs {
    /// How many retrieved rows the reranker sees; 0 keeps the retrieval order [default: 50, or k if that is more]
    #[arg(long, value_name = "N")]
    pub(super) rerank_depth: Option<usize>,
    /// How much the retrieval score counts beside the reranker's, 0 (not at all) to 1 [default: what
    /// suits the reranker]
    #[arg(long, value_name = "W")]
    pub(super) retriever_weight: Option<f32>,
    /// Keep the retrieval order
    #[arg(long, conflicts_with_all = ["rerank_depth", "retriever_weight"])]
    pub(super) no_rerank: bool,
    /// The reranker: a name, a hub id, a folder, or none [default: the best one that is present]
    #[arg(long, value_name = "MODEL")]
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
            retriever_weight: None,
            filter: self.filter.as_deref().map(Filter::parse).transpose()?,
            hybrid: self.hybrid,
            mmr: self.mmr_lambda.or(self.mmr.then_some(DEFAULT_MMR_LAMBDA)),
            max_per_doc: self.max_per_doc,
        })
    }
}

impl RerankArgs {
    /// How to open an index, with the embedder from `model`.
    pub(super) fn open<'a>(&'a self, model: Option<&'a str>) -> OpenOptions<'a> {
        let reranker = self.reranker.as_deref();
        OpenOptions { model, rerank: !self.is_declined(), reranker }
    }

    /// The rerank depth to use with `searcher`: none where there is no reranker and none was asked
    /// for, which a note says.
    pub(super) fn depth(
        &self,
        k: usize,
        searcher: &Searcher,
        context: &Context,
    ) -> Result<Option<usize>> {
        if self.is_declined() {
            return Ok(None);
        }
        let depth = self.asked_depth(k);
        if searcher.reranker.is_some() {
            return Ok(Some(depth));
        }
        if self.rerank_depth.is_some() {
            searcher.require_reranker()?;
        }
        context.note_missing_reranker(self.reranker.as_deref(), "showing the retrieval order");
        Ok(None)
    }

    /// Whether an option says that and how to rerank.
    pub(super) fn is_asked_for(&self) -> bool {
        let any = self.rerank_depth.is_some() || self.retriever_weight.is_some();
        (any || self.reranker.is_some()) && !self.is_declined()
    }

    /// The rerank depth that was asked for, or fits `k`.
    pub(super) fn asked_depth(&self, k: usize) -> usize {
        self.rerank_depth.unwrap_or(DEFAULT_RERANK_DEPTH.max(k))
    }

    /// Whether an option says that nothing is reranked.
    pub(super) fn is_declined(&self) -> bool {
        self.no_rerank || self.rerank_depth == Some(0)
    }
}

pub(super) fn run(args: SearchArgs, context: &Context) -> Result<Outcome> {
    let query = read_query(&args.query)?;
    let mut options = args.retrieve.options(args.k)?;
    let searcher =
        context.searcher(&args.dir, &args.rerank.open(args.embedder.model.as_deref()))?;
    options.rerank_depth = args.rerank.depth(args.k, &searcher, context)?;
    options.retriever_weight = args.rerank.retriever_weight;
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
        text = super::term::read_stdin()?;
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
        let retrieved = hit.retrieved_rank.unwrap_or_default();
        facts.push_str(&format!("  rerank {rerank:.4}  retrieved #{retrieved}"));
    }
    if hit.tokens_lost > 0 {
        facts.push_str(&format!("  ({} tokens beyond the embedder's limit)", hit.tokens_lost));
    }
    say!("    {}", dim(&facts))?;
    if full {
        for line in plain(&hit.text).lines() {
            say!("    {line}")?;
        }
        return Ok(());
    }
    let text = excerpt(hit, query);
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
    // One piece may be longer than all of the excerpt: text without blanks.
    let joined = chosen.join(" ");
    let cut = joined.char_indices().nth(EXCERPT + 40).map_or(joined.len(), |(at, _)| at);
    out.push_str(&joined[..cut]);
    if best + chosen.len() < pieces.len() || end < text.len() || cut < joined.len() {
        out.push_str(" ...");
    }
    out
}

/// The time of a search and of its steps.
pub(super) fn milliseconds(t: &Timings) -> String {
    let mut steps = vec![format!("embed {:.1}", t.embed)];
    for (ms, name) in
        [(t.filter, "filter"), (t.scan, "scan"), (t.fuse, "fuse"), (t.rerank, "rerank")]
    {
        if ms >= 0.05 {
            steps.push(format!("{name} {ms:.1}"));
        }
    }
    format!("{:.1} ms ({})", t.total, steps.join(", "))
}

fn summary(result: &SearchResult) -> String {
    let rows = if result.matched_rows == result.total_rows {
        format!("{} rows", thousands(result.total_rows as u64))
    } else {
        format!(
            "{} of {} rows that pass the filter",
            thousands(result.matched_rows as u64),
            thousands(result.total_rows as u64)
        )
    };
    format!("{} hits among {rows} in {}", result.hits.len(), milliseconds(&result.took_ms))
}
