//! `warpseek search`.

use super::args::{EmbedderArg, RerankingArgs, RetrieveArgs, duration, read_query};
use super::context::{Context, Status};
use super::hits::HitPrinter;
use super::report::milliseconds;
use super::term::{self, HumanCount};
use crate::error::Result;
use crate::search::{OrderedBy, SearchOptions, SearchResult, Searcher};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Find the passages that answer a query.
///
/// Each hit begins with the score that orders the hits, `final_score` in JSON. Hits that hardly
/// answer the query are dimmed.
#[derive(Debug, Args)]
#[command(override_usage = "warpseek search [OPTIONS] [DIR] <QUERY>")]
pub(super) struct SearchArgs {
    /// Index folder; a single argument is the query [default: .warpseek here or in a folder above,
    /// or the setting `index`]
    dir: Option<PathBuf>,
    /// Query; - reads it from stdin
    query: Option<String>,
    /// Number of hits
    #[arg(short, long = "top-k", default_value_t = 10, value_name = "N")]
    k: usize,
    /// Minimum of the score that orders the hits; hits below it are left out
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f32>,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    #[command(flatten)]
    rerank: RerankingArgs,
    /// Time for reranking, such as 300ms: as many rows are reranked as fit into it
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "no_rerank")]
    rerank_budget: Option<Duration>,
    /// Print one JSON document per hit and line
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
    /// Print whole passages instead of excerpts
    #[arg(long)]
    full: bool,
    /// Print the scores from which the order was computed
    #[arg(long)]
    explain: bool,
}

pub(super) fn run(args: SearchArgs, context: &Context) -> Result<Status> {
    let (dir, query) = context.index_and(args.dir.as_deref(), args.query.as_deref(), "query")?;
    let query = read_query(query)?;
    let mut options = args.retrieve.options(args.k)?;
    options.min_score = args.min_score;
    options.rerank_budget = args.rerank_budget;
    let open = args.rerank.open(args.embedder.model.as_deref());
    let searcher = context.engine.searcher(&dir, &open)?;
    args.rerank.apply(&mut options, &searcher, context)?;
    let search = || searcher.search(&query, &options);
    let result = term::with_progress("searching", context.quiet, search)?;
    result.warnings.iter().for_each(|w| term::warn(w));
    let mut printer = HitPrinter::new(&searcher, &query, &options);
    (printer.full, printer.explain) = (args.full, args.explain);
    context.report(&result, || {
        result.hits.iter().try_for_each(|hit| match args.jsonl {
            true => term::print_json_line(hit),
            false => printer.print(hit),
        })
    })?;
    let counts = (result.below_min_score.unwrap_or(0), result.not_reranked.unwrap_or(0));
    note_left_out((counts.0 as u64, counts.1 as u64), context);
    if let (Some(rows), Some(depth)) = (result.reranked_rows, options.rerank_depth) {
        context.note(&format!("reranked {rows} rows of up to {depth} within --rerank-budget"));
    }
    if args.explain {
        context.note(&formula(&searcher, &options, result.ordered_by));
    }
    context.note(&summary(&result));
    Ok(if result.hits.is_empty() { Status::NoHits } else { Status::Success })
}

/// Notes the numbers of hits that `--min-score` left out: of those below it, and of those that were
/// not reranked.
pub(super) fn note_left_out((below, not_reranked): (u64, u64), context: &Context) {
    if below > 0 {
        context.note(&format!("{} hits below --min-score", HumanCount(below)));
    }
    if not_reranked > 0 {
        context.note(&format!(
            "{} hits left out, which were not reranked and have no score to compare with \
             --min-score: a larger --rerank-depth or --rerank-budget reads them too",
            HumanCount(not_reranked)
        ));
    }
}

/// The formula of the score that orders the hits.
fn formula(searcher: &Searcher, options: &SearchOptions, ordered_by: OrderedBy) -> String {
    let reranker = searcher.reranker.as_ref().map(|(_, reranker)| reranker);
    let formula = match (ordered_by, reranker.and_then(|reranker| reranker.calibration())) {
        (OrderedBy::Probability, Some(fitted)) => format!(
            "sigmoid({} * ({} * cosine + logit) {:+.2})",
            fitted.scale, fitted.cosine, fitted.offset
        ),
        (OrderedBy::Blend, _) => {
            let own = reranker.map(|reranker| reranker.retriever_weight());
            let weight = options.retriever_weight.or(own).unwrap_or_default();
            format!("{weight} * z(retrieval) + {} * z(logit)", 1.0 - weight)
        }
        (OrderedBy::Rerank, _) => "sigmoid(logit)".to_owned(),
        _ => return format!("ordered by {}", ordered_by.word()),
    };
    format!("ordered by {} = {formula}", ordered_by.word())
}

fn summary(result: &SearchResult) -> String {
    let total = HumanCount(result.total_rows as u64);
    let rows = if result.matched_rows == result.total_rows {
        format!("{total} rows")
    } else {
        format!("{} of {total} rows that pass the filter", HumanCount(result.matched_rows as u64))
    };
    format!(
        "{} hits among {rows}, by {}, in {}",
        result.hits.len(),
        result.ordered_by.word(),
        milliseconds(&result.took_ms)
    )
}
