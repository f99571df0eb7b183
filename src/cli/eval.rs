//! `warpseek eval`.

use super::args::{EmbedderArg, QueryFileArgs, RerankingArgs, RetrieveArgs, number};
use super::context::{Context, Status};
use super::judged::{measure, print};
use super::term;
use crate::bert::reranker::Reranker;
use crate::engine::OpenOptions;
use crate::error::{Error, Result};
use crate::eval::measures::{EvaluateOptions, Measure};
use crate::eval::run::Run;
use crate::eval::trec::RunWriter;
use crate::eval::{EvalOptions, JudgedQueries, RerankedSystem};
use crate::output::OutputFile;
use crate::queries::Query;
use crate::search::no_reranker;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Score an index on judged queries, with and without reranking.
///
/// Measures follow trec_eval: a judged query without an answer counts 0. mrr@N is its recip_rank of
/// the first N; ir_measures' RR@N differs from it on ties of score.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Queries: jsonl, csv, tsv or parquet (_id, text), id <tab> text, or one per line
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    #[command(flatten)]
    file: QueryFileArgs,
    /// Qrels (relevance judgments): BEIR's TSV or TREC's four columns
    #[arg(long, value_name = "FILE")]
    qrels: PathBuf,
    /// Measures: ndcg@N, mrr@N, recall@N, p@N, map
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "ndcg@10,mrr@10,recall@10,recall@100,map"
    )]
    measures: Vec<Measure>,
    /// Documents per query in the run [default: the deepest cut-off of the measures, at least 100]
    #[arg(long, value_name = "N", value_parser = number(1..))]
    depth: Option<usize>,
    /// Lowest level that counts as relevant in measures other than nDCG
    #[arg(long, value_name = "N", default_value_t = 1)]
    relevance_level: i32,
    /// Leave out documents whose id is the query's (BEIR's rule)
    #[arg(long)]
    drop_self: bool,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    #[command(flatten)]
    rerank: RerankingArgs,
    /// External ranking to rerank instead of the retrieval's: a TREC run, or query, doc_id and
    /// rank or score
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "hybrid", "mmr"])]
    candidates: Option<PathBuf>,
    /// Write the last system's ranking as a TREC run
    #[arg(long, value_name = "FILE")]
    run_out: Option<PathBuf>,
    /// Print the scores of every query
    #[arg(long)]
    per_query: bool,
}

pub(super) fn run(args: EvalArgs, context: &Context) -> Result<Status> {
    let deepest = args.measures.iter().filter_map(|m| m.cutoff()).max().unwrap_or(0);
    let depth = args.depth.unwrap_or(deepest.max(100));
    let search = args.retrieve.options(depth)?;
    let outputs: Vec<&Path> = args.run_out.as_deref().into_iter().collect();
    let dir = context.index_dir(args.dir.as_deref())?;
    term::check_outputs(&outputs, &[&args.queries, &args.qrels], Some(&dir))?;
    let queries = args.file.open(&args.queries, "query", context)?;
    let name = queries.name().to_owned();
    let judged = JudgedQueries::read(queries, &args.qrels)?;
    context.note(&format!("{name}: {} queries", judged.queries.len()));
    let open = OpenOptions { rerank: false, ..args.rerank.open(args.embedder.model.as_deref()) };
    let searcher = context.engine.searcher(&dir, &open)?;
    let rerankers = rerankers(&args.rerank, &judged.queries, context)?;
    let reranked =
        RerankedSystem::all(&rerankers, &[args.rerank.depth(0)], args.rerank.retriever_weight);
    let options = EvalOptions {
        measures: args.measures,
        judging: EvaluateOptions {
            relevance_level: args.relevance_level,
            drop_self: args.drop_self,
        },
        depth,
        search,
        candidates: args.candidates.as_deref().map(Run::read).transpose()?,
    };
    // An output file that cannot be written is refused before the work.
    let run_out = args.run_out.as_deref().map(OutputFile::create).transpose()?;
    let report = measure(&searcher, &reranked, &judged, &options, context)?;
    if report.coverage.queries_in_index > 0 && !args.drop_self {
        context.note(&format!(
            "{} judged queries have the id of a document: if the queries are documents \
             themselves, --drop-self leaves each one's own document out",
            report.coverage.queries_in_index
        ));
    }
    print(&report, &options, args.per_query, &searcher, context)?;
    if let (Some(file), Some(path), Some(system)) = (run_out, args.run_out, report.systems.last()) {
        let mut writer = RunWriter::new(file, path, "warpseek")?;
        for (query, ranking) in system.run.iter() {
            writer.write_query(query, ranking)?;
        }
        writer.finish()?.finish()?;
    }
    Ok(Status::Success)
}

/// The rerankers to evaluate: the requested one, else every one that is present.
fn rerankers(
    args: &RerankingArgs,
    queries: &[Query],
    context: &Context,
) -> Result<Vec<(String, Arc<Reranker>)>> {
    if args.is_declined() {
        return Ok(Vec::new());
    }
    if let Some(query) = queries.iter().find(|q| q.text.trim().is_empty()) {
        if args.is_requested() {
            let reason = "reranking needs the query's text besides its vector";
            return Err(Error::input(query.place.clone(), reason));
        }
        context.note("measuring the retrieval alone: some queries have no text to rerank by");
        return Ok(Vec::new());
    }
    let found = match &args.reranker {
        Some(name) => context.engine.reranker(Some(name))?.into_iter().collect(),
        None => context.engine.rerankers()?,
    };
    if found.is_empty() {
        if args.rerank_depth.is_some() {
            return Err(no_reranker());
        }
        context.note_missing_reranker(args.reranker.as_deref(), "measuring the retrieval alone");
    }
    Ok(found)
}
