//! `warpseek eval`.

use super::context::{Context, OpenOptions};
use super::search::{EmbedderArg, RerankArgs, RetrieveArgs};
use super::term::{self, bold, say};
use super::{Outcome, interrupt};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warpseek::error::{Error, Place, Result};
use warpseek::eval::judgments::Judgments;
use warpseek::eval::measures::{EvaluateOptions, Measure};
use warpseek::eval::run::Run;
use warpseek::eval::trec::RunWriter;
use warpseek::eval::{EvalOptions, EvalReport, RerankedSystem, SystemEval, evaluate};
use warpseek::output::OutputFile;
use warpseek::queries::{Query, QueryReader};
use warpseek::rerank::Reranker;
use warpseek::search::{SearchOptions, Searcher, no_reranker};

/// Score an index on judged queries, with and without reranking.
///
/// Measures follow trec_eval: a judged query without an answer counts 0.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// The index folder
    dir: PathBuf,
    /// The queries: jsonl (_id, text), id <tab> text, or one a line
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// The judgments: BEIR's TSV or TREC's four columns
    #[arg(long, value_name = "FILE")]
    qrels: PathBuf,
    /// What to measure: ndcg@N, mrr@N, recall@N, p@N, map
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "ndcg@10,mrr@10,recall@10,recall@100,map"
    )]
    measures: Vec<String>,
    /// Documents a query in the run [default: the deepest cut of the measures, at least 100]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// The level from which a document counts as relevant in measures other than nDCG
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
    rerank: RerankArgs,
    /// A ranking made elsewhere to rerank in place of the retrieval's: a TREC run, or query, doc_id
    /// and rank or score
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "hybrid", "mmr"])]
    candidates: Option<PathBuf>,
    /// Write the last system's ranking as a TREC run
    #[arg(long, value_name = "FILE")]
    run_out: Option<PathBuf>,
    /// Print the scores of every query
    #[arg(long)]
    per_query: bool,
}

/// Queries with their judgments.
pub(super) struct JudgedFiles<'a> {
    pub(super) queries: &'a Path,
    pub(super) qrels: &'a Path,
}

impl JudgedFiles<'_> {
    fn read(&self) -> Result<(Vec<Query>, Judgments)> {
        let judgments = Judgments::read(self.qrels)?;
        let queries = QueryReader::open(self.queries)?.collect::<Result<Vec<_>>>()?;
        let place = || Place::file(self.queries.display().to_string());
        if queries.is_empty() {
            return Err(Error::input(place(), "the file holds no queries"));
        }
        if queries.iter().all(|q| judgments.get(&q.id).is_none()) {
            return Err(Error::input(
                place(),
                format!(
                    "none of its {} queries has judgments in {}: do the two files belong together?",
                    queries.len(),
                    self.qrels.display()
                ),
            ));
        }
        Ok((queries, judgments))
    }
}

pub(super) fn run(args: EvalArgs, context: &Context) -> Result<Outcome> {
    let measures: Vec<Measure> = args.measures.iter().map(|m| m.parse()).collect::<Result<_>>()?;
    let depth = args.depth.unwrap_or_else(|| deepest(&measures).max(100));
    if depth == 0 {
        return Err(Error::usage("--depth must be at least 1"));
    }
    let search = args.retrieve.options(depth)?;
    let outputs: Vec<&Path> = args.run_out.as_deref().into_iter().collect();
    term::check_outputs(&outputs, &[&args.queries, &args.qrels], Some(&args.dir))?;
    let (queries, judgments) = JudgedFiles { queries: &args.queries, qrels: &args.qrels }.read()?;
    let open = OpenOptions { rerank: false, ..args.rerank.open(args.embedder.model.as_deref()) };
    let searcher = context.searcher(&args.dir, &open)?;
    let rerankers = rerankers(&args.rerank, &queries, context)?;
    let reranked = systems(&rerankers, &[args.rerank.asked_depth(0)], args.rerank.retriever_weight);
    let options = EvalOptions {
        measures,
        judging: EvaluateOptions {
            relevance_level: args.relevance_level,
            drop_self: args.drop_self,
        },
        depth,
        search,
        candidates: args.candidates.as_deref().map(Run::read).transpose()?,
    };
    // A place that cannot be written is told before the work, not after it.
    let run_out = args.run_out.as_deref().map(OutputFile::create).transpose()?;
    let judged = (&queries[..], &judgments);
    let report = measure(&searcher, &reranked, judged, &args.qrels, &options, context)?;
    if report.absent_candidates > 0 {
        term::warn(&format!(
            "{} documents of the given ranking are not in the index and were left out",
            report.absent_candidates
        ));
    }
    print(&report, &options, args.per_query, &searcher, context)?;
    if let (Some(file), Some(path), Some(system)) = (run_out, &args.run_out, report.systems.last())
    {
        write_run(&system.run, file, path)?;
    }
    Ok(Outcome::Success)
}

/// What reranking is worth at several depths.
pub(super) fn run_depths(
    searcher: &Searcher,
    files: &JudgedFiles<'_>,
    search: SearchOptions,
    depths: &[usize],
    context: &Context,
) -> Result<Outcome> {
    let (queries, judgments) = files.read()?;
    let options = EvalOptions {
        measures: vec![Measure::Ndcg(10), Measure::ReciprocalRank(10), Measure::Recall(10)],
        judging: EvaluateOptions::default(),
        depth: 100,
        search,
        candidates: None,
    };
    let reranked = systems(searcher.reranker.as_slice(), depths, options.search.retriever_weight);
    let judged = (&queries[..], &judgments);
    let report = measure(searcher, &reranked, judged, files.qrels, &options, context)?;
    print(&report, &options, false, searcher, context)?;
    Ok(Outcome::Success)
}

/// The rerankers to evaluate: the one that is asked for, else every one that is present.
fn rerankers(
    args: &RerankArgs,
    queries: &[Query],
    context: &Context,
) -> Result<Vec<(String, Arc<Reranker>)>> {
    if args.is_declined() {
        return Ok(Vec::new());
    }
    if let Some(query) = queries.iter().find(|q| q.text.trim().is_empty()) {
        if args.is_asked_for() {
            let reason = "reranking needs the query's text beside its vector";
            return Err(Error::input(query.place.clone(), reason));
        }
        context.note("measuring the retrieval alone: some queries have no text to rerank by");
        return Ok(Vec::new());
    }
    let found = match &args.reranker {
        Some(name) => context.reranker(Some(name))?.into_iter().collect(),
        None => context.rerankers()?,
    };
    if found.is_empty() {
        if args.rerank_depth.is_some() {
            return Err(no_reranker());
        }
        context.note_missing_reranker(args.reranker.as_deref(), "measuring the retrieval alone");
    }
    Ok(found)
}

/// Every reranker at every depth, as it is used and, where it is blended with the retrieval, alone.
fn systems<'a>(
    rerankers: &'a [(String, Arc<Reranker>)],
    depths: &[usize],
    weight: Option<f32>,
) -> Vec<RerankedSystem<'a>> {
    let mut all = Vec::new();
    for (name, reranker) in rerankers {
        // A folder goes by its last part.
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        for &depth in depths {
            let weight = weight.unwrap_or(reranker.retriever_weight());
            let mut add = |name: String, retriever_weight| {
                all.push(RerankedSystem { name, reranker, depth, retriever_weight });
            };
            if weight > 0.0 {
                add(format!("{name} alone, top {depth}"), 0.0);
            }
            add(format!("{name}, top {depth}"), weight);
        }
    }
    all
}

fn measure(
    searcher: &Searcher,
    reranked: &[RerankedSystem<'_>],
    judged: (&[Query], &Judgments),
    qrels: &Path,
    options: &EvalOptions,
    context: &Context,
) -> Result<EvalReport> {
    interrupt::install();
    let bar = term::bar(Some(0), "[{bar:40}] {pos}/{len} queries  ETA {eta}", context.quiet);
    let report = evaluate(searcher, reranked, judged, options, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        !interrupt::asked()
    });
    bar.finish_and_clear();
    let report = report?;
    if report.missing_queries > 0 {
        term::warn(&format!(
            "{} judged queries are not in the query file and count 0",
            report.missing_queries
        ));
    }
    if report.absent_documents > 0 {
        term::warn(&format!(
            "{}: {} of {} documents judged relevant are not in the index: do the two belong together?",
            qrels.display(),
            report.absent_documents,
            report.relevant_documents
        ));
    }
    if report.unjudged_queries > 0 {
        context.note(&format!("{} queries without judgments left out", report.unjudged_queries));
    }
    Ok(report)
}

/// The deepest rank that a measure looks at.
fn deepest(measures: &[Measure]) -> usize {
    measures
        .iter()
        .map(|m| match m {
            Measure::Ndcg(k)
            | Measure::ReciprocalRank(k)
            | Measure::Recall(k)
            | Measure::Precision(k) => *k,
            Measure::AveragePrecision => 100,
        })
        .max()
        .unwrap_or(100)
}

fn print(
    report: &EvalReport,
    options: &EvalOptions,
    per_query: bool,
    searcher: &Searcher,
    context: &Context,
) -> Result<()> {
    if context.json {
        let systems: Vec<Value> =
            report.systems.iter().map(|s| system_json(s, options, per_query)).collect();
        return term::print_json(&json!({
            "systems": systems,
            "judged_queries": report.systems.first().map(|s| s.evaluation.judged),
            "missing_queries": report.missing_queries,
            "unjudged_queries": report.unjudged_queries,
            "reranker": searcher.reranker.as_ref().map(|r| &r.0),
            "rows": searcher.index.live().count(),
        }));
    }
    let names: Vec<String> = options.measures.iter().map(Measure::to_string).collect();
    let width = report.systems.iter().map(|s| s.name.len()).max().unwrap_or(0).max(10);
    let head: Vec<String> = names.iter().map(|n| format!("{n:>11}")).collect();
    say!("{}", bold(&format!("{:width$} {}     p50 ms   p95 ms", "", head.join(""))))?;
    for system in &report.systems {
        let values: Vec<String> =
            system.evaluation.mean.iter().map(|v| format!("{v:>11.4}")).collect();
        say!(
            "{:width$} {}  {:>9.1}{:>9.1}{}",
            system.name,
            values.join(""),
            system.latency.p50,
            system.latency.p95,
            if system.latency_estimated { "  (estimated)" } else { "" }
        )?;
    }
    if let Some(first) = report.systems.first() {
        say!(
            "{} judged queries, {} answered, {} without a relevant document",
            first.evaluation.judged,
            first.evaluation.answered,
            first.evaluation.without_relevant
        )?;
    }
    for system in &report.systems {
        if let Some(test) = &system.against_first {
            say!(
                "{}: {} {:+.4} [95% interval {:+.4} .. {:+.4}], better on {}, worse on {}, equal on {}; \
                 paired randomisation p = {:.4}",
                system.name,
                names[0],
                test.difference,
                test.interval.0,
                test.interval.1,
                test.wins,
                test.losses,
                test.ties,
                test.randomisation.p_value
            )?;
        }
    }
    if per_query {
        for system in &report.systems {
            say!("")?;
            say!("{}", bold(&format!("{}, query by query", system.name)))?;
            for query in &system.evaluation.per_query {
                let values: Vec<String> =
                    query.values.iter().map(|v| format!("{v:>11.4}")).collect();
                say!("{}  {}", values.join(""), term::plain(&query.query))?;
            }
        }
    }
    Ok(())
}

fn system_json(system: &SystemEval, options: &EvalOptions, per_query: bool) -> Value {
    let scores = |values: &[f64]| -> Value {
        let pairs = options.measures.iter().zip(values);
        pairs.map(|(m, v)| (m.to_string(), json!(v))).collect::<serde_json::Map<_, _>>().into()
    };
    let mut value = json!({
        "name": system.name,
        "mean": scores(&system.evaluation.mean),
        "judged": system.evaluation.judged,
        "answered": system.evaluation.answered,
        "without_relevant": system.evaluation.without_relevant,
        "latency_ms": system.latency,
        "latency_estimated": system.latency_estimated,
    });
    if let Some(test) = &system.against_first {
        value["against_first"] = json!({
            "difference": test.difference,
            "interval_95": [test.interval.0, test.interval.1],
            "wins": test.wins,
            "ties": test.ties,
            "losses": test.losses,
            "p_randomisation": test.randomisation.p_value,
            "p_t_test": test.t_test.as_ref().map(|t| t.p_value),
        });
    }
    if per_query {
        let all = system.evaluation.per_query.iter();
        value["per_query"] = all.map(|q| (q.query.clone(), scores(&q.values))).collect();
    }
    value
}

fn write_run(run: &Run, file: OutputFile, path: &Path) -> Result<()> {
    let mut writer = RunWriter::new(file, path, "warpseek")?;
    for (query, ranking) in run.iter() {
        writer.write_query(query, ranking)?;
    }
    writer.finish()?.finish()
}
