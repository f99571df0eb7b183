//! `warpseek demo`.

use super::context::{Context, DEFAULT_MODEL};
use super::search::print_hit;
use super::term::{bold, say, thousands};
use super::{Outcome, compare as compare_command, interrupt};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use warpseek::chunk::Chunking;
use warpseek::compare::compare;
use warpseek::embed::Normalize;
use warpseek::error::{Error, Result};
use warpseek::eval::judgments::Judgments;
use warpseek::eval::measures::{EvaluateOptions, Measure};
use warpseek::eval::{EvalOptions, RerankedSystem, evaluate};
use warpseek::indexing::{self, IndexOptions};
use warpseek::ingest::{self, ReadOptions};
use warpseek::queries::{Query, QueryReader};
use warpseek::search::{DEFAULT_RERANK_DEPTH, SearchOptions, Searcher};
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter};

const CORPUS: &str = include_str!("../../examples/demo/corpus.jsonl");
const QUERIES: &str = include_str!("../../examples/demo/queries.jsonl");
const QRELS: &str = include_str!("../../examples/demo/qrels/test.tsv");

/// The demo in one go: fetch the model, index 150 passages, search, compare, evaluate.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The folder for the demo's index
    #[arg(long, value_name = "DIR", default_value = "warpseek-demo")]
    into: PathBuf,
}

pub(super) fn run(args: DemoArgs, context: &Context) -> Result<Outcome> {
    interrupt::install();
    let say_step = |n: usize, text: &str| say!("\n{}", bold(&format!("[{n}/5] {text}")));

    say_step(1, &format!("The embedding model, {DEFAULT_MODEL}"))?;
    let (embedder, stamp) = context.embedder(DEFAULT_MODEL, Normalize::Always)?;
    say!(
        "{} dimensions, {} tokens, {}",
        embedder.dim(),
        embedder.max_tokens(),
        embedder.precision()
    )?;

    say_step(2, "Indexing 150 short passages on search, machine learning and computing")?;
    let started = Instant::now();
    let manifest = IndexManifest::new(embedder.dim(), Some(stamp), Chunking::default());
    let mut writer = IndexWriter::open_or_create(&args.into, &manifest)?;
    let mut documents = ingest::read_stream(
        CORPUS.as_bytes(),
        "examples/demo/corpus.jsonl",
        &ReadOptions::default(),
    )?;
    refuse_other_index(&writer, &args)?;
    let options = IndexOptions { prune: true, ..IndexOptions::default() };
    let report =
        indexing::index(&mut writer, &embedder, &mut documents, None, options, &mut |_| {
            !interrupt::asked()
        })?;
    drop(writer);
    if report.interrupted {
        return Err(Error::Interrupted("run the demo again to go on".to_owned()));
    }
    say!(
        "{} new, {} already there; {} tokens in {:.1} s",
        report.added + report.updated,
        report.unchanged,
        thousands(report.tokens),
        started.elapsed().as_secs_f64()
    )?;

    let searcher = Searcher {
        index: Index::open(&args.into)?,
        embedder: Some(Arc::new(embedder)),
        reranker: context.reranker(None)?,
        scanner: context.scanner()?,
    };
    search_twice(&searcher)?;
    compare_rankings(&searcher)?;
    let measured = evaluate_all(&searcher)?;
    say_step(5, "Thirty judged questions")?;
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
        say!(
            "  warpseek models pull ms-marco-MiniLM-L6-v2     (a reranker, from the Hugging Face hub)"
        )?;
    }
    Ok(Outcome::Success)
}

/// The demo prunes what is not its own, so it must not work on somebody's index.
fn refuse_other_index(writer: &IndexWriter, args: &DemoArgs) -> Result<()> {
    let mut own = 0;
    for document in ingest::read_stream(
        CORPUS.as_bytes(),
        "examples/demo/corpus.jsonl",
        &ReadOptions::default(),
    )? {
        own += usize::from(writer.find(&document?.id)?.is_some());
    }
    if writer.live_except(|_| false)?.len() == own {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} holds an index of other documents: choose another folder with --into",
        args.into.display()
    )))
}

fn search_twice(searcher: &Searcher) -> Result<()> {
    say!("\n{}", bold("[3/5] Searching"))?;
    let depth = searcher.reranker.is_some().then_some(DEFAULT_RERANK_DEPTH);
    let question = "why does my program slow down when two threads write neighbouring variables?";
    say!("query: {question}")?;
    let options = SearchOptions { k: 3, rerank_depth: depth, ..SearchOptions::default() };
    for hit in searcher.search(question, &options)?.hits {
        print_hit(&hit, question, false)?;
    }
    let question = "how can a ranking be judged?";
    let filter = "topic = 'search' AND level <= 2";
    say!("\nquery: {question}\nfilter: {filter}")?;
    let options = SearchOptions { filter: Some(Filter::parse(filter)?), ..options };
    let result = searcher.search(question, &options)?;
    for hit in &result.hits {
        print_hit(hit, question, false)?;
    }
    say!("{} of {} rows pass the filter", result.matched_rows, result.total_rows)
}

fn compare_rankings(searcher: &Searcher) -> Result<()> {
    let what = if searcher.reranker.is_some() {
        "what reranking changes"
    } else {
        "dense against hybrid (no reranker is here)"
    };
    say!("\n{}", bold(&format!("[4/5] Two rankings of one question: {what}")))?;
    let question = "joining two result lists without looking at their scores";
    let comparison = compare(searcher, question, 25, 3, &SearchOptions::default())?;
    compare_command::print(&comparison)
}

/// The demo's questions, answered every way there is.
fn evaluate_all(searcher: &Searcher) -> Result<Vec<(String, Vec<f64>)>> {
    let judgments = Judgments::from_reader(QRELS.as_bytes(), "examples/demo/qrels/test.tsv")?;
    let queries: Vec<Query> =
        QueryReader::from_reader(QUERIES.as_bytes(), "examples/demo/queries.jsonl")?
            .collect::<Result<_>>()?;
    let mut all = Vec::new();
    for hybrid in [false, true] {
        let reranked: Vec<RerankedSystem<'_>> = searcher
            .reranker
            .iter()
            .filter(|_| !hybrid)
            .map(|(_, reranker)| RerankedSystem {
                name: "reranked".to_owned(),
                reranker,
                depth: DEFAULT_RERANK_DEPTH,
                retriever_weight: reranker.retriever_weight(),
            })
            .collect();
        let options = EvalOptions {
            measures: vec![Measure::Ndcg(10), Measure::ReciprocalRank(10), Measure::Recall(10)],
            judging: EvaluateOptions::default(),
            depth: 100,
            search: SearchOptions { hybrid, ..SearchOptions::default() },
            candidates: None,
        };
        let judged = (&queries[..], &judgments);
        let report =
            evaluate(searcher, &reranked, judged, &options, &mut |_, _| !interrupt::asked())?;
        for system in report.systems {
            let name = if hybrid { "hybrid".to_owned() } else { system.name };
            all.push((name, system.evaluation.mean));
        }
    }
    Ok(all)
}
