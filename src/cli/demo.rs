//! `warpseek demo`.

use super::context::{Context, Status};
use super::hits::HitPrinter;
use super::interrupt;
use super::report::print_comparison;
use super::term::{HumanCount, bold, say};
use crate::bert::embedder::{Embedder, Normalize};
use crate::compare::compare;
use crate::engine::DEFAULT_MODEL;
use crate::error::{Error, Result};
use crate::eval::qrels::Qrels;
use crate::eval::{EvalOptions, JudgedQueries, RerankedSystem, evaluate};
use crate::indexing::{self, IndexOptions};
use crate::ingest::chunk::Chunking;
use crate::ingest::{self, DocumentReader, ReadOptions};
use crate::queries::QueryReader;
use crate::search::{DEFAULT_RERANK_DEPTH, SearchOptions, SearchResult, Searcher};
use crate::store::filter::Filter;
use crate::store::{Index, IndexManifest, IndexWriter, ModelStamp};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const CORPUS: &str = include_str!("../../examples/demo/corpus.jsonl");
const QUERIES: &str = include_str!("../../examples/demo/queries.jsonl");
const QRELS: &str = include_str!("../../examples/demo/qrels/test.tsv");

/// Demonstrate all steps: get the model, index 150 passages, search, compare, evaluate.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Folder for the demo's index
    #[arg(long, value_name = "DIR", default_value = "warpseek-demo")]
    into: PathBuf,
}

pub(super) fn run(args: DemoArgs, context: &Context) -> Result<Status> {
    interrupt::install();
    step(1, &format!("The embedding model, {DEFAULT_MODEL}"))?;
    let (embedder, stamp) = context.engine.embedder(DEFAULT_MODEL, Normalize::Always)?;
    let (dim, tokens) = (embedder.dim(), embedder.max_tokens());
    say!("{dim} dimensions, {tokens} tokens, {}", embedder.precision())?;
    step(2, "Indexing 150 short passages on search, machine learning and computing")?;
    index(&args, &embedder, stamp)?;
    let searcher = Searcher {
        index: Arc::new(Index::open(&args.into)?),
        embedder: Some(Arc::new(embedder)),
        reranker: context.engine.reranker(None)?,
        scanner: context.engine.scanner(),
        stop: None,
    };
    search_twice(&searcher)?;
    compare_rankings(&searcher)?;
    let measured = evaluate_all(&searcher)?;
    step(5, "Thirty judged questions")?;
    for (name, values) in measured {
        say!(
            "{name:24} nDCG@10 {:.3}   MRR@10 {:.3}   recall@10 {:.3}",
            values[0],
            values[1],
            values[2]
        )?;
    }
    say!("\n{}", bold("Next"))?;
    let dir = args.into.display();
    say!("  warpseek search {dir} \"why do caches miss?\"")?;
    say!("  warpseek compare {dir} \"how is a neural network trained?\"")?;
    say!("  warpseek index YOUR_FILES --into my-index")?;
    if searcher.reranker.is_none() {
        say!("  warpseek models pull ms-marco-MiniLM-L6-v2     (a reranker)")?;
    }
    Ok(Status::Success)
}

fn step(number: usize, text: &str) -> Result<()> {
    say!("\n{}", bold(&format!("[{number}/5] {text}")))
}

fn corpus() -> Result<DocumentReader> {
    let name = "examples/demo/corpus.jsonl";
    ingest::read_stream(CORPUS.as_bytes(), name, &ReadOptions::default())
}

fn index(args: &DemoArgs, embedder: &Embedder, stamp: ModelStamp) -> Result<()> {
    let started = Instant::now();
    let manifest = IndexManifest::new(embedder.dim(), Some(stamp), Chunking::default());
    let mut writer = IndexWriter::open_or_create(&args.into, &manifest)?;
    // The demo must not write to a user's index.
    let (mut own, mut all) = (0, 0);
    for document in corpus()? {
        own += usize::from(writer.find(&document?.id)?.is_some());
    }
    writer.for_each_live(|_, _| all += 1)?;
    if all != own {
        return Err(Error::usage(format!(
            "{} holds an index of other documents: choose another folder with --into",
            args.into.display()
        )));
    }
    let options = IndexOptions::default();
    let report = indexing::index(&mut writer, embedder, &mut corpus()?, options, &mut |_| {
        !interrupt::requested()
    })?;
    if report.interrupted {
        return Err(Error::Interrupted("run the demo again to continue".to_owned()));
    }
    say!(
        "{} new, {} already there; {} tokens in {:.1} s",
        report.added + report.updated,
        report.unchanged,
        HumanCount(report.tokens),
        started.elapsed().as_secs_f64()
    )
}

fn search_twice(searcher: &Searcher) -> Result<()> {
    step(3, "Searching")?;
    let rerank_depth = searcher.reranker.is_some().then_some(DEFAULT_RERANK_DEPTH);
    let question = "why does my program slow down when two threads write neighbouring variables?";
    say!("query: {question}")?;
    let options = SearchOptions { k: 3, rerank_depth, ..SearchOptions::default() };
    print_hits(searcher, question, &options)?;
    let question = "how can a ranking be judged?";
    let filter = "topic = 'search' AND level <= 2";
    say!("\nquery: {question}\nfilter: {filter}")?;
    let options = SearchOptions { filter: Some(Filter::parse(filter)?), ..options };
    let result = print_hits(searcher, question, &options)?;
    say!("{} of {} rows pass the filter", result.matched_rows, result.total_rows)
}

/// Searches and prints the hits.
fn print_hits(
    searcher: &Searcher,
    question: &str,
    options: &SearchOptions,
) -> Result<SearchResult> {
    let result = searcher.search(question, options)?;
    let mut printer = HitPrinter::new(searcher, question, options);
    result.hits.iter().try_for_each(|hit| printer.print(hit))?;
    say!("ordered by {}", result.ordered_by.word())?;
    Ok(result)
}

fn compare_rankings(searcher: &Searcher) -> Result<()> {
    let what = match searcher.reranker {
        Some(_) => "before and after reranking",
        None => "dense against hybrid (no reranker is present)",
    };
    step(4, &format!("Two rankings of one question: {what}"))?;
    let question = "joining two result lists without looking at their scores";
    print_comparison(&compare(searcher, question, 25, 3, &SearchOptions::default())?)
}

/// The mean scores of the retrieval, the reranked and the hybrid ranking.
fn evaluate_all(searcher: &Searcher) -> Result<Vec<(String, Vec<f64>)>> {
    let queries = QueryReader::from_reader(QUERIES.as_bytes(), "examples/demo/queries.jsonl")?;
    let qrels_file = "examples/demo/qrels/test.tsv".to_owned();
    let judged = JudgedQueries {
        queries: queries.collect::<Result<_>>()?,
        qrels: Qrels::from_reader(QRELS.as_bytes(), &qrels_file)?,
        qrels_file,
    };
    let mut all = Vec::new();
    for hybrid in [false, true] {
        let rerankers = searcher.reranker.iter().filter(|_| !hybrid);
        let reranked: Vec<RerankedSystem<'_>> = rerankers
            .map(|(model, reranker)| RerankedSystem {
                name: "reranked".to_owned(),
                model: model.clone(),
                reranker,
                depth: DEFAULT_RERANK_DEPTH,
                retriever_weight: None,
            })
            .collect();
        let search = SearchOptions { hybrid, ..SearchOptions::default() };
        let options = EvalOptions { search, ..EvalOptions::default() };
        let report =
            evaluate(searcher, &reranked, &judged, &options, &mut |_, _| !interrupt::requested())?;
        let name = |own| if hybrid { "hybrid".to_owned() } else { own };
        all.extend(report.systems.into_iter().map(|s| (name(s.name), s.evaluation.mean)));
    }
    Ok(all)
}
