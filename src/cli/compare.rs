//! `warpseek compare`.

use super::context::{Context, OpenOptions};
use super::search::{EmbedderArg, RetrieveArgs, milliseconds, read_query};
use super::term::{self, bold, dim, plain, say};
use super::{Outcome, eval};
use clap::Args;
use std::path::PathBuf;
use warpseek::compare::{Comparison, Second, compare};
use warpseek::error::{Error, Result};
use warpseek::search::Hit;

/// Set two rankings side by side: the retrieval order and what the reranker makes of it.
///
/// Without a reranker, the dense order and the hybrid one. With --queries and --qrels: what
/// reranking is worth over many queries, at several depths.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The index folder
    dir: PathBuf,
    /// The query; - reads it from stdin
    #[arg(required_unless_present = "queries", conflicts_with = "queries")]
    query: Option<String>,
    /// How many rows to retrieve and order again
    #[arg(
        short,
        long = "top-k",
        default_value_t = 25,
        value_name = "N",
        conflicts_with = "queries"
    )]
    k: usize,
    /// How many of each ranking to show
    #[arg(long, default_value_t = 3, value_name = "N", conflicts_with = "queries")]
    show: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    /// The reranker: a name, a hub id, a folder, or none for dense against hybrid [default: the best
    /// one that is present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// How much the retrieval score counts beside the reranker's, 0 (not at all) to 1 [default: what
    /// suits the reranker]
    #[arg(long, value_name = "W")]
    retriever_weight: Option<f32>,
    /// Judged queries, instead of one query
    #[arg(long, requires = "qrels", value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Their relevance judgments
    #[arg(long, requires = "queries", value_name = "FILE")]
    qrels: Option<PathBuf>,
}

/// Depths whose worth is shown for a set of queries.
const DEPTHS: [usize; 4] = [10, 25, 50, 100];

impl CompareArgs {
    pub(super) fn has_many_queries(&self) -> bool {
        self.queries.is_some()
    }
}

pub(super) fn run(args: CompareArgs, context: &Context) -> Result<Outcome> {
    if args.show == 0 {
        return Err(Error::usage("--show must be at least 1"));
    }
    let mut options = args.retrieve.options(args.k)?;
    options.retriever_weight = args.retriever_weight;
    let query = args.query.as_deref().map(read_query).transpose()?;
    let open = OpenOptions {
        model: args.embedder.model.as_deref(),
        rerank: true,
        reranker: args.reranker.as_deref(),
    };
    let searcher = context.searcher(&args.dir, &open)?;
    if let (Some(queries), Some(qrels)) = (&args.queries, &args.qrels) {
        searcher.require_reranker()?;
        let files = eval::JudgedFiles { queries, qrels };
        return eval::run_depths(&searcher, &files, options, &DEPTHS, context);
    }
    let query = query.unwrap_or_default();
    let comparison = compare(&searcher, &query, args.k, args.show, &options)?;
    comparison.warnings.iter().for_each(|w| term::warn(w));
    if comparison.second == Second::Hybrid {
        context.note_missing_reranker(
            args.reranker.as_deref(),
            "comparing the dense ranking with the hybrid one (dense and BM25 fused)",
        );
    }
    if context.json {
        term::print_json(&comparison)?;
    } else {
        print(&comparison)?;
    }
    let empty = comparison.before.is_empty() && comparison.after.is_empty();
    Ok(if empty { Outcome::NoHits } else { Outcome::Success })
}

/// Prints a comparison for people.
pub(super) fn print(comparison: &Comparison) -> Result<()> {
    let word = comparison.second.word();
    say!("{}", bold(&format!("Query: {}", plain(&comparison.query))))?;
    say!("")?;
    say!("{}", bold(&format!("Top {} as retrieved", comparison.before.len())))?;
    for hit in &comparison.before {
        print_hit(hit, hit.rank, None)?;
    }
    say!("")?;
    let by = match &comparison.reranker {
        Some(name) => format!("Top {} {word} by {}", comparison.after.len(), plain(name)),
        None => format!("Top {} {word}", comparison.after.len()),
    };
    say!("{}", bold(&by))?;
    for (hit, moved) in comparison.after.iter().zip(&comparison.rank_map) {
        print_hit(hit, hit.rank, Some((word, moved.retrieved_rank)))?;
    }
    let churn = &comparison.churn;
    say!("")?;
    say!(
        "{} of the top {} stay; {}; rows move {:.1} places on average, Kendall's tau {:.2}",
        churn.kept,
        comparison.after.len(),
        if churn.first_changed { "another row is first" } else { "the first row stays first" },
        churn.mean_move,
        churn.kendall_tau
    )?;
    say!("{}", milliseconds(&comparison.took_ms))
}

fn print_hit(hit: &Hit, rank: usize, moved: Option<(&str, Option<usize>)>) -> Result<()> {
    let title = if hit.title.is_empty() { &hit.id } else { &hit.title };
    say!("{rank:>3}  {}", bold(plain(title).trim()))?;
    let score = match hit.rerank_score {
        Some(rerank) if moved.is_some() => format!("rerank {rerank:.4}, score {:.4}", hit.score),
        _ => format!("score {:.4}", hit.score),
    };
    let place = match moved {
        Some((word, Some(before))) => format!("  {word} #{rank} was retrieved #{before}"),
        Some((word, None)) => format!("  {word} #{rank} was not among the retrieved"),
        None => String::new(),
    };
    say!("     {}", dim(&format!("{}  {score}{place}", plain(&hit.id))))?;
    let text: String = hit.text.chars().take(200).collect();
    let more = if text.len() < hit.text.len() { " ..." } else { "" };
    say!("{}", term::wrap(&format!("{}{more}", plain(&text)), "     ", term::width()))
}
