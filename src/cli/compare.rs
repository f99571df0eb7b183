//! `warpseek compare`.

use super::args::{EmbedderArg, QueryFileArgs, RetrieveArgs, number, read_query};
use super::context::{Context, Status};
use super::report::print_comparison;
use super::{judged, term};
use crate::compare::{Second, compare};
use crate::engine::OpenOptions;
use crate::error::Result;
use crate::eval::{EvalOptions, JudgedQueries, RerankedSystem};
use crate::search::{SearchOptions, Searcher};
use clap::Args;
use std::path::PathBuf;

/// Set two rankings side by side: the retrieval order and the reranked order.
///
/// Without a reranker: the dense ranking and the hybrid one. With --queries and --qrels: the gain
/// of reranking over many queries, at several depths.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Index folder; a single argument is the query [default: .warpseek here or in a folder above,
    /// or the setting `index`]
    dir: Option<PathBuf>,
    /// Query; - reads it from stdin
    #[arg(conflicts_with = "queries")]
    query: Option<String>,
    /// Number of rows to retrieve and rerank
    #[arg(
        short,
        long = "top-k",
        default_value_t = 25,
        value_name = "N",
        conflicts_with = "queries"
    )]
    k: usize,
    /// Number of rows of each ranking to show
    #[arg(
        long,
        default_value_t = 3,
        value_name = "N",
        conflicts_with = "queries",
        value_parser = number(1..)
    )]
    show: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    /// Reranker: a listed name, a hub id, a folder, or none for dense against hybrid [default: the
    /// best one present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Share of the retrieval score in the final score, 0 to 1 [default: the reranker's own]
    #[arg(long, value_name = "W")]
    retriever_weight: Option<f32>,
    /// Judged queries, instead of one query
    #[arg(long, requires = "qrels", value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Qrels (relevance judgments) of the queries
    #[arg(long, requires = "queries", value_name = "FILE")]
    qrels: Option<PathBuf>,
    #[command(flatten)]
    file: QueryFileArgs,
}

/// Rerank depths to evaluate for a set of queries.
const DEPTHS: [usize; 4] = [10, 25, 50, 100];

impl CompareArgs {
    pub(super) fn has_many_queries(&self) -> bool {
        self.queries.is_some()
    }
}

pub(super) fn run(args: CompareArgs, context: &Context) -> Result<Status> {
    let mut options = args.retrieve.options(args.k)?;
    options.retriever_weight = args.retriever_weight;
    let (dir, query) = index_and_query(&args, context)?;
    let query = query.map(read_query).transpose()?;
    let (model, reranker) = (args.embedder.model.as_deref(), args.reranker.as_deref());
    if args.queries.is_none() {
        args.file.refuse_without("--queries")?;
    }
    let searcher = context.engine.searcher(&dir, &OpenOptions { model, rerank: true, reranker })?;
    if let (Some(queries), Some(qrels)) = (&args.queries, &args.qrels) {
        searcher.require_reranker()?;
        let queries = args.file.open(queries, "query", context)?;
        let judged = JudgedQueries::read(queries, qrels)?;
        return compare_depths(&searcher, &judged, options, context);
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
    context.report(&comparison, || print_comparison(&comparison))?;
    let is_empty = comparison.before.is_empty() && comparison.after.is_empty();
    Ok(if is_empty { Status::NoHits } else { Status::Success })
}

/// The index and the query, which a file of queries replaces.
fn index_and_query<'a>(
    args: &'a CompareArgs,
    context: &Context,
) -> Result<(PathBuf, Option<&'a str>)> {
    let (dir, query) = (args.dir.as_deref(), args.query.as_deref());
    if args.queries.is_some() {
        return Ok((context.index_dir(dir)?, None));
    }
    let (dir, query) = context.index_and(dir, query, "query")?;
    Ok((dir, Some(query)))
}

/// Evaluates the reranker at several depths.
fn compare_depths(
    searcher: &Searcher,
    queries: &JudgedQueries,
    search: SearchOptions,
    context: &Context,
) -> Result<Status> {
    let weight = search.retriever_weight;
    let options = EvalOptions { search, ..EvalOptions::default() };
    let reranked = RerankedSystem::all(searcher.reranker.as_slice(), &DEPTHS, weight);
    let report = judged::measure(searcher, &reranked, queries, &options, context)?;
    judged::print(&report, &options, false, searcher, context)
}
