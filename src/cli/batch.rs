//! `warpseek batch`.

use super::context::{Context, OpenOptions};
use super::search::{EmbedderArg, RerankArgs, RetrieveArgs};
use super::term::{self, say, thousands};
use super::{Outcome, interrupt};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;
use warpseek::batch::{self, BatchOptions, OutputFormat};
use warpseek::error::{Error, Result};

/// Answer the queries of a file into a file; an interrupted run continues where it stopped.
///
/// Reranks only where it is told to, by --rerank-depth, --reranker or --retriever-weight: it takes some
/// hundred times as long as the search.
#[derive(Debug, Args)]
pub(super) struct BatchArgs {
    /// The index folder
    dir: PathBuf,
    /// The queries: jsonl (_id, text, optionally filter and vector), id <tab> text, one a line, or
    /// vectors (npy, fvecs, fbin); - reads stdin
    queries: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// jsonl, trec or parquet [default: by file name, else jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// How many hits a query
    #[arg(short, long = "top-k", default_value_t = 10, value_name = "N")]
    k: usize,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    embedder: EmbedderArg,
    #[command(flatten)]
    rerank: RerankArgs,
    /// Write titles and texts of the hits too (jsonl)
    #[arg(long)]
    with_text: bool,
    /// Throw away an unfinished earlier run
    #[arg(long)]
    restart: bool,
}

pub(super) fn run(args: BatchArgs, context: &Context) -> Result<Outcome> {
    let mut search = args.retrieve.options(args.k)?;
    let format = OutputFormat::choose(args.format.as_deref(), &args.out)?;
    if args.with_text && format != OutputFormat::Jsonl {
        return Err(Error::usage("--with-text goes with --format jsonl"));
    }
    term::check_outputs(&[&args.out], &[&args.queries], Some(&args.dir))?;
    let rerank = args.rerank.is_asked_for();
    let open = OpenOptions { rerank, ..args.rerank.open(args.embedder.model.as_deref()) };
    let searcher = context.searcher(&args.dir, &open)?;
    if rerank {
        search.rerank_depth = args.rerank.depth(args.k, &searcher, context)?;
    }
    search.retriever_weight = args.rerank.retriever_weight;
    let options = BatchOptions { search, format, with_text: args.with_text, restart: args.restart };
    interrupt::install();
    let bar = term::bar(None, "{spinner} {msg}", context.quiet);
    let started = Instant::now();
    let report = batch::run(&searcher, &args.queries, &args.out, &options, &mut |report| {
        let fresh = report.queries - report.resumed;
        let rate = fresh as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{} queries, {rate:.0} queries/s", thousands(report.queries)));
        bar.tick();
        !interrupt::asked()
    });
    bar.finish_and_clear();
    let report = report?;
    let seconds = started.elapsed().as_secs_f64();
    if report.interrupted {
        return Err(Error::Interrupted(format!(
            "{} queries are answered; run the same command again to go on",
            report.queries
        )));
    }
    if report.resumed > 0 {
        context.note(&format!("continued after {} queries", thousands(report.resumed)));
    }
    let rate = (report.queries - report.resumed) as f64 / seconds.max(1e-9);
    if context.json {
        let mut value = serde_json::json!(report);
        value["seconds"] = seconds.into();
        value["queries_per_second"] = rate.into();
        term::print_json(&value)?;
    } else {
        say!(
            "{}: {} queries, {} hits in {seconds:.2} s ({rate:.0} queries/s)",
            args.out.display(),
            thousands(report.queries),
            thousands(report.hits)
        )?;
    }
    if report.without_hits > 0 {
        context.note(&format!("{} queries have no hits", thousands(report.without_hits)));
    }
    Ok(Outcome::Success)
}
