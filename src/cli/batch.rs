//! `warpseek batch`.

use super::args::{EmbedderArg, QueryFileArgs, RerankingArgs, RetrieveArgs};
use super::context::{Context, Status};
use super::default_index::is_index;
use super::interrupt;
use super::search::note_left_out;
use super::term::{self, HumanCount, say};
use crate::batch::{self, BatchFormat, BatchOptions};
use crate::engine::OpenOptions;
use crate::error::{Error, Result};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

/// Answer the queries of a file into a file; an interrupted run continues where it stopped.
///
/// Reranks only with --rerank-depth, --reranker or --retriever-weight: reranking takes some hundred
/// times as long as the search.
#[derive(Debug, Args)]
#[command(override_usage = "warpseek batch [OPTIONS] --out <FILE> [DIR] <QUERIES>")]
pub(super) struct BatchArgs {
    /// Index folder; a single argument is the file of queries [default: .warpseek here or in a
    /// folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Queries: jsonl, csv, tsv or parquet (_id, text, optionally filter and vector), id <tab>
    /// text, one per line, or vectors (npy, fvecs, fbin); - reads stdin
    queries: Option<PathBuf>,
    #[command(flatten)]
    file: QueryFileArgs,
    /// Output file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Output format [default: by file name, else jsonl]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<BatchFormat>,
    /// Number of hits per query
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
    /// Write titles and texts of the hits too (jsonl)
    #[arg(long)]
    with_text: bool,
    /// Discard an unfinished earlier run
    #[arg(long)]
    restart: bool,
}

pub(super) fn run(args: BatchArgs, context: &Context) -> Result<Status> {
    let mut search = args.retrieve.options(args.k)?;
    search.min_score = args.min_score;
    let format = args.format.unwrap_or_else(|| BatchFormat::of_path(&args.out));
    if args.with_text && format != BatchFormat::Jsonl {
        return Err(Error::usage("--with-text needs --format jsonl"));
    }
    // A single argument is the file.
    let (dir, file) = match (args.dir.as_deref(), args.queries.as_deref()) {
        (dir, Some(file)) => (dir, file),
        (Some(only), None) if !is_index(only) => (None, only),
        _ => {
            let message = "the file of queries is missing: give it after the index folder";
            return Err(Error::usage(message));
        }
    };
    let dir = context.index_dir(dir)?;
    term::check_outputs(&[&args.out], &[file], Some(&dir))?;
    let queries = args.file.open(file, "query", context)?;
    let rerank = args.rerank.is_requested();
    let open = OpenOptions { rerank, ..args.rerank.open(args.embedder.model.as_deref()) };
    let searcher = context.engine.searcher(&dir, &open)?;
    if rerank {
        args.rerank.apply(&mut search, &searcher, context)?;
    }
    let options = BatchOptions { search, format, with_text: args.with_text, restart: args.restart };
    interrupt::install();
    let bar = context.bar(None, "{spinner} {msg}");
    let started = Instant::now();
    let report = batch::run(&searcher, queries, &args.out, &options, &mut |report| {
        let answered = report.queries - report.resumed;
        let rate = answered as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{} queries, {rate:.0} queries/s", HumanCount(report.queries)));
        bar.tick();
        !interrupt::requested()
    });
    bar.finish_and_clear();
    let report = report?;
    let seconds = started.elapsed().as_secs_f64();
    if report.interrupted {
        return Err(Error::Interrupted(format!(
            "{} queries are answered; run the same command again to continue",
            report.queries
        )));
    }
    if report.resumed > 0 {
        context.note(&format!("continued after {} queries", HumanCount(report.resumed)));
    }
    let rate = (report.queries - report.resumed) as f64 / seconds.max(1e-9);
    let mut value = serde_json::json!(report);
    value["seconds"] = seconds.into();
    value["queries_per_second"] = rate.into();
    context.report(&value, || {
        say!(
            "{}: {} queries, {} hits in {seconds:.2} s ({rate:.0} queries/s)",
            args.out.display(),
            HumanCount(report.queries),
            HumanCount(report.hits)
        )
    })?;
    note_left_out((report.below_min_score, report.not_reranked), context);
    if report.without_hits > 0 {
        context.note(&format!("{} queries have no hits", HumanCount(report.without_hits)));
    }
    Ok(Status::Success)
}
